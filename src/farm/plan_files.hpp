#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/files.hpp"
#include "core/handle.hpp"
#include "farm/id_set.hpp"
#include "farm/plan_index.hpp"
#include "media/digest.hpp"

namespace gallop {

/// The files of a plan while it is made: written as they come, under temporary names, until
/// `commit` gives them their own, run.json last. Without `commit` nothing is left.
class PlanFiles {
public:
    /// Takes a new or empty directory, or, with `earlier`, that of the plan which is extended: its
    /// lines come first, and further names are collected anew. Throws InputError for a directory that
    /// holds something else, DiskError when the disk refuses.
    PlanFiles(const std::filesystem::path& directory, const std::optional<RunConfig>& earlier);

    /// Adds a line to the lock; `write` appends it. The place of the first of its bucket goes to
    /// `first`, when that is empty.
    void add_item(const std::function<void(std::string&)>& write, const Id128& id, PlanRow& first);
    void add_duplicate(const Id128& id, std::string_view name);

    /// Completes `config` by the lock's size and digest, and puts all three files in place.
    void commit(RunConfig& config);

private:
    /// A file that grows, buffered and hashed.
    struct Growing {
        AtomicFile file;
        Handle<int, detail::close_descriptor, -1> descriptor;
        Sha256 sha;
        std::string buffer;
        std::uint64_t bytes = 0;

        explicit Growing(const std::filesystem::path& path);
        void flush(std::size_t beyond);
        void copy(const std::filesystem::path& from, std::uint64_t bytes);
    };

    std::filesystem::path directory_;
    Growing lock_;
    Growing duplicates_;
};

/// Throws InputError when an extension asks for other models or for clips that are written
/// otherwise than those of the run.
void refuse_other_request(const RunConfig& earlier, const RunRequest& now);

}  // namespace gallop
