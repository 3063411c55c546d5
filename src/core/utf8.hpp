#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace gallop {

/// Bytes of the UTF-8 sequence at the start of `text`, which is not empty; 0 when there is none.
/// Overlong forms, surrogates and values above U+10FFFF are none.
std::size_t utf8_length(std::string_view text);

/// Where the first byte stands that belongs to no UTF-8 sequence; nothing when all is UTF-8.
std::optional<std::size_t> first_not_utf8(std::string_view text);

/// The first character that moves a terminal's cursor or ends a line instead of showing: U+0000 to
/// U+001F, U+007F to U+009F, U+2028, U+2029; nothing when there is none. `text`: UTF-8.
std::optional<char32_t> first_control(std::string_view text);

}  // namespace gallop
