#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace gallop {

/// The bytes of a weight file: its own, or those that a `.zst` decompresses to.
class ByteSource {
public:
    virtual ~ByteSource() = default;
    ByteSource() = default;
    ByteSource(const ByteSource&) = delete;
    ByteSource& operator=(const ByteSource&) = delete;

    /// Fills `out` from `offset`. A compressed source is read best from front to back; stepping
    /// back starts over. Throws InputError when the bytes end before or do not decompress.
    virtual void read(std::uint64_t offset, std::span<std::byte> out) = 0;
    /// These bytes will be read soon, at least in part: storage may fetch them in one go.
    virtual void announce(std::uint64_t /*offset*/, std::uint64_t /*bytes*/) {}
    /// No more bytes than these can come: the file's size, or a bound from the densest frame there
    /// is.
    virtual std::uint64_t size_bound() const = 0;
    /// Whether `size_bound` is the size.
    virtual bool size_known() const = 0;
};

/// Opens a file; one whose name ends in ".zst" is decompressed. Throws InputError.
std::unique_ptr<ByteSource> open_source(const std::filesystem::path& path);

}  // namespace gallop
