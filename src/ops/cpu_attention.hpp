#pragma once

#include "ops/backend.hpp"

namespace gallop {

/// Backend::attention on the CPU: blocks of queries of one head, all their keys at once, softmax
/// over the union of the key ranges that the mask allows. bf16 inputs are widened, sums are f32.
void cpu_attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                   const AttentionMask& mask, float scale, float soft_cap, TensorView y);

}  // namespace gallop
