#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "core/cuda.hpp"
#include "ops/backend.hpp"
#include "ops/workspace.hpp"

namespace gallop {

/// Attention and convolutions in bf16 by cuDNN 9, all on one stream. Plans are made once a shape, and so is
/// the finding that there is none; both give the same bits for a shape, a version of cuDNN and a GPU,
/// whatever was asked before. Plans of attention share compiled kernels where the version is known to do it
/// right, so a new length of prompt costs milliseconds. Where memory runs out over a plan they throw
/// OutOfMemoryError and nothing is remembered: another kernel would give other bits. No call takes more
/// scratch memory than most_workspace.
class Cudnn {
public:
    Cudnn() = default;
    Cudnn(const Cudnn&) = delete;
    Cudnn& operator=(const Cudnn&) = delete;
    virtual ~Cudnn() = default;

    /// As people write it: "9.19.0".
    virtual std::string version() const = 0;

    /// Its engines count an array's elements in 31 bits; what is larger is refused.
    static constexpr Index most_elements = std::numeric_limits<std::int32_t>::max();
    /// Convolutions' channels come in multiples of this: others are copied into wider arrays in scratch
    /// memory.
    static constexpr Index channel_unit = 8;
    static constexpr Index whole_channels(Index channels) {
        return (channels + channel_unit - 1) / channel_unit * channel_unit;
    }
    /// The most elements of an array [T, Y, X, C] that a convolution should read or make in one call: a
    /// wider copy of them takes half of most_workspace.
    static Index most_elements_of(const Shape& shape) {
        const Index wide = whole_channels(shape[3]);
        if (wide == shape[3]) return most_elements;
        constexpr Index copied = Index{most_workspace} / 2 / 2;  // of bf16
        return copied / wide * shape[3];
    }

    /// y = softmax(scale·q kᵀ) v, as Backend::attention without a mask. q, y: [Lq, H, K], k, v: [Lk, G, K]
    /// bf16. False, and y is as it was, when cuDNN has nothing for the shape.
    virtual bool attend(ConstTensorView q, ConstTensorView k, ConstTensorView v, float scale,
                        TensorView y) = 0;
    /// Whether this version's convolutions can be trusted; else nobody may call `convolve`.
    virtual bool convolves() const = 0;
    /// y = conv(x) + bias, as Backend::conv, but for the kernel's layout. x: [T, Y, X, I], y: [T', Y', X',
    /// O] bf16; kernel: of shape [O, I, kT, kY, kX], stored [O, kT, kY, kX, I], bf16; bias: [O] bf16 or
    /// undefined. False when cuDNN has nothing for the shape.
    virtual bool convolve(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                          const ConvSpec& spec, TensorView y) = 0;
};

/// Opens the machine's cuDNN (libcudnn.so.9, where the loader finds it). Null when there is none that can
/// be trusted, which the log says; always null in a build without cudnn-frontend's headers. `memory`
/// serves workspaces and must outlive it.
std::unique_ptr<Cudnn> open_cudnn(Memory& memory, cudaStream_t stream);

}  // namespace gallop
