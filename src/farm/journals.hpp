#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

namespace gallop {

/// Follows all journals of a run directory: `journal.jsonl`, which a coordinator writes, and
/// `journal-HOST-PID.jsonl`, one for each process that takes items by itself. What is read once is
/// not read again.
class JournalFollower {
public:
    using Sink = std::function<void(const nlohmann::json& event)>;

    explicit JournalFollower(std::filesystem::path run) : run_(std::move(run)) {}

    /// Hands over every whole line that has come since the last call, file by file, each file's in
    /// order; damaged lines are said once and left out, a last line without an end is left for the
    /// next call. Returns how many there were. Throws Error.
    std::size_t read_new(const Sink& sink);

    std::size_t damaged_lines() const { return damaged_; }

private:
    std::size_t read_file(const std::filesystem::path& path, std::uint64_t& from, const Sink& sink);

    std::filesystem::path run_;
    std::map<std::string, std::uint64_t> read_;  ///< file name → bytes taken in
    std::size_t damaged_ = 0;
};

/// The journal of this process in a run without a coordinator, which must not be there yet:
/// `journal-HOST-PID.jsonl`, or with a number behind PID where that is another's.
std::filesystem::path own_journal_path(const std::filesystem::path& run);

}  // namespace gallop
