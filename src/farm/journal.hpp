#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

/// A line of the journal: the JSON object with `"sum"`, the first 16 hex digits of the SHA-256 of
/// the line up to that key, as its last member. Ends in a newline.
std::string journal_line(const nlohmann::json& event);

/// What a journal says.
struct JournalContent {
    std::vector<nlohmann::json> events;  ///< in order
    std::size_t whole_bytes = 0;         ///< up to the end of the last complete line
    std::size_t damaged_lines = 0;  ///< complete lines whose sum is wrong; not among the events
    bool truncated = false;         ///< something follows the last complete line
};

/// Reads a journal's text. Never throws for what is in it.
JournalContent read_journal(std::string_view text);

/// The append-only truth of a run: each line is on disk before `append` returns.
class Journal {
public:
    /// Opens or makes the file; a truncated last line is cut off and said, damaged lines are said.
    /// Throws Error.
    explicit Journal(const std::filesystem::path& path);
    /// What was there when it was opened, and all that was appended.
    const std::vector<nlohmann::json>& events() const { return events_; }
    /// Writes one line and waits for the disk. Throws Error.
    void append(nlohmann::json event);

private:
    std::filesystem::path path_;
    Handle<int, detail::close_descriptor, -1> descriptor_;
    std::vector<nlohmann::json> events_;
};

}  // namespace gallop
