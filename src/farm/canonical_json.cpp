#include "farm/canonical_json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/check.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

/// One code point from the front of `text`, which is cut; -1 when it is malformed.
std::int32_t take_code_point(std::string_view& text) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
    const std::uint8_t first = byte(0);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xc2 ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length == 0 || text.size() < length) return -1;
    std::int32_t point = length == 1 ? first : first & (0x7f >> length);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return -1;
        point = (point << 6) | (byte(i) & 0x3f);
    }
    constexpr std::int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return -1;
    text.remove_prefix(length);
    return point;
}

std::u16string to_utf16(std::string_view text) {
    std::u16string out;
    while (!text.empty()) {
        const std::int32_t point = take_code_point(text);
        CHECK(point >= 0, "text is not UTF-8");
        if (point < 0x10000) {
            out += static_cast<char16_t>(point);
        } else {
            out += static_cast<char16_t>(0xd800 + ((point - 0x10000) >> 10));
            out += static_cast<char16_t>(0xdc00 + ((point - 0x10000) & 0x3ff));
        }
    }
    return out;
}

void write(const Json& value, std::string& out) {
    constexpr std::uint64_t largest = (std::uint64_t{1} << 53) - 1;
    switch (value.type()) {
        case Json::value_t::null: out += "null"; return;
        case Json::value_t::boolean: out += value.get<bool>() ? "true" : "false"; return;
        case Json::value_t::string:
            append_json_text(value.get_ref<const std::string&>(), out);
            return;
        case Json::value_t::number_unsigned:
            CHECK(value.get<std::uint64_t>() <= largest, "{} has no exact double",
                  value.get<std::uint64_t>());
            out += std::to_string(value.get<std::uint64_t>());
            return;
        case Json::value_t::number_integer:
            CHECK(std::llabs(value.get<std::int64_t>()) <= static_cast<std::int64_t>(largest),
                  "{} has no exact double", value.get<std::int64_t>());
            out += std::to_string(value.get<std::int64_t>());
            return;
        case Json::value_t::number_float: out += number_text(value.get<double>()); return;
        case Json::value_t::array: {
            out += '[';
            for (std::size_t i = 0; i < value.size(); ++i) {
                if (i > 0) out += ',';
                write(value[i], out);
            }
            out += ']';
            return;
        }
        case Json::value_t::object: {
            std::vector<std::pair<std::u16string, std::string>> keys;
            for (const auto& [key, member] : value.items()) keys.emplace_back(to_utf16(key), key);
            std::sort(keys.begin(), keys.end());
            out += '{';
            for (std::size_t i = 0; i < keys.size(); ++i) {
                if (i > 0) out += ',';
                append_json_text(keys[i].second, out);
                out += ':';
                write(value.at(keys[i].second), out);
            }
            out += '}';
            return;
        }
        default: break;
    }
    throw Error("a binary or discarded JSON value has no canonical text");
}

}  // namespace

void append_json_text(std::string_view text, std::string& out) {
    CHECK(is_utf8(text), "text is not UTF-8");
    out += '"';
    for (const char c : text) {
        switch (c) {
            case '"': out += "\\\""; break;
            case '\\': out += "\\\\"; break;
            case '\b': out += "\\b"; break;
            case '\f': out += "\\f"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            default:
                if (static_cast<unsigned char>(c) < 0x20)
                    out += fmt::format("\\u{:04x}", static_cast<int>(c));
                else
                    out += c;
        }
    }
    out += '"';
}

bool is_utf8(std::string_view text) {
    while (!text.empty())
        if (take_code_point(text) < 0) return false;
    return true;
}

std::string number_text(double value) {
    CHECK(std::isfinite(value), "{} is not a JSON number", value);
    if (value == 0) return "0";
    // The shortest digits that read back as the same double, d.ddde±x; then ECMA-262's layout of
    // them.
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value),
                                   std::chars_format::scientific)
                         .ptr;
    const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
    const std::size_t e = text.find('e');
    int exponent = 0;
    const std::size_t sign = text[e + 1] == '+' ? e + 2 : e + 1;
    std::from_chars(text.data() + sign, text.data() + text.size(), exponent);
    std::string digits(text.substr(0, 1));
    if (e > 2) digits += text.substr(2, e - 2);

    const int count = static_cast<int>(digits.size());
    const int point = exponent + 1;  // digits before the decimal point
    std::string out = value < 0 ? "-" : "";
    if (count <= point && point <= 21)
        out += digits + std::string(static_cast<std::size_t>(point - count), '0');
    else if (0 < point && point <= 21)
        out += digits.substr(0, static_cast<std::size_t>(point)) + "." +
               digits.substr(static_cast<std::size_t>(point));
    else if (-6 < point && point <= 0)
        out += "0." + std::string(static_cast<std::size_t>(-point), '0') + digits;
    else
        out += digits.substr(0, 1) + (count > 1 ? "." + digits.substr(1) : "") +
               fmt::format("e{}{}", exponent < 0 ? '-' : '+', std::abs(exponent));
    return out;
}

std::string canonical_json(const nlohmann::json& value) {
    std::string out;
    write(value, out);
    return out;
}

}  // namespace gallop
