#include "farm/lease_folder.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/run_lock.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Descriptor = Handle<int, detail::close_descriptor, -1>;

constexpr std::string_view clock_prefix = "clock-";

/// A lease may miss so many touches before it counts as stale.
constexpr double touches_a_ttl = 6;

/// The last touch of an open file by its server's clock; nothing when the file is gone.
double modified(int descriptor) {
    struct stat info {};
    if (::fstat(descriptor, &info) != 0) return 0;
    return static_cast<double>(info.st_mtim.tv_sec) +
           1e-9 * static_cast<double>(info.st_mtim.tv_nsec);
}

/// With no times given the server takes its own clock.
bool touch(int descriptor) { return ::futimens(descriptor, nullptr) == 0; }

[[noreturn]] void fail(const fs::path& path, const char* what) {
    throw_file_error(path, what, errno);
}

}  // namespace

LeaseFolder::LeaseFolder(const fs::path& run, double ttl) : folder_(run / "leases"), ttl_(ttl) {
    std::error_code failed;
    fs::create_directories(folder_, failed);
    if (failed) throw_file_error(folder_, "cannot make folder", failed.value());
    // Another container on this host may have the same process number.
    for (int i = 0; !clock_; ++i) {
        clock_path_ = folder_ / fmt::format("{}{}-{}-{}", clock_prefix, host_name(), ::getpid(), i);
        clock_.reset(::open(clock_path_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644));
        if (!clock_ && errno != EEXIST) fail(clock_path_, "cannot create");
    }
    keeper_ = std::thread([this] { keep(); });
}

LeaseFolder::~LeaseFolder() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    wake_.notify_all();
    keeper_.join();
    while (!held_.empty()) give_back(std::string(held_.begin()->first));
    ::unlink(clock_path_.c_str());
}

fs::path LeaseFolder::path(std::string_view id, int generation) const {
    return folder_ / id.substr(0, 2) / fmt::format("{}.{}", id, generation);
}

double LeaseFolder::server_time() {
    if (!touch(clock_.get())) fail(clock_path_, "cannot touch");
    return modified(clock_.get());
}

bool LeaseFolder::claim(std::string_view id) {
    if (holds(id)) return false;
    const fs::path shard = folder_ / id.substr(0, 2);
    if (::mkdir(shard.c_str(), 0755) != 0 && errno != EEXIST) fail(shard, "cannot make folder");
    for (int generation = 0;; ++generation) {
        const fs::path lease = path(id, generation);
        Descriptor made(::open(lease.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644));
        if (made) {
            const std::lock_guard lock(mutex_);
            held_.emplace(id, Held{std::move(made), generation});
            return true;
        }
        if (errno != EEXIST) fail(lease, "cannot create");
        // Opening it makes a network file system ask its server.
        const Descriptor other(::open(lease.c_str(), O_RDONLY | O_CLOEXEC));
        if (!other && errno == ENOENT) return false;  // decided at this moment
        if (!other) fail(lease, "cannot open");
        if (server_time() - modified(other.get()) <= ttl_) return false;
    }
}

bool LeaseFolder::alone() { return others().empty(); }

std::vector<std::string> LeaseFolder::elsewhere() {
    std::vector<std::string> found = others();
    std::erase_if(found, [](const std::string& process) {
        return process.substr(0, process.rfind('-')) == host_name();
    });
    return found;
}

std::vector<std::string> LeaseFolder::others() {
    std::vector<std::string> found;
    const double now = server_time();
    std::error_code failed;
    for (fs::directory_iterator entry(folder_, failed), end; !failed && entry != end;
         entry.increment(failed)) {
        const fs::path& path = entry->path();
        const std::string name = path.filename().string();  // clock-HOST-NUMBER-N
        if (!name.starts_with(clock_prefix) || path.filename() == clock_path_.filename()) continue;
        const Descriptor other(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (other && now - modified(other.get()) <= ttl_)
            found.push_back(
                name.substr(clock_prefix.size(), name.rfind('-') - clock_prefix.size()));
    }
    return found;
}

bool LeaseFolder::holds(std::string_view id) const {
    const std::lock_guard lock(mutex_);
    return held_.find(id) != held_.end();
}

void LeaseFolder::finish(std::string_view id) {
    int generation = -1;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(id);
        if (found == held_.end()) return;
        generation = found->second.generation;
        held_.erase(found);
    }
    for (; generation >= 0; --generation) ::unlink(path(id, generation).c_str());
}

void LeaseFolder::give_back(std::string_view id) {
    const std::lock_guard lock(mutex_);
    const auto found = held_.find(id);
    if (found == held_.end()) return;
    // Stale from now on: last touched in 1970.
    const struct timespec never[2] = {{0, 0}, {0, 0}};
    if (::futimens(found->second.descriptor.get(), never) != 0)
        log_warning("a lease could not be given back and is stale in {:.0f} s id={} reason=\"{}\"",
                    ttl_, id, std::strerror(errno));
    held_.erase(found);
}

void LeaseFolder::keep() {
    std::unique_lock lock(mutex_);
    while (!ending_) {
        touch(clock_.get());  // a sign of life for `alone`
        for (const auto& [id, held] : held_)
            if (!touch(held.descriptor.get()))
                log_warning("a lease could not be touched id={} reason=\"{}\"", id,
                            std::strerror(errno));
        wake_.wait_for(lock, std::chrono::duration<double>(ttl_ / touches_a_ttl),
                       [this] { return ending_; });
    }
}

}  // namespace gallop
