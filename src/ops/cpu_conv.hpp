#pragma once

#include "ops/backend.hpp"

namespace gallop {

/// y = conv(x) + b on the host, by oneDNN. x: [T, Y, X, I] f32; kernel: [O, I, kT, kY, kX] f32;
/// bias: [O] f32 or undefined; y: [T', Y', X', O] f32 with the extents that `spec` gives. Scratch
/// stays small for sounds of any length ([1, 1, S, I]). Runs on OpenMP's threads; the result does
/// not depend on their number. Throws Error when the shapes do not fit, OutOfMemoryError.
void cpu_conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias, const ConvSpec& spec,
              TensorView y);

/// Transposed 1-D convolution: y[s·stride − pad + j, o] += x[s, i]·kernel[i, o, j], plus the bias.
/// x: [S, I] f32; kernel: [I, O, k] f32; bias: [O] f32 or undefined;
/// y: [(S−1)·stride − 2·pad + k, O] f32. Throws as `cpu_conv`.
void cpu_conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                        Index stride, Index pad, TensorView y);

}  // namespace gallop
