#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

/// The header of a regular file in a tar archive: ustar, one block of 512 bytes, with owner 0, mode
/// 0644 and time 0, so that the same members give the same bytes. A name beyond ustar's 100 bytes
/// or a size beyond its 8 GiB gets a pax header in front. Source: POSIX.1-2017, pax.
std::string tar_header(std::string_view name, std::uint64_t size);

/// Bytes that a member takes in an archive, header and padding included.
std::uint64_t tar_member_bytes(std::string_view name, std::uint64_t size);

/// Writes a tar archive through AtomicFile: after `finish` it is there and whole, before that there
/// is nothing.
class TarWriter {
public:
    /// `comment` goes into a global pax header in front: what the archive stands for. Throws Error.
    TarWriter(const std::filesystem::path& path, std::string_view comment);
    void add(std::string_view name, std::string_view content);
    /// Throws InputError when the file cannot be opened, Error when it can't be read or written.
    void add_file(std::string_view name, const std::filesystem::path& file);
    /// Ends the archive and gives it its name. Returns its bytes.
    std::uint64_t finish();

private:
    void write(std::string_view bytes);
    void pad(std::uint64_t size);

    AtomicFile file_;
    Handle<int, detail::close_descriptor, -1> descriptor_;
    std::uint64_t written_ = 0;
};

/// The comment of an archive that TarWriter made; nothing for any other file, or none.
std::optional<std::string> tar_comment(const std::filesystem::path& path);

}  // namespace gallop
