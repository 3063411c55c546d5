#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "farm/manifest.hpp"
#include "farm/plan_index.hpp"
#include "farm/weights.hpp"

namespace gallop {

/// A further name of an item.
struct DuplicateName {
    std::string id;
    std::string name;
};

/// A manifest expanded and frozen.
struct Plan {
    Manifest manifest;
    WeightsDigests weights;
    std::string arch_digest;  ///< of the architecture file; "" when the model folder's own is used
    std::vector<PlannedItem> items;  ///< distinct, in the manifest's order
    std::vector<DuplicateName> duplicates;
    std::map<std::string, std::string> texts;  ///< long texts that items share, by SHA-256
};

/// Takes the lengths of driving sounds, in place. Throws InputError that lists each sound which
/// cannot be decoded or is too short.
void measure_sounds(Manifest& manifest);

/// Hashes inputs and weights, gives ids, merges duplicates. `cache`: see digest_weights. Throws
/// InputError.
Plan make_plan(Manifest manifest, const std::filesystem::path& cache);

/// What an item's id stands for: every value that changes a pixel or a sample, inputs by their
/// digests.
nlohmann::json describe(const Item& item, const Plan& plan, const std::string& image_digest,
                        const std::string& audio_digest);

/// `items.lock.jsonl`: one resolved item a line.
std::string lock_text(const Plan& plan);

/// The run that a plan makes, its lock included.
RunConfig run_config_of(const Plan& plan);

/// What of a plan must not change between the attempts of one run: models, numerics, encoding,
/// items.
nlohmann::json frozen_config(const Plan& plan);

}  // namespace gallop
