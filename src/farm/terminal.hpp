#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace gallop {

/// Columns of the terminal behind a descriptor; 80 where it is none.
std::size_t terminal_columns(int descriptor);

/// The text on one line of at most `columns` columns, cut with "…" where it is longer. Control
/// characters and bytes that are not UTF-8 become "?": a name cannot move the cursor. East Asian
/// wide characters count two columns, combining marks none.
std::string fit(std::string_view text, std::size_t columns);

/// "0:42", "12:05", "3:04:05", "2d 03:04".
std::string clock_text(double seconds);

/// "512 B", "1.5 GB": decimal units.
std::string bytes_text(double bytes);

}  // namespace gallop
