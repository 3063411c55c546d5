#pragma once

#include <filesystem>
#include <vector>

#include "core/node.hpp"
#include "farm/manifest.hpp"
#include "farm/problems.hpp"

namespace gallop {

/// Reads the entries of an `overrides` list. Files are taken from `folder`.
std::vector<Override> read_overrides(const Node& list, const std::filesystem::path& folder,
                                     Problems& problems);

/// Reads the `items` of a manifest: items, and files whose rows are items. Files are looked for, but
/// not opened.
std::vector<ItemSource> read_sources(const Node& root, const std::filesystem::path& folder,
                                     Problems& problems);

}  // namespace gallop
