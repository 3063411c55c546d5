#pragma once

// The graphs that cuDNN is asked for, apart from a handle: what it offers for them can be asked of a
// description of a GPU, too.

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include <cudnn_frontend.h>

#include "core/tensor.hpp"

namespace gallop {

/// Names of a graph's arrays in its calls.
enum CudnnPart : std::int64_t {
    q_part = 1,
    k_part,
    v_part,
    x_part,
    kernel_part,
    bias_part,
    y_part
};

/// What an attention's plan is made for.
struct CudnnAttention {
    Index queries, keys, heads, groups, size;
    float scale;
    auto operator<=>(const CudnnAttention&) const = default;
};

/// What a convolution's plan is made for. Without extent in time it is one of pictures, T of them.
struct CudnnConvolution {
    bool pictures, biased;
    std::array<Index, 4> x, y;  ///< T, Y, X, C
    std::array<Index, 3> kernel, stride, before, after, dilation;
    auto operator<=>(const CudnnConvolution&) const = default;
};

/// What stands for all shapes of attention whose kernels may serve one another: those with the same powers
/// of two, up to 256, in queries and keys. cuDNN keeps a compiled kernel by engine alone, but 9.19 compiles
/// two for one engine, one of which takes whole tiles of 128 keys only.
CudnnAttention kernel_class(const CudnnAttention& shape);

/// q, k, v → y, all bf16. `kernels`: what was compiled for the shape's kernel_class is found and kept there, so
/// that only the first shape waits for the compiler; null: the plan's kernel is compiled for it alone.
std::shared_ptr<cudnn_frontend::graph::Graph> cudnn_graph(
    const CudnnAttention& shape, std::shared_ptr<cudnn_frontend::KernelCache> kernels = nullptr);
/// x, kernel (, bias) → y, all bf16, the sums and the bias added to them in f32: with a bias in f32 cuDNN
/// 9.19 has none but engines that are compiled at run time, a second for each shape.
std::shared_ptr<cudnn_frontend::graph::Graph> cudnn_graph(const CudnnConvolution& shape);

/// Which of cuDNN's engines may be taken.
enum class CudnnEngines {
    precompiled,  ///< those that are in the library as they run
    any,          ///< those, too, that are compiled for a shape
};
/// Asks cuDNN for engines, of one GPU: the handle's, or the one whose description the graph was given (no
/// handle then). "" when at least one is supported, else why not. One order of sums: engines that don't
/// promise it are left out.
std::string find_engines(cudnn_frontend::graph::Graph& graph, cudnnHandle_t handle,
                         CudnnEngines engines);
/// After `find_engines`: makes the plan of the first engine that gives one, which needs `workspace` bytes of
/// scratch memory. "" or why none does.
std::string build_plan(cudnn_frontend::graph::Graph& graph, std::int64_t& workspace);

}  // namespace gallop
