#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "farm/id_set.hpp"
#include "farm/plan_index.hpp"
#include "media/digest.hpp"

namespace gallop {

/// What all items with the same networks share, as it stands in the text that an id is made of.
struct LockConstants {
    std::string arch, middle, weights;
    /// `constants`: what item_constants() gives.
    explicit LockConstants(const nlohmann::json& constants);
};

/// The line of `items.lock.jsonl` for one item in one cell, made once and given a seed, a name and
/// an id for each sample. It is canonical JSON, written without building the JSON: a plan writes
/// millions of them.
class LockLine {
public:
    /// Inputs and the negative prompt are given by their digests. `cell`: canonical JSON, or "".
    LockLine(const Item& item, const std::string& image_digest, const std::string& audio_digest,
             const std::string& negative_digest, const LockConstants& constants,
             std::string_view cell, std::string_view bucket, double predicted, int gpus);

    /// The id of the sample with this seed.
    Id128 id(std::uint64_t seed, Sha256& sha) const;
    /// Adds its line, with the line's end.
    void write(std::uint64_t seed, const Id128& id, std::string_view name, std::string& out) const;

private:
    std::string before_seed_, after_seed_;            ///< of what the id stands for
    std::string item_before_seed_, item_after_seed_;  ///< without what all items share
    std::string head_;                                ///< up to the id
    std::string tail_;                                ///< behind the name
};

}  // namespace gallop
