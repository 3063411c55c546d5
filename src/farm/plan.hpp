#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "farm/cost.hpp"
#include "farm/expand.hpp"
#include "farm/manifest.hpp"
#include "farm/plan_index.hpp"
#include "pipeline/network_check.hpp"

namespace gallop {

/// How a plan is made.
struct PlanOptions {
    std::filesystem::path directory;     ///< where to freeze it; empty: count and predict only
    std::filesystem::path digest_cache;  ///< folder of what is known of files' digests; or empty
    Calibration calibration;             ///< predictions are made with it
    NetworkCheck* networks =
        nullptr;              ///< looks for the networks that items need; null: nobody does
    bool extend = false;      ///< `directory` holds a plan, to which items are added
    bool overridden = false;  ///< options change the manifest: a plan made otherwise is refused
};

/// A plan, its totals and what they are made of. Its items are on the disk only.
struct PlanResult {
    RunConfig config;
    std::vector<float> seconds;   ///< of each distinct item
    PerStage stages{};            ///< seconds of all items
    double clip_bytes = 0;        ///< of all
    double latents_bytes = 0;     ///< of all
    double gpu_seconds = 0;       ///< items × the GPUs that they share
    std::uint64_t files = 0;      ///< clips and latents
    std::uint64_t added = 0;      ///< by `extend`
    std::vector<PlanRow> sample;  ///< representative items, the longest bucket first; with a
                                  ///< directory only
    Problems notes;
};

/// Expands a manifest item by item, hashes inputs and weights, gives ids, merges duplicates,
/// predicts, and freezes all of it in `options.directory`: items.lock.jsonl, duplicates.jsonl and
/// run.json, in this order, each under a temporary name first, so that a run.json stands for a
/// whole plan. Memory does not grow with the items, but for their ids and predictions. The caller
/// holds the directory's RunLock. Throws InputError with every mistake, also for a directory that
/// holds something else, and for an extension that would change or take away items.
PlanResult make_plan(const Manifest& manifest, const PlanOptions& options);

/// Adds what is wrong with the networks that `item` needs, at the place where the manifest names the model.
void look_at_networks(NetworkCheck& networks, const Manifest& manifest, const Item& item,
                      Problems& problems);

/// The plan of `options.directory`, made when there is none. One that is there is taken as it is,
/// whatever the manifest says by now (`extend` adds to it); one of another name is refused
/// (InputError), and so is a changed model.
RunConfig ensure_plan(const Manifest& manifest, const PlanOptions& options);

/// Throws InputError that says what changed when a run's models or this program's numerics are not
/// those that the run was planned with: its remaining clips would not be the same.
void refuse_changed_model(const RunConfig& config, const std::filesystem::path& digest_cache);

/// Digests of the model that a manifest asks for; `networks`: those that its items use.
WeightsDigests digest_model(const ModelRequest& model, const std::vector<std::string>& networks,
                            const std::filesystem::path& digest_cache);

}  // namespace gallop
