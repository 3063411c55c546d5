#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "core/handle.hpp"

namespace gallop {

namespace detail {
void close_descriptor(int descriptor);
}  // namespace detail

/// A file open for reading at any offset.
class InputFile {
public:
    /// Throws InputError when it cannot be opened or is not a regular file.
    explicit InputFile(const std::filesystem::path& path);
    const std::filesystem::path& path() const { return path_; }
    std::uint64_t size() const { return size_; }
    /// Fills `out` from `offset`. Throws Error on an I/O error or a read past the end.
    void read(std::uint64_t offset, std::span<std::byte> out) const;
    /// These bytes will be read soon, at least in part: asks the system to fetch them in the background.
    void announce(std::uint64_t offset, std::uint64_t bytes) const;

private:
    std::filesystem::path path_;
    Handle<int, detail::close_descriptor, -1> descriptor_;
    std::uint64_t size_ = 0;
};

/// The whole of a file of at most `limit` bytes. Throws InputError.
std::string read_text(const std::filesystem::path& path, std::uint64_t limit = 64U << 20);

/// A file written under a temporary name in its own folder; `commit` gives it its name. Without
/// `commit` the destructor removes it, so a reader sees nothing or the whole file.
class AtomicFile {
public:
    /// Makes the folder when missing and picks a free temporary name `.NAME.PID.N.tmp` (the suffix of
    /// NAME kept before `.tmp` matters to nobody: libraries that look at suffixes get the format told).
    explicit AtomicFile(const std::filesystem::path& final_path);
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile();

    /// Where to write. The file exists already, empty.
    const std::filesystem::path& path() const { return temporary_; }
    /// fsync, rename to the final name, fsync of the folder. Throws Error.
    void commit();

private:
    std::filesystem::path final_;
    std::filesystem::path temporary_;
    bool committed_ = false;
};

/// Writes a whole small file through AtomicFile. Throws Error.
void write_atomically(const std::filesystem::path& path, std::string_view content);

}  // namespace gallop
