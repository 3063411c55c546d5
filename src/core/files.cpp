#include "core/files.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"

namespace gallop {
namespace detail {

void close_descriptor(int descriptor) { ::close(descriptor); }

}  // namespace detail

bool is_disk_errno(int code) {
    constexpr std::array codes = {ENOSPC, EDQUOT,   EIO,       EROFS,
                                  ESTALE, ENOTCONN, ESHUTDOWN, ETIMEDOUT};
    return std::find(codes.begin(), codes.end(), code) != codes.end();
}

bool is_access_errno(int code) {
    return code == EACCES || code == EPERM || code == ENOENT || code == ENOTDIR || code == EISDIR ||
           code == ELOOP || code == ENAMETOOLONG;
}

void throw_file_error(const std::filesystem::path& path, std::string_view what, int code) {
    const std::string text = fmt::format("{}: {}: {}", path.string(), what, std::strerror(code));
    if (is_disk_errno(code)) throw DiskError(text);
    if (is_access_errno(code)) throw AccessError(text);
    throw Error(text);
}

void write_all(int descriptor, std::string_view bytes, const std::filesystem::path& path) {
    while (!bytes.empty()) {
        const ::ssize_t put = ::write(descriptor, bytes.data(), bytes.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) throw_file_error(path, "write failed", errno);
        bytes.remove_prefix(static_cast<std::size_t>(put));
    }
}

namespace {

using Descriptor = Handle<int, detail::close_descriptor, -1>;

void sync(const std::filesystem::path& path, int flags) {
    const Descriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC));
    if (!descriptor) throw_file_error(path, "cannot open", errno);
    if (::fsync(descriptor.get()) != 0) throw_file_error(path, "fsync failed", errno);
}

}  // namespace

void sync_folder(const std::filesystem::path& folder) {
    sync(folder.empty() ? std::filesystem::path(".") : folder, O_RDONLY | O_DIRECTORY);
}

InputFile::InputFile(const std::filesystem::path& path)
    : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (!descriptor_ && (is_access_errno(errno) || errno == ENXIO))
        throw_input_error("{}: cannot open: {}", path.string(), std::strerror(errno));
    if (!descriptor_) throw_file_error(path, "cannot open", errno);
    struct stat info {};
    if (::fstat(descriptor_.get(), &info) != 0) throw_file_error(path, "cannot be examined", errno);
    if (!S_ISREG(info.st_mode))
        throw_input_error("{}: {} (must be a file)", path.string(),
                          S_ISDIR(info.st_mode) ? "a folder" : "neither a file nor a folder");
    size_ = static_cast<std::uint64_t>(info.st_size);
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
    std::size_t done = 0;
    while (done < out.size()) {
        const ::ssize_t got = ::pread(descriptor_.get(), out.data() + done, out.size() - done,
                                      static_cast<::off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw_file_error(path_, "read failed", errno);
        if (got == 0)
            throw Error(fmt::format("{}: ends at byte {} (bytes {} to {} wanted)", path_.string(),
                                    offset + done, offset, offset + out.size()));
        done += static_cast<std::size_t>(got);
    }
}

void InputFile::announce(std::uint64_t offset, std::uint64_t bytes) const {
    // Linux cuts each request to the readahead of the file's device, 128 KiB where nobody set it.
    constexpr std::uint64_t step = 128U << 10;
    for (std::uint64_t done = 0; done < bytes; done += step)
        static_cast<void>(::posix_fadvise(descriptor_.get(), static_cast<::off_t>(offset + done),
                                          static_cast<::off_t>(std::min(step, bytes - done)),
                                          POSIX_FADV_WILLNEED));
}

std::string read_text(const std::filesystem::path& path, std::uint64_t limit) {
    const InputFile file(path);
    if (file.size() > limit)
        throw_input_error("{}: {} bytes (at most {})", path.string(), file.size(), limit);
    std::string text(static_cast<std::size_t>(file.size()), '\0');
    file.read(0, std::as_writable_bytes(std::span(text)));
    return text;
}

AtomicFile::AtomicFile(const std::filesystem::path& final_path) : final_(final_path) {
    static std::atomic<unsigned> counter{0};
    const std::filesystem::path folder =
        final_.has_parent_path() ? final_.parent_path() : std::filesystem::path(".");
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    if (failed) throw_file_error(folder, "cannot make folder", failed.value());
    for (;;) {
        temporary_ = folder / fmt::format(".{}.{}.{}.tmp", final_.filename().string(), ::getpid(),
                                          counter.fetch_add(1));
        const Descriptor made(
            ::open(temporary_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
        if (made) return;
        if (errno != EEXIST) throw_file_error(temporary_, "cannot create", errno);
    }
}

AtomicFile::~AtomicFile() {
    if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::commit() {
    sync(temporary_, O_RDONLY);
    if (::rename(temporary_.c_str(), final_.c_str()) != 0)
        throw_file_error(temporary_, "cannot rename to " + final_.string(), errno);
    committed_ = true;
    sync_folder(final_.parent_path());
}

void write_atomically(const std::filesystem::path& path, std::string_view content) {
    AtomicFile file(path);
    const Descriptor out(::open(file.path().c_str(), O_WRONLY | O_CLOEXEC));
    if (!out) throw_file_error(file.path(), "cannot open", errno);
    write_all(out.get(), content, file.path());
    file.commit();
}

}  // namespace gallop
