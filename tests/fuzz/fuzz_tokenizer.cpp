// A tokenizer.model or, when it starts with a brace, a tokenizer_config.json; then texts through
// the tokenizer that comes of it.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.hpp"
#include "model/piece_table.hpp"
#include "model/tokenizer.hpp"

namespace {

using gallop::Piece;

/// A small model for configs to go with.
const std::string& small_model() {
    static const std::string model =
        gallop::serialize({.pieces = {{"<unk>", 0, Piece::Type::unknown},
                                      {"<s>", 0, Piece::Type::control},
                                      {"\n\n", 0, Piece::Type::user_defined},
                                      {"ab", -1},
                                      {"a", -2},
                                      {"b", -3},
                                      {"\u2581", -4}}});
    return model;
}

/// Every byte lies in one token, in order, and every id is below the size.
void check(const gallop::Tokenizer& tokenizer, std::string_view text) {
    const gallop::Tokens tokens = tokenizer.encode(text);
    if (tokens.begin.size() != tokens.ids.size() || tokens.end.size() != tokens.ids.size())
        std::abort();
    std::size_t at = 0;
    for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
        if (tokens.ids[i] < 0 || tokens.ids[i] >= tokenizer.size()) std::abort();
        if (tokens.begin[i] != at || tokens.end[i] < at) std::abort();
        at = tokens.end[i];
    }
    if (at != text.size()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    try {
        const bool is_config = bytes.starts_with('{');
        const auto config = is_config ? gallop::read_tokenizer_config(bytes, "fuzz")
                                      : gallop::TokenizerConfig{.add_bos = true};
        const gallop::Tokenizer tokenizer(is_config ? small_model() : bytes, config, "fuzz");
        for (const std::string_view text : {"", "aaabbb abab  ab\n\n\nabba<s>",
                                            "Gr\u00fc\u00dfe \u65e9\u4e0a\u597d \U0001f600\t\t"})
            check(tokenizer, text);
        check(tokenizer, bytes);
    } catch (const gallop::InputError&) {
    }
    return 0;
}
