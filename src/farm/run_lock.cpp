#include "farm/run_lock.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Descriptor = Handle<int, detail::close_descriptor, -1>;

constexpr std::string_view claim_prefix = "LOCK.";
constexpr std::string_view signed_off = "signed off";

/// The first line of a file as its server has it; empty when there is none.
std::string first_line(const fs::path& path) {
    const Descriptor opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char text[512] = {};
    const ::ssize_t got = opened ? ::pread(opened.get(), text, sizeof text - 1, 0) : 0;
    const std::string read(text, got > 0 ? static_cast<std::size_t>(got) : 0);
    return read.substr(0, read.find('\n'));
}

fs::path claim_file(const fs::path& directory, std::uint64_t number) {
    return directory / fmt::format("{}{}", claim_prefix, number);
}

/// The numbers of the claims that are there.
std::vector<std::uint64_t> claims(const fs::path& directory) {
    std::vector<std::uint64_t> numbers;
    std::error_code failed;
    for (fs::directory_iterator entry(directory, failed), end; !failed && entry != end;
         entry.increment(failed)) {
        const std::string name = entry->path().filename().string();
        if (!name.starts_with(claim_prefix)) continue;
        const char* const last = name.data() + name.size();
        std::uint64_t number = 0;
        const auto read = std::from_chars(name.data() + claim_prefix.size(), last, number);
        if (read.ec == std::errc() && read.ptr == last) numbers.push_back(number);
    }
    if (failed) throw_file_error(directory, "cannot be listed", failed.value());
    return numbers;
}

/// Numbers only grow: who takes the directory removes the claims before its own. 0: none yet.
std::uint64_t last_claim(const fs::path& directory) {
    const std::vector<std::uint64_t> numbers = claims(directory);
    return numbers.empty() ? 0 : *std::max_element(numbers.begin(), numbers.end());
}

bool of_this_machine(const std::string& holder) {
    return holder.starts_with("host " + host_name() + " ");
}

[[noreturn]] void refuse(const fs::path& directory, const std::string& holder) {
    throw_input_error(
        "{}: another run holds this directory ({}); wait for it, or choose another --out",
        directory.string(), holder.empty() ? "processes of gallop run --attach" : holder);
}

void touch_heart(const fs::path& directory) {
    const fs::path heart = directory / "HEARTBEAT";
    const Descriptor opened(::open(heart.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    if (opened) ::futimens(opened.get(), nullptr);
}

/// When a file was last written, in nanoseconds of its server's clock; 0 when there is none. Its age alone doesn't
/// tell a heart that beats in step with who looks.
std::int64_t last_touch(const fs::path& file) {
    const Descriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts {};
    if (!opened || ::fstat(opened.get(), &facts) != 0) return 0;
    return facts.st_mtim.tv_sec * std::int64_t{1'000'000'000} + facts.st_mtim.tv_nsec;
}

/// Returns once `heart` has not been touched for `stale` seconds, or `over` says that its owner has
/// left; refuses when it beats.
void wait_for_death(const fs::path& directory, const std::function<std::string()>& owner,
                    const fs::path& heart, int clock, double stale,
                    const std::function<bool()>& over) {
    double age = age_of(heart, clock);
    if (age >= stale) return;
    log_warning(
        "the last run here ({}) did not sign off and its heart beat {:.0f} s ago; waiting to see "
        "whether it lives",
        owner(), age);
    const std::int64_t first = last_touch(heart);
    while (age < stale) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        age = age_of(heart, clock);
        if (over()) return;
        if (age < stale && last_touch(heart) != first)
            refuse(directory, owner() + ", on another machine; its heart beats");
    }
}

/// Whoever made a claim is gone afterwards, or this throws. `locked`: our own kernel has just said that
/// no process of this machine holds the directory.
void wait_for_claimant(const fs::path& directory, std::uint64_t number, int clock, bool locked,
                       double stale) {
    if (number == 0) return;
    const fs::path claim = claim_file(directory, number);
    const auto holder = [&] { return first_line(claim); };  // empty: not written yet
    if (holder() == signed_off || (locked && of_this_machine(holder()))) return;
    wait_for_death(directory, holder, claim, clock, stale, [&] { return holder() == signed_off; });
}

struct OpenLock {
    Descriptor file;
    bool locked;  ///< false: this file system has no locks
};

/// Opens and locks `LOCK`, for this process alone or beside others. Refuses when another process of
/// this machine holds it.
OpenLock open_lock(const fs::path& directory, bool shared) {
    const fs::path path = directory / "LOCK";
    Descriptor file(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (!file && is_disk_errno(errno)) throw_file_error(path, "cannot open", errno);
    if (!file) throw_input_error("{}: cannot open: {}", path.string(), std::strerror(errno));
    if (::flock(file.get(), (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
        return {std::move(file), true};
    if (errno == EWOULDBLOCK) {
        const bool attached = ::flock(file.get(), LOCK_SH | LOCK_NB) == 0;
        refuse(directory, attached ? std::string() : lock_holder(directory));
    }
    log_warning("{}: this file system has no locks ({}); heartbeats are trusted alone",
                path.string(), std::strerror(errno));
    return {std::move(file), false};
}

}  // namespace

std::string host_name() {
    char name[256] = {};
    return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

double age_of(const fs::path& file, int clock) {
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

std::string lock_holder(const fs::path& directory) {
    const std::uint64_t number = last_claim(directory);
    std::string holder = number == 0 ? std::string() : first_line(claim_file(directory, number));
    return holder == signed_off ? std::string() : holder;
}

bool is_lock_file(std::string_view name) {
    return name == "LOCK" || name.starts_with(claim_prefix);
}

RunLock::RunLock(const fs::path& directory, double stale) : directory_(directory) {
    std::error_code failed;
    fs::create_directories(directory, failed);
    if (failed && is_disk_errno(failed.value()))
        throw_file_error(directory, "cannot make the run directory", failed.value());
    if (failed)
        throw_input_error("{}: cannot make the run directory: {}", directory.string(),
                          failed.message());
    OpenLock opened = open_lock(directory, false);
    lock_ = std::move(opened.file);
    claim(opened.locked, stale);
    try {  // after the claim, so that who attaches now sees it
        wait_for_attached(opened.locked, stale);
    } catch (...) {
        sign_off();
        throw;
    }
}

RunLock::~RunLock() { sign_off(); }

void RunLock::claim(bool locked, double stale) {
    std::uint64_t last = last_claim(directory_);
    // A number that is taken is judged in turn, even where a cached listing does not show it.
    for (;; last = std::max(last + 1, last_claim(directory_))) {
        wait_for_claimant(directory_, last, lock_.get(), locked, stale);
        const fs::path path = claim_file(directory_, last + 1);
        claim_.reset(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644));
        if (!claim_ && errno == EEXIST) continue;
        if (!claim_) throw_file_error(path, "cannot create", errno);
        // Of a slow process: others took the directory and left it, and this number with them.
        if (last_claim(directory_) == last + 1) break;
        ::unlink(path.c_str());
    }
    for (const std::uint64_t older : claims(directory_))
        if (older <= last) ::unlink(claim_file(directory_, older).c_str());
    // A full disk takes a claim without a name, and says what it refuses elsewhere.
    const std::string text = fmt::format("host {} process {}\n", host_name(), ::getpid());
    if (::pwrite(claim_.get(), text.data(), text.size(), 0) != static_cast<::ssize_t>(text.size()))
        log_warning("the lock does not name this process: {}", std::strerror(errno));
}

/// As `wait_for_claimant`, for attached processes, which claim nothing. The signs of those that are
/// gone go, too.
void RunLock::wait_for_attached(bool locked, double stale) const {
    std::error_code failed;
    for (fs::directory_iterator entry(directory_ / "leases", failed), end; !failed && entry != end;
         entry.increment(failed)) {
        const std::string name = entry->path().filename().string();
        if (!name.starts_with("clock-")) continue;
        const std::size_t process = name.rfind('-', name.rfind('-') - 1);  // clock-HOST-PROCESS-N
        const std::string host = name.substr(6, process - 6);
        if (locked && host == host_name()) continue;
        wait_for_death(
            directory_, [&] { return "gallop run --attach on " + host; }, directory_ / "HEARTBEAT",
            lock_.get(), stale,
            [&] {
                ::futimens(claim_.get(), nullptr);  // or others would take us for dead
                return !fs::exists(entry->path());
            });
        ::unlink(entry->path().c_str());
    }
}

void RunLock::sign_off() const {
    // Over the name, and shorter: a full disk takes it.
    const std::string text = fmt::format("{}\n", signed_off);
    if (::pwrite(claim_.get(), text.data(), text.size(), 0) < 0 ||
        ::ftruncate(claim_.get(), static_cast<::off_t>(text.size())) != 0)
        log_warning("the lock still names this process: {}", std::strerror(errno));
}

void RunLock::beat() const {
    ::futimens(claim_.get(), nullptr);
    touch_heart(directory_);
}

RunShare::RunShare(const fs::path& directory, double stale) : directory_(directory) {
    OpenLock opened = open_lock(directory, true);
    lock_ = std::move(opened.file);
    last_claim_ = last_claim(directory);
    wait_for_claimant(directory, last_claim_, lock_.get(), opened.locked, stale);
}

void RunShare::confirm() const {
    touch_heart(directory_);  // first: a coordinator that is about to see our sign waits for that
    const std::uint64_t last = last_claim(directory_);
    if (last == last_claim_) return;
    if (const std::string holder = first_line(claim_file(directory_, last)); holder != signed_off)
        refuse(directory_, holder.empty() ? "a run on another machine" : holder);
}

void RunShare::beat() const { touch_heart(directory_); }

}  // namespace gallop
