#pragma once

#include <filesystem>
#include <string_view>

namespace gallop {

/// Says that nothing is left to do: writes `COMPLETE`, one line of the outcome ("complete" or
/// "quarantined") and the time. Throws DiskError, Error.
void sign_complete(const std::filesystem::path& directory, std::string_view outcome);

/// Says that an attempt has ended and what came of it: writes `ATTEMPT_END`, one line. Throws
/// DiskError, Error.
void sign_attempt_end(const std::filesystem::path& directory, std::string_view outcome);

/// The same of an attempt that a refusing disk stopped. A full disk that takes no line may still take
/// the name of a file: an empty `ATTEMPT_END` says "stopped", too.
void sign_refused_end(const std::filesystem::path& directory);

/// Removes temporary files of processes that are gone. The caller knows that no one works here.
void sweep(const std::filesystem::path& directory);

}  // namespace gallop
