#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace gallop {

/// What a run does at this moment; `dead` is a reader's verdict on a run that ended without saying so.
enum class RunState { running, paused, stopping, stopped, finished, dead };

/// "running", "paused", …
std::string_view name_of(RunState state);

/// One agent as the coordinator sees it.
struct AgentStatus {
    int agent = 0;  ///< its rank
    std::string host;
    std::string device;
    int slots = 0;
    std::string state = "working";  ///< or "drained", "lost", "left"
    std::size_t done = 0;           ///< clips in this attempt
    std::size_t failed = 0;         ///< tries in this attempt
    double last_heard = 0;          ///< seconds ago
};

/// One renderer, and the item it works on.
struct SlotStatus {
    int agent = 0;
    int slot = 0;
    std::string id;    ///< of the item; empty: idle
    std::string name;  ///< likewise
    std::string stage;
    int step = 0;
    int steps = 0;
    double seconds = 0;    ///< since the item began
    double predicted = 0;  ///< seconds that the whole item should take
};

/// A try that failed, or an item given up.
struct FailureStatus {
    std::string id;
    std::string name;
    /// Of the last failed try: error, input, out_of_memory, crash, hung, bad_output, disk; quarantined:
    /// given up without one.
    std::string kind;
    std::string error;   ///< whole, perhaps of several lines
    std::string reason;  ///< why the item was given up; empty: it was not
    std::string host;
    std::string log;  ///< path inside the run directory, or empty
    std::string time;
};

/// Logs a failed try, or that an item is given up, in one line with the first one of its error.
void log_failure(const FailureStatus& failure);

/// A run at one moment: what `status.json` holds. Counts are of distinct items; done, quarantined,
/// leased and open add up to items.
struct RunStatus {
    RunState state = RunState::running;
    std::string reason;  ///< of a pause or a stop
    std::string name;    ///< of the run
    int attempt = 1;
    std::size_t items = 0;
    std::size_t done = 0;
    std::size_t quarantined = 0;
    std::size_t leased = 0;
    std::size_t open = 0;
    std::size_t retried = 0;        ///< failed at least once, and neither done nor quarantined
    std::size_t failed_tries = 0;   ///< of all attempts
    std::size_t rendered_here = 0;  ///< clips of this attempt
    double clips_per_hour = 0;
    std::optional<double> seconds_left;  ///< by cost; nothing while nothing was measured
    double cost_done = 0;                ///< predicted seconds of what is done
    double cost_total = 0;               ///< predicted seconds of all items
    std::uint64_t disk_free = 0;         ///< bytes
    std::vector<AgentStatus> agents;
    std::vector<SlotStatus> slots;
    std::vector<FailureStatus> failures;  ///< the latest, newest last, at most `most_failures`
    std::string updated;                  ///< UTC

    static constexpr std::size_t most_failures = 20;
};

nlohmann::json to_json(const RunStatus& status);

/// The reverse. Throws Error for what is no status.
RunStatus status_of(const nlohmann::json& json);

/// The status as a text file for Prometheus' node_exporter (its textfile collector), every sample
/// labelled with the run's name. Source: Prometheus exposition formats, version 0.0.4.
std::string metrics_text(const RunStatus& status);

/// Writes `status.json` and `metrics.prom` in the run directory. A disk that refuses them is said
/// once and is no error: the journal alone is the truth. False when it refused.
bool write_status(const std::filesystem::path& directory, const RunStatus& status);

/// What `status.json` says; nothing when it is missing or damaged.
std::optional<RunStatus> read_status(const std::filesystem::path& directory);

}  // namespace gallop
