#pragma once

#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <mutex>
#include <thread>

namespace gallop {

struct ReportOptions {
    /// Contact strips are made for so long at most; the next report makes the others.
    double thumbnail_seconds = std::numeric_limits<double>::infinity();
};

struct ReportCount {
    std::size_t clips = 0;    ///< finished
    std::size_t made = 0;     ///< contact strips, by this call
    std::size_t missing = 0;  ///< contact strips that are not there yet, or whose clip is damaged
};

/// Writes `report/index.html` in a run directory, from the plan, the journal and the clips: progress,
/// throughput over time, seconds a stage, hosts, failures with the tails of their logs, and a contact
/// sheet. The page opens from disk and needs nothing but what is beside it in the run directory; it
/// shows at most 100,000 clips. Contact strips (`report/strips/ab/cd/ID.jpg`) are made once. Any
/// process may write it at any time. Throws InputError when the folder is no run directory, Error
/// when the disk refuses it.
ReportCount write_report(const std::filesystem::path& run, const ReportOptions& options = {});

/// Writes the report of a run that is under way now and then, on a thread of its own at low
/// priority. What goes wrong is said in the log and does not touch the run.
class LiveReport {
public:
    LiveReport(std::filesystem::path run, double interval_seconds);
    LiveReport(const LiveReport&) = delete;
    LiveReport& operator=(const LiveReport&) = delete;
    /// Waits for a report that is being written.
    ~LiveReport();

private:
    void write_now_and_then();

    std::filesystem::path run_;
    double interval_seconds_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool ended_ = false;
    std::thread thread_;  ///< last: it reads the others
};

}  // namespace gallop
