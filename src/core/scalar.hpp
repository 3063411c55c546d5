#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/node.hpp"

namespace gallop {

// How the scalars of a parsed text are understood, strictly: a number is plain decimal without
// leading zeros, a flag is `true` or `false`, text in quotes is text only. Empty for anything else.

std::optional<std::int64_t> as_whole(const Node& node);
std::optional<double> as_number(const Node& node);
std::optional<bool> as_flag(const Node& node);
std::optional<std::string> as_text(const Node& node);

/// A plain decimal number, as as_whole and as_number take it.
std::optional<std::int64_t> parse_whole(std::string_view text);
std::optional<double> parse_number(std::string_view text);

/// A value in words, fit for an error message: "a list", "empty", "\"a\" in quotes", 7.
std::string in_words(const Node& node);

/// The start of a text, fit for an error message: control characters are written as \n, \u001b.
std::string shortened(std::string_view text);

}  // namespace gallop
