#include "farm/survey.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>

#include <sys/stat.h>
#include <sys/wait.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "farm/run_lock.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using State = ItemHistory::State;

constexpr double heart_stopped_seconds = 30;
constexpr double status_stale_seconds = 60;

std::optional<double> age_of(const fs::path& path) {
    std::error_code missing;
    const auto written = fs::last_write_time(path, missing);
    if (missing) return {};
    return std::chrono::duration<double>(fs::file_time_type::clock::now() - written).count();
}

/// The age of the file that was touched last; a run without a coordinator has few leases at a time.
std::optional<double> freshest(const fs::path& folder) {
    std::optional<double> least;
    std::error_code missing;
    for (fs::recursive_directory_iterator entry(folder, missing), end; !missing && entry != end;
         entry.increment(missing))
        if (const auto age = age_of(entry->path()); age && (!least || *age < *least)) least = age;
    return least;
}

/// The number behind "process " in a lock's text; "" without one.
std::string process_in(const std::string& holder) {
    const std::size_t at = holder.find("process ");
    if (at == std::string::npos) return "";
    const std::size_t end = holder.find_first_not_of("0123456789", at + 8);
    return holder.substr(at + 8, end == std::string::npos ? end : end - at - 8);
}

/// Whether the kernel lists a lock on the file by the process that its holder's text names. Source: proc(5),
/// /proc/locks: "1: FLOCK ADVISORY WRITE 4711 08:01:131090 0 EOF".
bool is_locked(const fs::path& path, const std::string& holder) {
    struct stat info {};
    const std::string process = process_in(holder);
    if (process.empty() || ::stat(path.c_str(), &info) != 0) return false;
    const std::string inode = ":" + std::to_string(info.st_ino);
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
        std::istringstream words(line);
        std::string number, kind, mandatory, access, pid, file;
        words >> number >> kind >> mandatory >> access >> pid >> file;
        if (pid == process && file.ends_with(inode)) return true;
    }
    return false;
}

std::string text_at(const Json& event, const char* key) {
    const auto found = event.find(key);
    return found != event.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// Counts, cost and agents, from the plan and the journal.
RunStatus status_from(const RunHistory& history, const Pulse& pulse) {
    RunStatus status;
    status.name = history.config().name;
    status.attempt = history.attempt();
    status.items = history.size();
    for (std::size_t item = 0; item < history.size(); ++item) {
        const double cost = static_cast<double>(history.plan().rows[item].seconds);
        status.cost_total += cost;
        switch (history[item].state) {
            case State::done:
                ++status.done;
                status.cost_done += cost;
                break;
            case State::quarantined: ++status.quarantined; break;
            case State::leased: ++status.leased; break;
            case State::open: ++status.open; break;
        }
        const bool waits =
            history[item].state == State::open || history[item].state == State::leased;
        if (waits && history[item].failed.offset != JournalPlace::none) ++status.retried;
    }
    status.failed_tries = history.failed_tries();
    status.rendered_here = history.rendered_here();
    for (const auto& [number, agent] : history.agents())
        status.agents.push_back({number, agent.host, agent.device, agent.slots, agent.state,
                                 agent.done, agent.failed, 0});
    status.updated = history.latest();
    if (!pulse.live()) {  // what was leased is nobody's any more
        status.open += status.leased;
        status.leased = 0;
        for (AgentStatus& agent : status.agents)
            if (agent.state == "working") agent.state = "ended";
    }
    std::error_code unknown;
    if (const auto space = fs::space(history.directory(), unknown); !unknown)
        status.disk_free = space.available;
    if (status.items == status.done + status.quarantined && (pulse.complete || !pulse.live())) {
        status.state = RunState::finished;
    } else if (pulse.live()) {
        status.state = history.paused().empty() ? RunState::running : RunState::paused;
        status.reason = history.paused();
    } else if (history.attempt() == 0) {  // attached processes make no attempts
        status.state = RunState::stopped;
        status.reason = history.agents().empty() ? "not begun" : "no attached process is left";
    } else if (history.ended()) {
        status.state = RunState::stopped;
    } else {
        status.state = RunState::dead;
        status.reason = pulse.heartbeat
                            ? fmt::format("no heartbeat for {:.0f} s, and nobody holds the lock",
                                          *pulse.heartbeat)
                            : "nobody holds the lock";
    }
    return status;
}

}  // namespace

bool Pulse::live() const {
    if (locked || (lease && *lease < heart_stopped_seconds)) return true;
    if (ended) return false;  // its heart beat to the end
    // A free lock on the holder's own machine is proof of death; from elsewhere, the heart decides.
    const bool here = holder.find("host " + host_name() + " ") != std::string::npos;
    return !here && heartbeat && *heartbeat < heart_stopped_seconds;
}

Pulse feel_pulse(const fs::path& run) {
    Pulse pulse;
    pulse.holder = lock_holder(run);
    pulse.locked = is_locked(run / "LOCK", pulse.holder);
    pulse.heartbeat = age_of(run / "HEARTBEAT");
    pulse.lease = freshest(run / "leases");
    pulse.complete = fs::exists(run / "COMPLETE");
    pulse.ended = pulse.complete || fs::exists(run / "ATTEMPT_END");
    pulse.status_age = age_of(run / "status.json");
    return pulse;
}

FailureStatus failure_of(const RunHistory& history, std::size_t item) {
    const ItemHistory& known = history[item];
    FailureStatus failure;
    failure.id = id_text(history.plan().rows[item].id);
    failure.name = history.planned(item).item.name;
    const Json failed = history.event(known.failed);
    if (failed.is_object()) {
        failure.kind = text_at(failed, "kind");
        failure.error = text_at(failed, "error");
        failure.host = text_at(failed, "host");
        failure.log = text_at(failed, "log");
        failure.time = text_at(failed, "time");
    }
    if (known.state == State::quarantined) {
        const Json given_up = history.event(known.decided);
        if (failure.kind.empty()) failure.kind = "quarantined";
        if (const std::string error = text_at(given_up, "error"); !error.empty())
            failure.error = error;
        failure.reason = text_at(given_up, "reason");
        failure.time = text_at(given_up, "time");
    }
    return failure;
}

Survey survey_journals(const RunHistory& history, const Pulse& pulse, std::size_t most) {
    Survey found;
    found.pulse = pulse;
    found.status = status_from(history, pulse);
    for (std::size_t item = 0; item < history.size(); ++item) {
        const bool given_up = history[item].state == State::quarantined;
        if (!given_up && (history[item].state == State::done ||
                          history[item].failed.offset == JournalPlace::none))
            continue;
        std::vector<FailureStatus>& list = given_up ? found.quarantined : found.failing;
        if (list.size() < most) list.push_back(failure_of(history, item));
    }
    return found;
}

Survey survey(const RunHistory& history, std::size_t most) {
    Survey found = survey_journals(history, feel_pulse(history.directory()), most);
    if (found.pulse.live() && found.pulse.status_age &&
        *found.pulse.status_age < status_stale_seconds)
        if (auto told = read_status(history.directory())) found.status = std::move(*told);
    found.slurm = slurm_job(history.directory());
    return found;
}

std::optional<SlurmJob> slurm_job(const fs::path& run) {
    if (!fs::exists(run / "slurm.json")) return {};
    const Json file = Json::parse(read_text(run / "slurm.json", 1U << 20), nullptr, false);
    const auto found = file.is_object() ? file.find("job_id") : file.end();
    SlurmJob job{.id = "", .state = "unknown", .note = "", .left = ""};
    if (found == file.end()) return job;
    job.array = file.value("array", Json()) == true;
    job.id = found->is_string() ? found->get<std::string>() : found->dump();
    if (job.id.empty() || job.id.find_first_not_of("0123456789_") != std::string::npos)
        return job;  // goes into a command below
    const std::string command =
        "timeout 10 squeue -h -r -j " + job.id + " -o '%T|%R|%L' 2>/dev/null";
    std::FILE* pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return job;
    std::vector<std::pair<std::string, int>> states;  // tasks in each, as squeue orders them
    char text[512] = {};
    while (std::fgets(text, sizeof text, pipe) != nullptr) {
        std::istringstream words(text);
        std::string state, note, left;
        std::getline(words, state, '|');
        std::getline(words, note, '|');
        std::getline(words, left);
        if (states.empty()) {
            job.note = note;
            job.left = left;
        }
        const auto known = std::find_if(states.begin(), states.end(),
                                        [&](const auto& one) { return one.first == state; });
        if (known == states.end())
            states.emplace_back(state, 1);
        else
            ++known->second;
    }
    const int code = ::pclose(pipe);
    if (states.size() == 1 && states.front().second == 1) {
        job.state = states.front().first;
    } else if (!states.empty()) {
        job.state.clear();
        for (const auto& [state, tasks] : states)
            job.state += fmt::format("{}{} {}", job.state.empty() ? "" : ", ", tasks, state);
    } else if (code >= 0 && WIFEXITED(code) && WEXITSTATUS(code) <= 1) {
        job.state = "gone";  // squeue works (it exits 1 for a job that it has forgotten)
    }
    return job;
}

bool SlurmJob::waits_or_runs() const {
    // Source: squeue(1), the job states in which a job will run, runs, or may run again.
    static constexpr std::array<std::string_view, 8> lasting = {
        "PENDING", "CONFIGURING", "RUNNING",  "SUSPENDED",
        "STOPPED", "REQUEUE",     "RESIZING", "SIGNALING"};
    return std::any_of(lasting.begin(), lasting.end(),
                       [&](std::string_view one) { return state.find(one) != std::string::npos; });
}

Json to_json(const Survey& survey) {
    const auto list = [](const std::vector<FailureStatus>& failures) {
        Json all = Json::array();
        for (const FailureStatus& one : failures)
            all.push_back({{"id", one.id},
                           {"name", one.name},
                           {"kind", one.kind},
                           {"error", one.error},
                           {"reason", one.reason},
                           {"host", one.host},
                           {"log", one.log},
                           {"time", one.time}});
        return all;
    };
    Json json = to_json(survey.status);
    json["live"] = survey.pulse.live();
    json["holder"] = survey.pulse.holder;
    if (survey.pulse.heartbeat) json["heartbeat_seconds"] = *survey.pulse.heartbeat;
    json["quarantined_items"] = list(survey.quarantined);
    json["failing_items"] = list(survey.failing);
    if (survey.slurm)
        json["slurm"] = {{"job_id", survey.slurm->id},
                         {"state", survey.slurm->state},
                         {"note", survey.slurm->note},
                         {"time_left", survey.slurm->left}};
    return json;
}

fs::path find_run(const std::string& given) {
    if (!given.empty()) {
        if (!fs::exists(fs::path(given) / "run.json"))
            throw_input_error("{}: no run directory (there is no run.json in it)", given);
        return given;
    }
    for (fs::path folder = fs::current_path();; folder = folder.parent_path()) {
        if (fs::exists(folder / "run.json")) return folder;
        if (folder == folder.parent_path()) break;
    }
    throw_input_error(
        "no run directory is given, and the working directory is not in one (there is no "
        "run.json)");
}

}  // namespace gallop
