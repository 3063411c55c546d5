#pragma once

#include <string>
#include <string_view>

#include "model/text_encoder.hpp"
#include "model/tokenizer.hpp"

namespace gallop {

/// Rows of text that the DiT takes at most. Source: t5_gemma_target_length of daVinci-MagiHuman.
constexpr Index max_text_rows = 640;

/// What the DiT gets of a prompt.
struct TextFeatures {
    Tensor embedding;  ///< [L, D] f32 on the host, L at most 640
    Index tokens = 0;  ///< of the whole prompt
    std::string id;    ///< hash of the tokens, 16 hex digits
    std::string cut;   ///< the words beyond the limit, shortened to a few lines; empty when all fit
    std::string warning;  ///< a line that names them; empty when all fit
};

/// Encodes the whole prompt, whose tokens are given, then keeps the first 640 rows: what is cut still colours what stays,
/// as in the reference. A bf16 encoder's result goes through half precision as there; an f32 one's
/// does not. Throws InputError for a prompt without tokens and for what TextEncoder refuses.
TextFeatures encode_prompt(std::string_view prompt, const Tokens& tokens,
                           const TextEncoder& encoder);

/// A line that tells how many tokens a prompt has beyond the limit, and its words that are cut off; "" when all
/// fit.
std::string excess_of(std::string_view prompt, const Tokens& tokens);

/// Replaces each value by the nearest half-precision one; what is too large becomes infinity. The
/// reference hands its hidden states on in half precision. x: f32, host.
void round_to_half(TensorView x);

/// The words of `text` from the token on whose first byte is `begin`, a word that it cuts in two
/// included; line ends become spaces, and all but the first 300 bytes an ellipsis.
std::string words_from(std::string_view text, std::size_t begin);

}  // namespace gallop
