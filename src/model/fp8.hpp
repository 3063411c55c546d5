#pragma once

#include <string>
#include <string_view>

#include "model/checkpoint.hpp"
#include "model/fp8_choice.hpp"

namespace gallop {

/// What follows an E4M3 weight's name in that of its scales, one a row.
inline constexpr std::string_view fp8_scale_suffix = ".__fp8_scale";

/// Puts a matrix into `weights` in E4M3: `name` and its scales. values: [N, D] float on `on`.
void put_fp8(Weights& weights, const std::string& name, ConstTensorView values, Backend& on);

/// y = x Wᵀ with the weight of that name, each row with its expert; rows that meet an E4M3 weight are
/// quantised on the way. x: [L, D] float; y: [L, N].
void multiply(ConstTensorView x, const Weights& weights, const std::string& name, Segments segments,
              TensorView y, Backend& on);
/// y ← y + x Wᵀ by an E4M3 weight. y: [L, N] f32.
void multiply_and_add(ConstTensorView x, const Weights& weights, const std::string& name,
                      Segments segments, TensorView y, Backend& on);
/// `multiply` of norm(x), RMS with 1 + gain, which is rounded to `rounded` for a weight that isn't E4M3.
void multiply_normed(ConstTensorView x, ConstTensorView gain, const Weights& weights,
                     const std::string& name, Segments segments, DType rounded, TensorView y,
                     Backend& on);

}  // namespace gallop
