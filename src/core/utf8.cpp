#include "core/utf8.hpp"

#include <algorithm>
#include <cstdint>

namespace gallop {

std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
    const std::uint8_t lead = byte(0);
    if (lead < 0x80) return 1;
    const std::size_t length = lead < 0xc2   ? 0
                               : lead < 0xe0 ? 2
                               : lead < 0xf0 ? 3
                               : lead < 0xf5 ? 4
                                             : 0;
    if (length == 0 || text.size() < length) return 0;
    // The second byte's range depends on the first.
    const std::uint8_t least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const std::uint8_t most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (byte(1) < least || byte(1) > most) return 0;
    for (std::size_t i = 2; i < length; ++i)
        if ((byte(i) & 0xc0) != 0x80) return 0;
    return length;
}

std::optional<std::size_t> first_not_utf8(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = utf8_length(text.substr(at));
        if (length == 0) return at;
        at += length;
    }
    return std::nullopt;
}

std::optional<char32_t> first_control(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = std::max<std::size_t>(utf8_length(text.substr(at)), 1);
        if (length == 1 && (byte(at) < 0x20 || byte(at) == 0x7f)) return byte(at);
        if (length == 2 && byte(at) == 0xc2 && byte(at + 1) < 0xa0) return byte(at + 1);
        if (length == 3 && byte(at) == 0xe2 && byte(at + 1) == 0x80 &&
            (byte(at + 2) & 0xfe) == 0xa8)
            return 0x2028 + (byte(at + 2) & 1U);
        at += length;
    }
    return {};
}

}  // namespace gallop
