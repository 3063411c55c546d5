#include <cstring>

#include <omp.h>

#include "ops/cpu_attention.hpp"
#include "ops/cpu_backend.hpp"
#include "ops/cpu_conv.hpp"
#include "ops/cpu_gemm.hpp"
#include "ops/cpu_rows.hpp"
#include "ops/threads.hpp"

namespace gallop {

CpuBackend::CpuBackend(int threads) {
    if (threads > 0) omp_set_num_threads(threads);
}

void CpuBackend::do_copy(ConstTensorView from, TensorView to) {
    if (from.numel() == 0) return;
    if (from.dtype() == to.dtype()) {
        std::memcpy(to.raw(), from.raw(), from.bytes());
        return;
    }
    const Index count = from.numel();
    constexpr Index chunk = 65536;
    parallel_chunks(count, chunk, [&](Index begin, Index end) {
        const auto n = static_cast<std::size_t>(end - begin);
        if (to.dtype() == DType::f32)
            vector_math::widen(from.data<bf16>() + begin, to.data<float>() + begin, n);
        else
            vector_math::narrow(from.data<float>() + begin, to.data<bf16>() + begin, n);
    });
}

void CpuBackend::do_fill_zero(TensorView y) {
    if (y.bytes() > 0) std::memset(y.raw(), 0, y.bytes());
}

void CpuBackend::do_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                           Segments segments, TensorView y) {
    cpu_linear(x, weight, bias, segments, y);
}

void CpuBackend::do_project(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                            TensorView y) {
    // A GEMM of few rows spends its time packing; dot products do not. The published casts were
    // recorded with a library that draws the line between 18 and 20 rows.
    constexpr Index few = 20;
    if (rows(x) >= few) {
        const std::array<Index, 1> all{rows(x)};
        return cpu_linear(x, weight, bias, all, y);
    }
    const Index depth = width(x);
    const Index out = width(y);
    const Index block = std::max<Index>(1, 32768 / std::max<Index>(depth, 1));
    parallel_chunks(out, block, [&](Index begin, Index end) {
        for (Index row = 0; row < rows(x); ++row) {
            float* line = y.data<float>() + row * out;
            vector_math::dot_rows(x.data<float>() + row * depth,
                                  weight.data<float>() + begin * depth,
                                  static_cast<std::size_t>(end - begin),
                                  static_cast<std::size_t>(depth), line + begin);
            if (bias.defined())
                for (Index n = begin; n < end; ++n) line[n] += bias.data<float>()[n];
        }
    });
}

void CpuBackend::do_attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                              const AttentionMask& mask, float scale, float soft_cap,
                              TensorView y) {
    cpu_attention(q, k, v, mask, scale, soft_cap, y);
}

Tensor CpuBackend::do_prepare_conv(ConstTensorView kernel, DType dtype) {
    Tensor prepared = empty(kernel.shape(), dtype);
    do_copy(kernel, prepared);
    return prepared;
}

void CpuBackend::do_conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                         const ConvSpec& spec, TensorView y) {
    if (x.dtype() == DType::f32) return cpu_conv(x, kernel, bias, spec, y);
    Tensor wide_x = empty(x.shape());
    Tensor wide_kernel = empty(kernel.shape());
    Tensor wide_bias = bias.defined() ? empty(bias.shape()) : Tensor();
    Tensor wide_y = empty(y.shape());
    do_copy(x, wide_x);
    do_copy(kernel, wide_kernel);
    if (bias.defined()) do_copy(bias, wide_bias);
    cpu_conv(wide_x, wide_kernel, wide_bias, spec, wide_y);
    do_copy(wide_y, y);
}

void CpuBackend::do_conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                                   Index stride, Index pad, TensorView y) {
    cpu_conv_transpose(x, kernel, bias, stride, pad, y);
}

int cpu_threads() { return omp_get_max_threads(); }

std::unique_ptr<Backend> make_cpu_backend(int threads) {
    return std::make_unique<CpuBackend>(threads);
}

}  // namespace gallop
