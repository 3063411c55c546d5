#include "farm/run_lock.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
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

/// Of the file as its server has it.
std::string content(const std::filesystem::path& path) {
    const Descriptor opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return opened ? content(opened.get()) : std::string();
}

bool of_this_machine(const std::string& holder) {
    return holder.starts_with("host " + host_name() + " ");
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

/// Returns once the holder's heart has not beaten for `stale` seconds, or it has signed off; refuses
/// when it beats.
void wait_for_death(const std::filesystem::path& directory, const std::string& holder, int clock,
                    double stale, const std::function<bool()>& signed_off) {
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
        if (signed_off()) return;
        if (now < before) refuse(directory, holder + ", on another machine; its heart beats");
        before = now;
    }
}

/// Whoever `LOCK` names is gone afterwards, or this throws. `locked`: our own kernel has just said that
/// no process of this machine holds it.
void wait_for_holder(const std::filesystem::path& directory, int descriptor, bool locked,
                     double stale) {
    const std::string last = content(descriptor);
    if (last.empty() || (locked && of_this_machine(last))) return;
    wait_for_death(directory, last, descriptor, stale,
                   [&] { return content(directory / "LOCK").empty(); });
}

/// The same for attached processes, which `LOCK` does not name. The signs of those that are gone go,
/// too.
void wait_for_attached(const std::filesystem::path& directory, int clock, bool locked,
                       double stale) {
    std::error_code failed;
    for (std::filesystem::directory_iterator entry(directory / "leases", failed), end;
         !failed && entry != end; entry.increment(failed)) {
        const std::string name = entry->path().filename().string();
        if (!name.starts_with("clock-")) continue;
        const std::size_t process = name.rfind('-', name.rfind('-') - 1);  // clock-HOST-PROCESS-N
        const std::string host = name.substr(6, process - 6);
        if (locked && host == host_name()) continue;
        wait_for_death(directory, "gallop run --attach on " + host, clock, stale,
                       [&] { return !std::filesystem::exists(entry->path()); });
        ::unlink(entry->path().c_str());
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
    wait_for_holder(directory, descriptor_.get(), locked, stale);
    const std::string text = fmt::format("host {} process {}\n", host_name(), ::getpid());
    if (::ftruncate(descriptor_.get(), 0) != 0 ||
        ::pwrite(descriptor_.get(), text.data(), text.size(), 0) !=
            static_cast<::ssize_t>(text.size()))
        throw_file_error(path, "write failed", errno);
    try {  // after the file names us, so that who attaches now sees it
        wait_for_attached(directory, descriptor_.get(), locked, stale);
    } catch (...) {
        sign_off();
        throw;
    }
}

RunLock::~RunLock() { sign_off(); }

void RunLock::sign_off() const {
    if (::ftruncate(descriptor_.get(), 0) != 0)
        log_warning("LOCK still names this process: {}", std::strerror(errno));
}

void RunLock::beat() const { touch_heart(directory_); }

RunShare::RunShare(const std::filesystem::path& directory, double stale) : directory_(directory) {
    const std::filesystem::path path = directory / "LOCK";
    descriptor_.reset(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (!descriptor_ && is_disk_errno(errno)) throw_file_error(path, "cannot open", errno);
    if (!descriptor_) throw_input_error("{}: cannot open: {}", path.string(), std::strerror(errno));
    const bool locked = ::flock(descriptor_.get(), LOCK_SH | LOCK_NB) == 0;
    if (!locked && errno == EWOULDBLOCK) refuse(directory, content(descriptor_.get()));
    if (!locked)
        log_warning("{}: this file system has no locks ({}); heartbeats are trusted alone",
                    path.string(), std::strerror(errno));
    wait_for_holder(directory, descriptor_.get(), locked, stale);
    // From now on the heart beats for us: who comes next shall not take it for the holder's.
    if (::ftruncate(descriptor_.get(), 0) != 0) throw_file_error(path, "write failed", errno);
}

void RunShare::confirm() const {
    if (const std::string holder = content(directory_ / "LOCK"); !holder.empty())
        refuse(directory_, holder);
}

void RunShare::beat() const { touch_heart(directory_); }

}  // namespace gallop
