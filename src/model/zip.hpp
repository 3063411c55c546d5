#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/byte_source.hpp"

namespace gallop {

/// A member of a zip archive, stored as it is.
struct ZipEntry {
    std::string name;
    std::uint64_t offset = 0;  ///< of its first byte in the archive
    std::uint64_t bytes = 0;
};

/// The members of a zip (or zip64) archive whose members are all stored without compression, sorted by
/// name. Throws InputError that starts with `file` for anything else: compressed or encrypted members,
/// two of one name, members that overlap or leave the file.
/// Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3.
std::vector<ZipEntry> read_zip_directory(ByteSource& source, const std::string& file);

}  // namespace gallop
