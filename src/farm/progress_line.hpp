#pragma once

#include <string>

#include "farm/status.hpp"

namespace gallop {

/// A run in one line: "[137/200] 412 clips/h, eta 9:12, 3 failed tries, 1 quarantined | rain base 5/8".
std::string progress_text(const RunStatus& status);

/// How far a run is, on stderr: a live line on a terminal, else a log line every 30 s and whenever
/// the run's state changes. Times are seconds since any moment.
class ProgressLine {
public:
    /// `terminal`: stderr is one.
    explicit ProgressLine(bool terminal) : terminal_(terminal) {}
    /// Takes the live line away.
    ~ProgressLine();
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    void show(const RunStatus& status, double now);

private:
    bool terminal_;
    bool shown_ = false;
    RunState state_ = RunState::running;
    double last_ = -1e9;
};

}  // namespace gallop
