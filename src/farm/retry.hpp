#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace gallop {

/// Gives items another chance: each gets a `retry` line in the journal, after which its failed
/// tries don't count and the next `gallop run` renders it. `words`: ids, starts of ids or names of
/// items that are quarantined or have failed; none: all that are quarantined. Returns their ids.
/// Takes the run's lock for the moment: throws InputError while the run is live, for a word that
/// means no item, and for an item with nothing to retry.
std::vector<std::string> retry_items(const std::filesystem::path& run,
                                     const std::vector<std::string>& words);

}  // namespace gallop
