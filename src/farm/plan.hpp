#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "farm/manifest.hpp"
#include "farm/weights.hpp"

namespace gallop {

/// Goes up whenever the same item would come out with other pixels or samples.
inline constexpr int numerics_version = 1;

/// An item of a plan, and all the names under which the manifest asks for it.
struct PlannedItem {
    Item item;
    std::vector<std::string> names;
    nlohmann::json resolved;  ///< all that its id stands for
};

/// A manifest expanded and frozen.
struct Plan {
    Manifest manifest;
    WeightsDigests weights;
    std::string arch_digest;  ///< of the architecture file; "" when the model folder's own is used
    std::vector<PlannedItem> items;  ///< distinct, in the manifest's order
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

/// First 128 bits of the SHA-256 of the canonical JSON (RFC 8785), 32 hex digits.
std::string id_of(const nlohmann::json& resolved);

/// `items.lock.jsonl`: one resolved item a line.
std::string lock_text(const Plan& plan);

/// What of a plan must not change between the attempts of one run: models, numerics, encoding,
/// items.
nlohmann::json frozen_config(const Plan& plan);

}  // namespace gallop
