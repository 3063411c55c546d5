#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "farm/manifest.hpp"
#include "farm/problems.hpp"
#include "farm/resolve.hpp"

namespace gallop {

/// One item in one cell of the sweep, everything settled but the sample.
struct Expansion {
    const ItemFields& fields;
    const ResolvedItem& resolved;
    const Cell& cell;
    const std::string& name;  ///< the cell's label included; samples get "-s0", …
    std::uint64_t base_seed;
    std::string_view seed_name;  ///< what seeds vary by besides the sample

    /// Name and seed of a sample.
    std::string sample_name(const SeedRequest& seeds, int sample) const;
    std::uint64_t sample_seed(const SeedRequest& seeds, int sample) const;
};

/// Visits every item in every cell, in the manifest's order, row by row: memory does not grow with
/// the number of rows, but for 16 bytes of each name, which must differ. Mistakes go to `problems`
/// and the item is passed over; remarks to `notes`.
void expand(const Manifest& manifest, Problems& problems, Problems& notes,
            const std::function<void(const Expansion&)>& visit);

/// What clips should not look and sound like, where a manifest does not say it.
std::string shipped_negative_prompt();

/// The seed of a sample: `base` itself, or drawn from it where the item's name or the number of the
/// sample is to make a difference (Philox4x32-10 keyed by base, counted by FNV-1a of the name and
/// the sample; 53 bits). `name` is empty where items share seeds.
std::uint64_t derive_seed(std::uint64_t base, std::string_view name, int sample);

}  // namespace gallop
