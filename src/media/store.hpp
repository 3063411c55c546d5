#pragma once

#include <filesystem>
#include <string_view>

namespace gallop {

/// Where a run directory keeps an item's clip: `clips/ab/cd/ID.mp4` for the id abcd… Two levels of
/// 256 folders keep each small with a million items. `id`: at least four lower-case hex digits,
/// nothing else. Throws Error.
std::filesystem::path clip_path(const std::filesystem::path& run, std::string_view id);

/// Likewise for its latents: `latents/ab/cd/ID.h5`.
std::filesystem::path latents_path(const std::filesystem::path& run, std::string_view id);

}  // namespace gallop
