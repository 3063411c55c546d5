#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "farm/run_config.hpp"
#include "pipeline/item.hpp"

namespace gallop {

/// Where an item stands in `items.lock.jsonl`, and what scheduling needs to know of it.
struct PlanRow {
    std::array<std::uint8_t, 16> id;
    std::uint64_t offset;  ///< of its line, in bytes
    std::uint32_t bytes;   ///< of its line, without the line's end
    std::uint16_t bucket;  ///< index into the plan's buckets
    std::uint8_t gpus;     ///< that share the item
    float seconds;         ///< predicted, all stages
};

/// All items of a frozen plan, in the plan's order.
struct PlanIndex {
    std::vector<PlanRow> rows;
    std::vector<std::string> buckets;  ///< names; in the order of run.json's table
};

/// A distinct item of a plan.
struct PlannedItem {
    Item item;  ///< with its first name
    std::string bucket;
    double predicted = 0;     ///< seconds, all stages
    int gpus = 1;             ///< that share it
    nlohmann::json cell;      ///< axis → value; null without a sweep
    nlohmann::json resolved;  ///< all that its id stands for: its digest is the id
};

/// Reads a run directory's `run.json`. Throws InputError when it is missing, damaged or of another
/// version of the format.
RunConfig read_run_config(const std::filesystem::path& run);

/// Streams a run directory's `items.lock.jsonl`, as long as `run.json` says it is. Throws
/// InputError when it is missing, shorter, or not byte for byte what was planned.
PlanIndex read_plan_index(const std::filesystem::path& run);
PlanIndex read_plan_index(const std::filesystem::path& run, const RunConfig& config);

/// One item of the lock, everything that rendering it needs; `config` gives what all items share.
/// Throws InputError when there is no such line, or when the line and its id do not agree.
PlannedItem read_planned_item(const std::filesystem::path& run, const RunConfig& config,
                              std::uint64_t offset, std::uint32_t bytes);

/// What a person calls that item. Nothing else of the line is looked at.
std::string read_planned_name(const std::filesystem::path& run, const RunConfig& config,
                              std::uint64_t offset, std::uint32_t bytes);

/// The same as `read_planned_item` of a line that has been read. `place` names it in messages.
PlannedItem parse_lock_line(std::string_view line, const RunConfig& config,
                            const std::string& place);

/// The first 128 bits of an id's 32 hex digits, and back. Throws InputError when it is none.
std::array<std::uint8_t, 16> id_bytes(std::string_view id);
std::string id_text(const std::array<std::uint8_t, 16>& id);

/// What all items of a run share that use these networks; part of what an id stands for.
/// `sr`: "" for none.
nlohmann::json item_constants(const RunConfig& config, const std::string& variant,
                              const std::string& sr);

/// "fp32", "bf16" or "fp8".
const char* name_of(Precision precision);
/// The same and, for fp8, what of the model it is about: part of what an id stands for.
std::string precision_text(const ModelRequest& model);

/// First 128 bits of the SHA-256 of the canonical JSON (RFC 8785), 32 hex digits.
std::string id_of(const nlohmann::json& resolved);

}  // namespace gallop
