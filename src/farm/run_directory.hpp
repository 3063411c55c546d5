#pragma once

#include <filesystem>
#include <string_view>

namespace gallop {

/// Says that nothing is left to do: writes `COMPLETE`, one line of the outcome ("complete" or
/// "quarantined") and the time. Throws DiskError, Error.
void sign_complete(const std::filesystem::path& directory, std::string_view outcome);

/// Removes temporary files of processes that are gone. The caller knows that no one works here.
void sweep(const std::filesystem::path& directory);

}  // namespace gallop
