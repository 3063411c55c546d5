#pragma once

#include <filesystem>

namespace gallop {

/// Whether a file or folder is there. What cannot be looked at is not absent: throws DiskError when the
/// disk refuses, InputError when the path may not be reached, with the reason.
bool there(const std::filesystem::path& path);

}  // namespace gallop
