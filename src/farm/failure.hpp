#pragma once

#include <exception>
#include <optional>
#include <string>
#include <string_view>

namespace gallop {

/// Why a try of an item failed; it decides what is done next.
enum class FailureKind {
    error,          ///< none of those below
    input,          ///< the request is wrong, as this host sees it
    out_of_memory,  ///< of the device or the host, also when the kernel killed the renderer for it
    crash,          ///< the renderer ended, or its device was lost
    hung,           ///< the renderer was silent, made no progress, or took far too long
    bad_output,     ///< not finite, constant, of a wrong length, undecodable
    disk,           ///< full, over quota, read-only or failing: does not count as a try
    lost,           ///< its agent or renderer vanished; only of what is given back
};

/// "error", "input", "out_of_memory", …, as the journal has them.
std::string_view name_of(FailureKind kind);

/// The kind of that name; nothing when there is none.
std::optional<FailureKind> failure_kind(std::string_view name);

/// What an exception means for the item during whose try it came, in words that fit one line of a
/// journal (at most 1,500 bytes).
struct Failure {
    FailureKind kind = FailureKind::error;
    std::string error;
};
Failure failure_of(std::exception_ptr thrown);

/// What an exception means that came before a renderer's first item: as above, but a host that has no
/// usable device makes the request wrong there, while a device that others hold may come free.
Failure failure_to_begin(std::exception_ptr thrown);

/// The text cut to `bytes` at a character's edge, with "…" where it was cut; what is not UTF-8
/// becomes "?", control characters other than newlines become spaces.
std::string shortened(std::string_view text, std::size_t bytes);

/// The first line of an error's text, for a log line or a table, and how many more there are.
std::string first_line_of(std::string_view text);

}  // namespace gallop
