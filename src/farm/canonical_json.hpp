#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gallop {

/// The one text that stands for a JSON value: keys sorted by UTF-16 code units, no spaces, shortest
/// strings, numbers as ECMAScript prints doubles. Source: RFC 8785. Throws Error for what it cannot
/// carry: NaN, infinities, integers beyond ±(2^53 − 1), text that is not UTF-8.
std::string canonical_json(const nlohmann::json& value);

/// Adds a text to `out` as canonical JSON writes it, in quotes. Throws Error when it is not UTF-8.
void append_json_text(std::string_view text, std::string& out);

/// A double as ECMAScript's Number::toString prints it. Throws Error when it is not finite.
std::string number_text(double value);

/// Whether the bytes are UTF-8 without surrogates and overlong forms.
bool is_utf8(std::string_view text);

}  // namespace gallop
