#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "farm/history.hpp"

namespace gallop {

/// A finished clip of a run: what was planned and what came of it.
struct ClipRecord {
    std::size_t item;  ///< of the plan
    PlannedItem planned;
    std::vector<std::string> names;  ///< all, the plan's first
    nlohmann::json done;             ///< the journal's event
};

/// Hands on each finished clip in the plan's order, one at a time. Throws Error when a journal line
/// or the plan has changed meanwhile.
void for_each_clip(const RunHistory& history, const std::function<void(const ClipRecord&)>& sink);

/// What a clip is, whoever rendered it: id, names, prompt, seed, sizes, lengths, cell, digests.
nlohmann::json describe_clip(const ClipRecord& clip);

/// Rebuilds `index.jsonl` from the journal: a row of canonical JSON for each finished clip, in the
/// plan's order: `describe_clip` and host, device, seconds a stage, failed tries, time. Returns the
/// number of rows. Throws Error.
std::size_t write_index(const RunHistory& history);

/// A text file written in pieces through AtomicFile.
class TextFile {
public:
    explicit TextFile(const std::filesystem::path& path);
    /// Throws Error when the disk refuses it.
    void write(std::string_view text);
    void commit();

private:
    void flush();

    AtomicFile file_;
    Handle<int, detail::close_descriptor, -1> descriptor_;
    std::string buffer_;
};

}  // namespace gallop
