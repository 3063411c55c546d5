#pragma once

#include <atomic>

namespace gallop {

/// The signals that ask a run to end: SIGUSR1 (soon: what can be finished in the time left may be),
/// SIGTERM and SIGINT (now). All threads block them and one waits for them: the CPU backend's
/// generated code moves the stack pointer, and a handler that runs on a thread inside it has been
/// seen to corrupt the heap. After SIGTERM or SIGINT, another one ends the process at once.
class StopSignals {
public:
    enum class Asked { nothing, soon, now };

    /// Blocks the signals in this thread and all that it makes; call before any is made. Once a
    /// process.
    StopSignals();

    Asked asked() const { return asked_.load(); }
    /// Becomes readable when a signal has come.
    int descriptor() const { return wake_; }

private:
    std::atomic<Asked> asked_{Asked::nothing};
    int wake_ = -1;
};

/// Seconds until the Slurm job that this process belongs to must end, by SLURM_JOB_END_TIME or, where
/// Slurm does not set it, by squeue. Infinity outside of a
/// job, or when its time is not limited.
double job_seconds_left();

/// Seconds of squeue's "%L": "[days-][[hours:]minutes:]seconds"; infinity for UNLIMITED and for what
/// is no time.
double slurm_seconds(const char* text);

}  // namespace gallop
