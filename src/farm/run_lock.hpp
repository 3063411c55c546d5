#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

/// Holds a run directory for this process. The kernel gives the lock on the file `LOCK` up when the
/// process ends, however it ends.
///
/// Where another machine's locks cannot be seen (some network file systems), claims speak for it: who
/// takes the directory makes the file `LOCK.N` with O_CREAT|O_EXCL, N being one more than the last, so
/// that one process alone can, whatever the locks do. The file names the holder, who touches it each
/// second, and says at last that he has signed off. A holder on another machine that did not is gone
/// once its claim has not been touched for `stale_seconds` of the file server's clock. Attached
/// processes there, whose sign is a file `leases/clock-HOST-PROCESS-N`, are gone when `HEARTBEAT`,
/// which every process of a run touches, has not been for as long.
class RunLock {
public:
    static constexpr double stale_seconds = 30;

    /// Makes the directory when missing. Waits for up to `stale` seconds to see whether a holder on
    /// another machine lives. Throws InputError that names host and process of a live holder, Error
    /// or DiskError when the lock cannot be taken.
    explicit RunLock(const std::filesystem::path& directory, double stale = stale_seconds);
    RunLock(const RunLock&) = delete;
    RunLock& operator=(const RunLock&) = delete;
    /// Signs off.
    ~RunLock();

    /// Touches the claim and `HEARTBEAT`. A failure is not an error: the disk will say so elsewhere.
    void beat() const;

private:
    void claim(bool locked, double stale);
    void wait_for_attached(bool locked, double stale) const;
    void sign_off() const;

    std::filesystem::path directory_;
    Handle<int, detail::close_descriptor, -1> lock_, claim_;
};

/// A place among processes that share a run directory without a coordinator. While one of them is
/// there, no RunLock is to be had, and the reverse.
class RunShare {
public:
    /// Throws InputError when a coordinator holds the directory, on whatever machine, Error or
    /// DiskError when `LOCK` cannot be opened. Waits as RunLock does.
    explicit RunShare(const std::filesystem::path& directory,
                      double stale = RunLock::stale_seconds);
    /// Once this process has left its sign under `leases`: throws InputError when a coordinator on
    /// another machine has taken the directory before it could see that.
    void confirm() const;

    /// Touches `HEARTBEAT`.
    void beat() const;

private:
    std::filesystem::path directory_;
    Handle<int, detail::close_descriptor, -1> lock_;
    std::uint64_t last_claim_ = 0;  ///< of a coordinator that is gone
};

/// Who holds a run directory, or did when it died: "host h process 7"; empty when the last one signed
/// off, and when there was none.
std::string lock_holder(const std::filesystem::path& directory);

/// Whether a file of a run directory is one of the lock's.
bool is_lock_file(std::string_view name);

/// Seconds since a file was last written, both by the file server's clock: `clock` is an open file
/// beside it, whose time is set to learn what time it is there. Infinity when there is no such file.
double age_of(const std::filesystem::path& file, int clock);

/// This machine's name.
std::string host_name();

}  // namespace gallop
