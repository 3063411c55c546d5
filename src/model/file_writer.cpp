#include "model/file_writer.hpp"

#include <cerrno>

#include "core/file_errors.hpp"

namespace gallop {

FileWriter::FileWriter(const std::filesystem::path& path)
    : file_(path), stream_(std::fopen(file_.path().c_str(), "wb")) {
    if (!stream_) fail("cannot open");
}

void FileWriter::write(std::span<const std::byte> bytes) {
    if (!bytes.empty() && std::fwrite(bytes.data(), 1, bytes.size(), stream_.get()) != bytes.size())
        fail("write failed");
    position_ += bytes.size();
}

void FileWriter::commit() {
    if (std::fclose(stream_.release()) != 0) fail("write failed");
    file_.commit();
}

void FileWriter::fail(const char* what) const { throw_file_error(file_.path(), what, errno); }

}  // namespace gallop
