#pragma once

#include <filesystem>

#include "farm/plan.hpp"

namespace gallop {

/// Takes a run directory for one run: refuses a folder that holds something else or a run of another
/// plan (InputError), removes what a kill left half-written, writes `items.lock.jsonl` and
/// `run.json`. The caller holds the directory's RunLock.
void prepare_run_directory(const Plan& plan, const std::filesystem::path& directory);

/// Removes temporary files of processes that are gone. The caller knows that no one works here.
void sweep(const std::filesystem::path& directory);

}  // namespace gallop
