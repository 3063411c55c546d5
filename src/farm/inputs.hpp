#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "farm/id_set.hpp"
#include "farm/problems.hpp"
#include "farm/resolve.hpp"

namespace gallop {

/// Digests of pictures and sounds, each file read once: known by path, device, inode, size and time
/// of change. 80 bytes a file in memory.
class InputDigests {
public:
    /// `cache`: a file of what earlier plans found, appended to; empty for none. A cache that cannot
    /// be read or written costs time only.
    explicit InputDigests(const std::filesystem::path& cache);
    /// SHA-256, 64 hex digits; "" for no path. Throws InputError.
    std::string digest(const std::string& path);

private:
    struct Hash {
        std::size_t operator()(const Id128& id) const;
    };
    std::unordered_map<Id128, std::array<std::uint8_t, 32>, Hash> known_;
    std::ofstream added_;
    std::string last_path_;
    std::string last_digest_;
};

/// Lengths of driving sounds, each decoded once.
class SoundLengths {
public:
    /// Gives an item with driving sound its pictures, latents and samples. Adds to `problems` and
    /// returns false when the sound cannot be decoded or is too short; a sound that goes on where
    /// nobody said that the clip ends is worth a note.
    bool measure(ResolvedItem& resolved, const std::string& name, Problems& problems,
                 Problems& notes);

private:
    Index samples_of(const std::string& path, Index most);

    std::unordered_map<std::uint64_t, Index> samples_;  ///< by path and the most samples wanted
    std::unordered_set<std::string> unreadable_;
};

}  // namespace gallop
