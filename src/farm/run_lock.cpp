#include "farm/run_lock.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/check.hpp"

namespace gallop {

std::string host_name() {
    char name[256] = {};
    return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

RunLock::RunLock(const std::filesystem::path& directory) {
    std::error_code failed;
    std::filesystem::create_directories(directory, failed);
    if (failed)
        throw_input_error("{}: cannot make the run directory: {}", directory.string(),
                          failed.message());
    const std::filesystem::path path = directory / "LOCK";
    descriptor_.reset(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (!descriptor_) throw_input_error("{}: cannot open: {}", path.string(), std::strerror(errno));
    if (::flock(descriptor_.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            throw Error(fmt::format("{}: cannot lock: {}", path.string(), std::strerror(errno)));
        char holder[512] = {};
        const ::ssize_t got = ::pread(descriptor_.get(), holder, sizeof holder - 1, 0);
        std::string text(holder, got > 0 ? static_cast<std::size_t>(got) : 0);
        while (text.ends_with('\n')) text.pop_back();
        throw_input_error(
            "{}: another run holds this directory ({}); wait for it, or choose another --out",
            directory.string(), text.empty() ? "unknown" : text);
    }
    const std::string text = fmt::format("host {} process {}\n", host_name(), ::getpid());
    if (::ftruncate(descriptor_.get(), 0) != 0 ||
        ::pwrite(descriptor_.get(), text.data(), text.size(), 0) !=
            static_cast<::ssize_t>(text.size()))
        throw Error(fmt::format("{}: write failed: {}", path.string(), std::strerror(errno)));
}

}  // namespace gallop
