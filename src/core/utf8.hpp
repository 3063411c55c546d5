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

}  // namespace gallop
