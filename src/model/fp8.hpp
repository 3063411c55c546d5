#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.hpp"

namespace gallop {

/// Which linear layers multiply in E4M3 when that is asked for. All others keep the published bf16
/// casts, and so do embedders, norms and heads always.
struct Fp8Choice {
    std::vector<std::string> linears{"qkv", "proj", "up", "down"};  ///< of a transformer's layers
    std::string layers =
        "inner";                ///< "inner": all but the first and the last; "all"; "1-38", "0,4-9"
    bool text_encoder = false;  ///< all linears of the text encoder's layers
    bool operator==(const Fp8Choice&) const = default;
};

/// What `Fp8Choice::linears` may name.
const std::vector<std::string>& fp8_linears();
/// What is wrong with a choice of layers, whatever the network; "" when nothing is.
std::string fp8_layers_problem(std::string_view layers);
/// The choice as one line, the same for the same choice.
std::string to_text(const Fp8Choice& choice);

/// Turns the dtype of the chosen linears in a transformer's table (whole or sharded) to f8_e4m3.
/// Throws InputError when the choice names layers that the network `name` hasn't, or none of it.
void choose_fp8(std::vector<TensorSpec>& specs, Index num_layers, const Fp8Choice& choice,
                std::string_view name);

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
