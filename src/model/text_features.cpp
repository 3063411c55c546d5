#include "model/text_features.hpp"

#include <algorithm>
#include <cctype>

#include "core/check.hpp"
#include "core/random.hpp"

namespace gallop {
namespace {

constexpr std::size_t most_shown = 300;

/// Where the character starts that ends before `end`, which is not 0.
std::size_t character_before(std::string_view text, std::size_t end) {
    do --end;
    while (end > 0 && (static_cast<std::uint8_t>(text[end]) & 0xc0U) == 0x80U);
    return end;
}

/// Whether the character at `at` belongs to a word of letters: those of ASCII, Latin, Greek,
/// Cyrillic, … (two bytes). Scripts with three bytes a character mostly know no spaces.
bool in_word(std::string_view text, std::size_t at) {
    const auto byte = static_cast<std::uint8_t>(text[at]);
    if (byte < 0x80) return std::isalnum(byte) != 0 || byte == '\'' || byte == '-';
    return (byte & 0xe0U) == 0xc0U;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string hash_of(const std::vector<std::int32_t>& ids) {
    std::string bytes;
    for (const std::int32_t id : ids)
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(id >> shift));
    return fmt::format("{:016x}", fnv1a_64(bytes));
}

}  // namespace

void round_to_half(TensorView x) {
    for (float& value : x.span<float>()) value = to_float(to_f16(value));
}

std::string words_from(std::string_view text, std::size_t begin) {
    while (begin > 0 && begin < text.size() && in_word(text, begin)) {
        const std::size_t before = character_before(text, begin);
        if (!in_word(text, before)) break;
        begin = before;
    }
    std::string words;
    for (const char c : text.substr(begin)) {
        if (!is_space(c))
            words.push_back(c);
        else if (!words.empty() && words.back() != ' ')
            words.push_back(' ');
    }
    if (words.ends_with(' ')) words.pop_back();
    if (words.size() <= most_shown) return words;
    return words.substr(0, character_before(words, most_shown + 1)) + "…";
}

std::string excess_of(std::string_view prompt, const Tokens& tokens) {
    if (static_cast<Index>(tokens.ids.size()) <= max_text_rows) return {};
    return fmt::format("the prompt has {} tokens and the network takes {}; the end is cut: \"{}\"",
                       tokens.ids.size(), max_text_rows,
                       words_from(prompt, tokens.begin[max_text_rows]));
}

TextFeatures encode_prompt(std::string_view prompt, const Tokens& tokens,
                           const TextEncoder& encoder) {
    if (tokens.ids.empty()) throw_input_error("the prompt is empty (needs at least one word)");
    TextFeatures features;
    features.tokens = static_cast<Index>(tokens.ids.size());
    features.id = hash_of(tokens.ids);
    features.embedding = encoder.encode(tokens.ids);
    if (features.tokens > max_text_rows) {
        features.cut = words_from(prompt, tokens.begin[max_text_rows]);
        features.warning = excess_of(prompt, tokens);
        const Tensor whole = std::move(features.embedding);
        features.embedding = Tensor({max_text_rows, whole.size(1)});
        std::ranges::copy(whole.rows(0, max_text_rows).span<float>(),
                          features.embedding.data<float>());
    }
    if (encoder.options().compute == DType::bf16) round_to_half(features.embedding);
    return features;
}

}  // namespace gallop
