#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
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

/// The append-only truth of a run. Lines are written by a thread of its own, as many at a time as
/// have come within some milliseconds or while the disk was busy, with one fsync for all of them; so
/// a slow disk delays no one who does not ask to wait.
class Journal {
public:
    /// Opens or makes the file; a truncated last line is cut off and said. Throws DiskError, Error.
    explicit Journal(const std::filesystem::path& path);
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;
    /// Writes what is left, if it can.
    ~Journal();

    /// Adds one line.
    void append(const nlohmann::json& event);
    /// Waits until every line is on disk. Throws DiskError, Error when one cannot be written; what
    /// was written of it is cut off again.
    void flush();
    /// Why lines cannot be written any more; empty while they can.
    std::string trouble() const;

private:
    void write_lines();

    std::filesystem::path path_;
    Handle<int, detail::close_descriptor, -1> descriptor_;
    std::uint64_t bytes_ = 0;   ///< on disk for certain
    mutable std::mutex mutex_;  ///< guards what follows up to the thread
    std::condition_variable changed_, hurry_;
    std::string waiting_;
    int hurried_ = 0;  ///< callers of flush
    bool writing_ = false;
    bool closing_ = false;
    std::exception_ptr failure_;
    std::thread writer_;  ///< last: it uses all of the above
};

}  // namespace gallop
