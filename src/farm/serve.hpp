#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "farm/agent.hpp"
#include "farm/coordinator_types.hpp"
#include "farm/link.hpp"
#include "farm/run_lock.hpp"
#include "farm/stop_signals.hpp"

namespace gallop {

/// How a rank takes part in a run.
struct ServeOptions {
    AgentOptions agent;     ///< its renderers' run directory is filled in
    std::string log_name;   ///< of a rank other than 0, in logs/: where its stderr goes
    bool terminal = false;  ///< stderr is one: progress as a live line
};

/// What came of a run.
struct ServeResult {
    coordinator::Outcome outcome = coordinator::Outcome::stopped;
    std::string why;                 ///< of a stop
    bool all_well = true;            ///< every rank has left and is still there
    std::optional<Failure> trouble;  ///< no renderer could be started anywhere
};

/// Rank 0's part of a run whose plan is in `directory`, which it holds by `lock`: goes on where the
/// journal ends, hands out items, keeps the journal, and renders. Leaves `index.jsonl`, `status.json`,
/// `COMPLETE` when nothing is open, and `ATTEMPT_END`. A disk that refuses the journal stops the run
/// and loses nothing. Throws InputError for a directory without a plan, DiskError when the disk refuses
/// before anything has begun, Error.
ServeResult serve(const std::filesystem::path& directory, const RunLock& lock, ServeOptions options,
                  Link& link, const StopSignals& signals);

/// Another rank's part. Waits for rank 0, which may be planning; returns when the run has ended or
/// rank 0 is silent: whether every rank is still there.
bool attend(ServeOptions options, Link& link, const StopSignals& signals);

/// Tells the other ranks of a run that never began that it has ended.
void dismiss(Link& link);

/// Does what may take minutes in a thread of its own, while the other ranks, and whoever watches the
/// run directory, are told that rank 0 is there. `work` must not use the link. Throws what it throws.
void work_and_beat(const RunLock& lock, Link& link, const std::function<void()>& work);

}  // namespace gallop
