#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "model/byte_source.hpp"
#include "model/file_writer.hpp"

namespace gallop {

/// A member of a zip archive, stored as it is.
struct ZipEntry {
    std::string name;
    std::uint64_t offset = 0;  ///< of its first byte in the archive
    std::uint64_t bytes = 0;
};

/// The members of a zip (or zip64) archive whose members are all stored without compression, sorted
/// by name. Throws InputError that starts with `file` for anything else: compressed or encrypted
/// members, two of one name, members that overlap or leave the file. Source: PKWARE APPNOTE 6.3.10,
/// sections 4.3 and 4.5.3.
std::vector<ZipEntry> read_zip_directory(ByteSource& source, const std::string& file);

/// Writes a zip64 archive of stored members, each beginning at a multiple of 64 bytes as torch
/// wants it.
class ZipWriter {
public:
    /// Throws Error.
    explicit ZipWriter(const std::filesystem::path& path) : file_(path) {}
    void add(const std::string& name, std::span<const std::byte> content);
    /// Writes the directory and gives the file its name. Throws Error.
    void commit();

private:
    struct Member {
        std::string name;
        std::uint64_t header;  // offset of its local header
        std::uint64_t bytes;
        std::uint32_t crc;
    };
    FileWriter file_;
    std::vector<Member> members_;
};

}  // namespace gallop
