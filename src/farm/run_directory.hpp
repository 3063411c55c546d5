#pragma once

#include <filesystem>

namespace gallop {

/// Removes temporary files of processes that are gone. The caller knows that no one works here.
void sweep(const std::filesystem::path& directory);

}  // namespace gallop
