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
    /// Layers of one linear, as `layers` or "none": they go before `linears` and `layers`. "": as those say.
    std::string qkv = {}, proj = {}, up = {}, down = {};
    bool operator==(const Fp8Choice&) const = default;
};

/// One linear of one layer.
struct Fp8Part {
    Index layer = 0;
    std::string linear;  ///< one of fp8_linears()
    bool operator==(const Fp8Part&) const = default;
};

/// What `Fp8Choice::linears` may name.
const std::vector<std::string>& fp8_linears();
/// The published name of a part's weight.
std::string weight_name(const Fp8Part& part);
/// What is wrong with a choice, whatever the network, beginning with the field's path; "" when nothing is.
std::string fp8_problem(const Fp8Choice& choice);
/// The choice as one line, the same for the same choice.
std::string to_text(const Fp8Choice& choice);

/// What of a network of so many layers is chosen, by layer. Throws InputError when the choice names layers
/// that the network `name` hasn't, or none of it, or nothing at all.
std::vector<Fp8Part> fp8_parts(const Fp8Choice& choice, Index num_layers, std::string_view name);
/// The shortest choice of these parts: `linears` in `layers` where all of them are in the same layers, else
/// each linear's own layers.
Fp8Choice fp8_choice_of(const std::vector<Fp8Part>& parts, Index num_layers);

/// Turns the dtype of the chosen linears in a transformer's table (whole or sharded) to f8_e4m3. Throws as
/// fp8_parts.
void choose_fp8(std::vector<TensorSpec>& specs, Index num_layers, const Fp8Choice& choice,
                std::string_view name);

}  // namespace gallop
