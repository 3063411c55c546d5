#pragma once

#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "farm/history.hpp"
#include "farm/status.hpp"

namespace gallop {

/// The signs of life in a run directory.
struct Pulse {
    bool locked = false;               ///< a process of this machine holds `LOCK`
    std::string holder;                ///< as `lock_holder` has it: "host h process 7"
    std::optional<double> heartbeat;   ///< seconds since `HEARTBEAT` was touched
    std::optional<double> lease;       ///< seconds since the freshest of `leases/` was touched
    bool complete = false;             ///< `COMPLETE` is there
    bool ended = false;                ///< `COMPLETE` or `ATTEMPT_END` is there: an orderly end
    std::optional<double> status_age;  ///< seconds since `status.json` was written

    /// Somebody works here: the lock is held on this machine, or the heart has beaten lately on
    /// another without an orderly end since, or a process without a coordinator keeps a lease fresh.
    /// The kernel gives locks up with their process; a heart that stopped says no more.
    bool live() const;
};

/// Feels the pulse without taking the lock: a run that starts at this moment is not disturbed.
Pulse feel_pulse(const std::filesystem::path& run);

/// The Slurm job that a run directory knows of.
struct SlurmJob {
    std::string id;
    std::string state;   ///< "RUNNING", "2 RUNNING, 1 PENDING" (an array), …; "gone" or "unknown"
    std::string note;    ///< squeue's reason or nodes, of the first task
    std::string left;    ///< squeue's remaining time, likewise
    bool array = false;  ///< of tasks without MPI

    /// Whether it, or a task of it, is in the queue or at work; not when nobody knows.
    bool waits_or_runs() const;
};

/// What can be said of a run from its directory.
struct Survey {
    RunStatus status;
    Pulse pulse;
    std::optional<SlurmJob> slurm;
    std::vector<FailureStatus> quarantined;  ///< items given up, in the plan's order
    std::vector<FailureStatus> failing;      ///< items that failed and will be tried again
};

/// Surveys a run whose history has been brought up to date. Of a live run, `status.json` tells what
/// the journal cannot (slots, pace); all else comes from the journal and the pulse, so it works
/// without `status.json`, too. `most`: failures of either kind that are listed; the first ones.
Survey survey(const RunHistory& history,
              std::size_t most = std::numeric_limits<std::size_t>::max());

/// The same from the journals and a pulse alone: neither `status.json` nor Slurm is asked.
Survey survey_journals(const RunHistory& history, const Pulse& pulse,
                       std::size_t most = std::numeric_limits<std::size_t>::max());

/// The last failure of an item, or what it was given up for.
FailureStatus failure_of(const RunHistory& history, std::size_t item);

/// Asks squeue about the job in `slurm.json`; nothing when there is no such file.
std::optional<SlurmJob> slurm_job(const std::filesystem::path& run);

nlohmann::json to_json(const Survey& survey);

/// A run directory given by a person, or, for "", the one that the working directory is in. Throws
/// InputError when it is none.
std::filesystem::path find_run(const std::string& given);

}  // namespace gallop
