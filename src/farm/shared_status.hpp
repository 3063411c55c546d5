#pragma once

#include <optional>
#include <vector>

#include "farm/history.hpp"
#include "farm/pace.hpp"
#include "farm/progress_line.hpp"
#include "farm/status.hpp"
#include "farm/survey.hpp"

namespace gallop {

/// What attached processes show of a run that has no coordinator. The counts are everybody's, from
/// all journals; the pace is what everybody finished since this process began. Whoever finds
/// `status.json` old writes it, so that it is about as fresh with one process as with a thousand.
/// Renderers that are busy in other processes are not known: `status.json` lists none, the progress
/// line those of this process.
class SharedStatus {
public:
    /// `history` has been brought up to date, and outlives this. `terminal`: progress as a live line.
    SharedStatus(const RunHistory& history, bool terminal, double now);

    /// When the next look is due; seconds since any moment.
    double due() const { return next_; }
    /// Shows the run as the journals have it. `own`: this process's renderers.
    void show(std::vector<SlotStatus> own, double now);
    /// Writes the status of a run that nobody works on any more.
    void sign_off();

private:
    RunStatus status(const Pulse& pulse, double now);

    const RunHistory& history_;
    ProgressLine line_;
    Pace pace_;
    std::optional<RunStatus> before_;  ///< as this process found the run
    double next_ = 0;
};

}  // namespace gallop
