#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "farm/history.hpp"

namespace gallop {

/// Something in a run directory that is not as it should be.
struct VerifyProblem {
    std::string id;
    std::string name;
    std::string file;  ///< relative to the run directory
    std::string what;  ///< what is wrong, with the value
};

/// Renders an item again into a folder laid out like a run directory (`clips/…`, `latents/…`).
using RenderAgain =
    std::function<void(const PlannedItem& planned, const std::filesystem::path& folder)>;

struct VerifyOptions {
    std::size_t sample =
        0;               ///< clips that are rendered again, spread evenly over the finished ones
    RenderAgain render;  ///< for `sample`
    std::filesystem::path scratch;  ///< folder for what is rendered again; emptied after each clip
    /// Takes each problem as it is found.
    std::function<void(const VerifyProblem&)> problem;
    /// Called before each clip with the number of clips done and of all.
    std::function<void(std::size_t done, std::size_t all)> progress;
};

struct VerifyCount {
    std::size_t clips = 0;  ///< verified
    std::size_t problems = 0;
    std::size_t rendered = 0;  ///< again
    /// Of the sample: rendered when memory was short, by other numbers of GPUs, or from rounded base
    /// latents, and so not the bytes that rendering it again gives.
    std::size_t not_comparable = 0;
    std::size_t strays = 0;   ///< files under clips/ and latents/ that belong to no finished clip
    std::uint64_t bytes = 0;  ///< read
    std::size_t damaged_lines = 0;  ///< of the journal
};

/// Verifies each finished clip of a run: its files are there, as long as the journal says, with the
/// journal's SHA-256; the clip decodes whole, picture and sound as long as planned, and carries the
/// item's id; the latents' seal holds and they carry the id, too. A sample is rendered again and
/// must have the same digests, unless the journal says that it was not rendered as planned (in strips,
/// by other numbers of GPUs). Reads only; changes nothing but `scratch`.
VerifyCount verify_run(const RunHistory& history, const VerifyOptions& options);

}  // namespace gallop
