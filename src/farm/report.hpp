#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <stop_token>
#include <thread>

namespace gallop {

struct ReportOptions {
    /// Contact strips are made for so long at most; the next report makes the others.
    double thumbnail_seconds = std::numeric_limits<double>::infinity();
    /// So many threads make them.
    std::size_t threads = std::max(1U, std::thread::hardware_concurrency());
    /// No more are begun once this is asked for.
    std::stop_token stop = {};
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
/// priority: often at first, later when a quarter of the time so far has gone by again. So the report
/// of the end finds most contact strips made. Where several processes do so, one that finds a new
/// report leaves it at that. What goes wrong is said in the log and does not touch
/// the run. The destructor waits for a report that is being written, which makes no more strips.
class LiveReport {
public:
    /// Seconds between reports: at first, and at most.
    explicit LiveReport(const std::filesystem::path& run, double least_seconds = 2,
                        double most_seconds = 120);

private:
    std::jthread thread_;
};

}  // namespace gallop
