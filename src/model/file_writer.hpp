#pragma once

#include <cstdint>
#include <cstdio>
#include <span>

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

/// A buffered AtomicFile, written from front to back. All of it throws DiskError, Error.
class FileWriter {
public:
    explicit FileWriter(const std::filesystem::path& path);

    void write(std::span<const std::byte> bytes);
    /// Bytes written so far.
    std::uint64_t position() const { return position_; }
    /// Gives the file its name.
    void commit();

private:
    [[noreturn]] void fail(const char* what) const;
    static void close(std::FILE* handle) { std::fclose(handle); }

    AtomicFile file_;
    Handle<std::FILE*, close, nullptr> stream_;
    std::uint64_t position_ = 0;
};

}  // namespace gallop
