#pragma once

#include "core/tensor.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// Backend::linear on the CPU: fixed tiles, each by oneDNN's sequential sgemm, so that the sums do
/// not depend on the number of threads. bf16 and E4M3 operands are widened tile by tile, sums are f32.
/// With scales (both or none), those of a row of x and of a row of `weight` multiply their sum.
void cpu_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias, Segments segments,
                TensorView y, const float* x_scales = nullptr,
                const float* weight_scales = nullptr);

/// c = alpha·a·op(b), or c += … when `accumulate`; row-major, sequential. a: [m, k], leading dimension lda; b: [k, n], or [n, k]
/// when `transpose_b`; c: [m, n].
void sequential_gemm(bool transpose_b, Index m, Index n, Index k, float alpha, const float* a,
                     Index lda, const float* b, Index ldb, float* c, Index ldc,
                     bool accumulate = false);

}  // namespace gallop
