#include "core/scalar.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "core/utf8.hpp"

namespace gallop {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Sign, digits without a leading zero, and what `from_chars` allows after them.
template <class T>
std::optional<T> parse_decimal(std::string_view text) {
    if (!text.empty() && text.front() == '+') {
        text.remove_prefix(1);
        if (!text.empty() && text.front() == '-') return {};
    }
    const std::string_view digits = text.substr(text.starts_with('-') ? 1 : 0);
    if (digits.empty() || !(is_digit(digits[0]) || digits[0] == '.')) return {};  // inf, nan
    if (digits.size() > 1 && digits[0] == '0' && is_digit(digits[1])) return {};  // octal to some
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return {};
    return value;
}

/// Control characters as a text in double quotes has them.
std::string escaped(std::string_view text) {
    std::string made;
    while (!text.empty()) {
        const std::size_t length = std::max<std::size_t>(utf8_length(text), 1);
        const auto control = first_control(text.substr(0, length));
        if (control == U'\n')
            made += "\\n";
        else if (control)
            made += fmt::format("\\u{:04x}", static_cast<std::uint32_t>(*control));
        else
            made += text.substr(0, length);
        text.remove_prefix(length);
    }
    return made;
}

bool is_plain(const Node& node) { return node.kind == Node::Kind::scalar && !node.quoted; }

}  // namespace

std::optional<std::int64_t> parse_whole(std::string_view text) {
    return parse_decimal<std::int64_t>(text);
}
std::optional<double> parse_number(std::string_view text) { return parse_decimal<double>(text); }

std::optional<std::int64_t> as_whole(const Node& node) {
    if (!is_plain(node)) return {};
    return parse_whole(node.scalar);
}

std::optional<double> as_number(const Node& node) {
    if (!is_plain(node)) return {};
    return parse_number(node.scalar);
}

std::optional<bool> as_flag(const Node& node) {
    if (!is_plain(node)) return {};
    if (node.scalar == "true") return true;
    if (node.scalar == "false") return false;
    return {};
}

std::optional<std::string> as_text(const Node& node) {
    if (node.kind != Node::Kind::scalar) return {};
    return node.scalar;
}

std::string shortened(std::string_view text) {
    constexpr std::size_t most = 60;
    std::size_t end = std::min(most, text.size());
    while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
        --end;
    std::string made(text.substr(0, end));
    if (first_control(made)) made = escaped(made);
    return end < text.size() ? made + "…" : made;
}

std::string in_words(const Node& node) {
    switch (node.kind) {
        case Node::Kind::null: return "empty";
        case Node::Kind::sequence: return "a list";
        case Node::Kind::map: return "a map";
        case Node::Kind::scalar: break;
    }
    return node.quoted ? fmt::format("\"{}\" in quotes", shortened(node.scalar))
                       : shortened(node.scalar);
}

}  // namespace gallop
