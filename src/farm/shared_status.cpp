#include "farm/shared_status.hpp"

#include <algorithm>
#include <filesystem>

#include "farm/time_text.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

constexpr double show_seconds = 2;
constexpr double show_share = 0.005;  ///< of the time, at most, goes into the status

}  // namespace

SharedStatus::SharedStatus(const RunHistory& history, bool terminal, double now)
    : history_(history), line_(terminal), pace_(now) {}

RunStatus SharedStatus::status(const Pulse& pulse, double now) {
    Survey seen = survey_journals(history_, pulse, RunStatus::most_failures);
    RunStatus status = std::move(seen.status);
    if (!before_) before_ = status;
    pace_.sample(now, status.cost_done - before_->cost_done, status.done - before_->done);
    status.rendered_here = status.done - before_->done;
    status.clips_per_hour = pace_.clips_per_hour();
    status.seconds_left = pace_.seconds_left(status.cost_total - status.cost_done);
    status.failures = std::move(seen.failing);
    status.failures.insert(status.failures.end(), seen.quarantined.begin(), seen.quarantined.end());
    std::stable_sort(status.failures.begin(), status.failures.end(),
                     [](const auto& a, const auto& b) { return a.time < b.time; });
    if (status.failures.size() > RunStatus::most_failures)
        status.failures.erase(status.failures.begin(),
                              status.failures.end() - RunStatus::most_failures);
    status.updated = utc_text();
    return status;
}

void SharedStatus::show(std::vector<SlotStatus> own, double now) {
    const double begun = seconds_now();
    Pulse pulse = feel_pulse(history_.directory());
    pulse.lease = 0;  // this process is one that lives
    RunStatus seen = status(pulse, now);
    if (!pulse.status_age || *pulse.status_age > 0.9 * show_seconds)
        write_status(history_.directory(), seen);
    seen.slots = std::move(own);
    line_.show(seen, now);
    next_ = now + std::max(show_seconds, (seconds_now() - begun) / show_share);
}

void SharedStatus::sign_off() {
    const double now = seconds_now();
    Pulse pulse;  // nobody's
    pulse.complete = fs::exists(history_.directory() / "COMPLETE");
    const RunStatus seen = status(pulse, now);
    write_status(history_.directory(), seen);
    line_.show(seen, now);
}

}  // namespace gallop
