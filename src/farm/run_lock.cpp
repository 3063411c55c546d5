#include "farm/run_lock.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"

namespace gallop {
namespace {

using Descriptor = Handle<int, detail::close_descriptor, -1>;

std::string content(int descriptor) {
    char text[512] = {};
    const ::ssize_t got = ::pread(descriptor, text, sizeof text - 1, 0);
    std::string holder(text, got > 0 ? static_cast<std::size_t>(got) : 0);
    while (holder.ends_with('\n')) holder.pop_back();
    return holder;
}

[[noreturn]] void refuse(const std::filesystem::path& directory, const std::string& holder) {
    throw_input_error(
        "{}: another run holds this directory ({}); wait for it, or choose another --out",
        directory.string(), holder.empty() ? "processes of gallop run --attach" : holder);
}

void touch_heart(const std::filesystem::path& directory) {
    const std::filesystem::path heart = directory / "HEARTBEAT";
    const Descriptor opened(::open(heart.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    if (opened) ::futimens(opened.get(), nullptr);
}

/// Returns once the holder's heart has not beaten for `stale` seconds; refuses when it beats.
void wait_for_death(const std::filesystem::path& directory, const std::string& holder, int clock,
                    double stale) {
    const std::filesystem::path heart = directory / "HEARTBEAT";
    double before = age_of(heart, clock);
    if (before >= stale) return;
    log_warning(
        "the last run here ({}) did not sign off and its heart beat {:.0f} s ago; waiting to see "
        "whether it lives",
        holder, before);
    while (before < stale) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        const double now = age_of(heart, clock);
        if (now < before) refuse(directory, holder + ", on another machine; its heart beats");
        before = now;
    }
}

}  // namespace

std::string host_name() {
    char name[256] = {};
    return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

double age_of(const std::filesystem::path& file, int clock) {
    // Opening makes a network file system ask its server.
    const Descriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat theirs {};
    struct stat now {};
    if (!opened || ::fstat(opened.get(), &theirs) != 0 || ::futimens(clock, nullptr) != 0 ||
        ::fstat(clock, &now) != 0)
        return std::numeric_limits<double>::infinity();
    return static_cast<double>(now.st_mtim.tv_sec - theirs.st_mtim.tv_sec) +
           1e-9 * static_cast<double>(now.st_mtim.tv_nsec - theirs.st_mtim.tv_nsec);
}

RunLock::RunLock(const std::filesystem::path& directory, double stale) : directory_(directory) {
    std::error_code failed;
    std::filesystem::create_directories(directory, failed);
    if (failed && is_disk_errno(failed.value()))
        throw_file_error(directory, "cannot make the run directory", failed.value());
    if (failed)
        throw_input_error("{}: cannot make the run directory: {}", directory.string(),
                          failed.message());
    const std::filesystem::path path = directory / "LOCK";
    descriptor_.reset(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (!descriptor_ && is_disk_errno(errno)) throw_file_error(path, "cannot open", errno);
    if (!descriptor_) throw_input_error("{}: cannot open: {}", path.string(), std::strerror(errno));
    bool locked = true;
    if (::flock(descriptor_.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) refuse(directory, content(descriptor_.get()));
        locked = false;
        log_warning("{}: this file system has no locks ({}); heartbeats are trusted alone",
                    path.string(), std::strerror(errno));
    }
    // Our own kernel has just said that no process of this machine holds it.
    const std::string last = content(descriptor_.get());
    const bool of_this_machine = locked && last.starts_with("host " + host_name() + " ");
    if (!last.empty() && !of_this_machine)
        wait_for_death(directory, last, descriptor_.get(), stale);
    const std::string text = fmt::format("host {} process {}\n", host_name(), ::getpid());
    if (::ftruncate(descriptor_.get(), 0) != 0 ||
        ::pwrite(descriptor_.get(), text.data(), text.size(), 0) !=
            static_cast<::ssize_t>(text.size()))
        throw_file_error(path, "write failed", errno);
}

RunLock::~RunLock() {
    if (::ftruncate(descriptor_.get(), 0) != 0)
        log_warning("LOCK still names this process: {}", std::strerror(errno));
}

void RunLock::beat() const { touch_heart(directory_); }

RunShare::RunShare(const std::filesystem::path& directory) : directory_(directory) {
    const std::filesystem::path path = directory / "LOCK";
    descriptor_.reset(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (!descriptor_ && is_disk_errno(errno)) throw_file_error(path, "cannot open", errno);
    if (!descriptor_) throw_input_error("{}: cannot open: {}", path.string(), std::strerror(errno));
    if (::flock(descriptor_.get(), LOCK_SH | LOCK_NB) == 0) return;
    if (errno == EWOULDBLOCK) refuse(directory, content(descriptor_.get()));
    log_warning("{}: this file system has no locks ({}); no coordinator may work here",
                path.string(), std::strerror(errno));
}

void RunShare::beat() const { touch_heart(directory_); }

}  // namespace gallop
