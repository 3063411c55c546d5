#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "farm/history.hpp"

namespace gallop {

struct WebDatasetOptions {
    std::filesystem::path out;                  ///< folder of the shards
    std::uint64_t shard_bytes = 1'000'000'000;  ///< a shard ends before it would be larger
    bool latents = false;                       ///< KEY.h5, too
};

struct ExportCount {
    std::size_t clips = 0;
    std::size_t shards = 0;
    std::size_t kept = 0;  ///< shards that an earlier export had written already
};

/// Writes the finished clips as WebDataset shards `NAME-000000.tar`, …: KEY.mp4, KEY.json and, if
/// asked for, KEY.h5, where KEY is the item's id; then `index.json`, which lists the shards. Clips
/// come in the plan's order. Each shard is written under a temporary name and renamed; a shard that
/// is there already and stands for the same clips is kept, so an interrupted export goes on. The
/// same clips give the same bytes. Memory: one shard's list of clips. Throws InputError (a clip is
/// missing or not as long as the journal says), Error.
ExportCount export_webdataset(const RunHistory& history, const WebDatasetOptions& options);

/// Writes a table of the finished clips as CSV (RFC 4180, UTF-8, one header line), a column
/// `cell.AXIS` for each axis of the sweep. `out` "-": standard output. Returns the number of clips.
std::size_t export_csv(const RunHistory& history, const std::string& out);

/// A field of CSV, quoted where RFC 4180 asks for it.
std::string csv_field(std::string_view text);

}  // namespace gallop
