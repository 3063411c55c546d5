#pragma once

#include <filesystem>
#include <string>

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

/// Holds a run directory for this process. The kernel gives the lock up when the process ends,
/// however it ends; the file `LOCK` names the holder, and nobody after an orderly end.
///
/// Where another machine's locks cannot be seen (some network file systems), the file `HEARTBEAT`,
/// which a run touches each second, speaks for it: a holder on another machine that did not sign off
/// is gone once its heart has not beaten for `stale_seconds` of the file server's clock. So are
/// attached processes there, whose sign is a file `leases/clock-HOST-PROCESS-N`.
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

    /// Touches `HEARTBEAT`. A failure is not an error: the disk will say so elsewhere.
    void beat() const;

private:
    void sign_off() const;

    std::filesystem::path directory_;
    Handle<int, detail::close_descriptor, -1> descriptor_;
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

    /// Touches `HEARTBEAT`, as RunLock does.
    void beat() const;

private:
    std::filesystem::path directory_;
    Handle<int, detail::close_descriptor, -1> descriptor_;
};

/// Seconds since a file was last written, both by the file server's clock: `clock` is an open file
/// beside it, whose time is set to learn what time it is there. Infinity when there is no such file.
double age_of(const std::filesystem::path& file, int clock);

/// This machine's name.
std::string host_name();

}  // namespace gallop
