#include "farm/status.hpp"

#include <algorithm>
#include <array>
#include <atomic>

#include <nlohmann/json.hpp>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/failure.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 6> state_names = {"running", "paused",   "stopping",
                                                         "stopped", "finished", "dead"};

RunState state_of(std::string_view name) {
    const auto found = std::find(state_names.begin(), state_names.end(), name);
    if (found == state_names.end()) throw Error(fmt::format("a run's state is \"{}\"", name));
    return static_cast<RunState>(found - state_names.begin());
}

// What a field is called in JSON, once for both directions: `to` writes, `from` reads.
struct Writer {
    Json& json;
    template <class T>
    void operator()(const char* key, const T& value) const {
        json[key] = value;
    }
    template <class T>
    void operator()(const char* key, const std::optional<T>& value) const {
        if (value) json[key] = *value;
    }
};
struct Parser {
    const Json& json;
    template <class T>
    void operator()(const char* key, T& value) const {
        json.at(key).get_to(value);
    }
    template <class T>
    void operator()(const char* key, std::optional<T>& value) const {
        if (json.contains(key)) value = json.at(key).get<T>();
    }
};

template <class Visit, class Agent>
void fields_of_agent(const Visit& field, Agent& agent) {
    field("agent", agent.agent);
    field("host", agent.host);
    field("device", agent.device);
    field("slots", agent.slots);
    field("state", agent.state);
    field("done", agent.done);
    field("failed", agent.failed);
    field("last_heard", agent.last_heard);
}

template <class Visit, class Slot>
void fields_of_slot(const Visit& field, Slot& slot) {
    field("agent", slot.agent);
    field("slot", slot.slot);
    field("id", slot.id);
    field("name", slot.name);
    field("stage", slot.stage);
    field("step", slot.step);
    field("steps", slot.steps);
    field("seconds", slot.seconds);
    field("predicted", slot.predicted);
}

template <class Visit, class Failure>
void fields_of_failure(const Visit& field, Failure& failure) {
    field("id", failure.id);
    field("name", failure.name);
    field("kind", failure.kind);
    field("error", failure.error);
    field("reason", failure.reason);
    field("host", failure.host);
    field("log", failure.log);
    field("time", failure.time);
}

template <class Visit, class Status>
void fields_of_status(const Visit& field, Status& status) {
    field("reason", status.reason);
    field("name", status.name);
    field("attempt", status.attempt);
    field("items", status.items);
    field("done", status.done);
    field("quarantined", status.quarantined);
    field("leased", status.leased);
    field("open", status.open);
    field("retried", status.retried);
    field("failed_tries", status.failed_tries);
    field("rendered_here", status.rendered_here);
    field("clips_per_hour", status.clips_per_hour);
    field("seconds_left", status.seconds_left);
    field("cost_done", status.cost_done);
    field("cost_total", status.cost_total);
    field("disk_free", status.disk_free);
    field("updated", status.updated);
}

/// A label's value: backslash, quote and newline escaped, as the exposition format asks.
std::string label(std::string_view text) {
    std::string escaped;
    for (const char c : text) {
        if (c == '\\' || c == '"') escaped += '\\';
        if (c == '\n')
            escaped += "\\n";
        else
            escaped += c;
    }
    return escaped;
}

/// One metric after the other, each with its HELP and TYPE.
class Exposition {
public:
    explicit Exposition(std::string_view run) : run_(label(run)) {}

    void metric(std::string_view name, std::string_view type, std::string_view help) {
        name_ = fmt::format("gallop_{}", name);
        text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name_, help, name_, type);
    }
    /// `labels`: further ones, `key="value"` joined by commas.
    template <class Number>
    void sample(Number value, std::string_view labels = {}) {
        text_ += fmt::format("{}{{run=\"{}\"{}{}}} {}\n", name_, run_, labels.empty() ? "" : ",",
                             labels, value);
    }
    template <class Number>
    void gauge(std::string_view name, std::string_view help, Number value) {
        metric(name, "gauge", help);
        sample(value);
    }
    std::string take() { return std::move(text_); }

private:
    std::string run_, name_, text_;
};

}  // namespace

std::string_view name_of(RunState state) { return state_names.at(static_cast<std::size_t>(state)); }

void log_failure(const FailureStatus& failure) {
    std::string tail;
    if (!failure.reason.empty()) tail += fmt::format(" reason=\"{}\"", failure.reason);
    if (!failure.host.empty()) tail += fmt::format(" host={}", failure.host);
    if (!failure.error.empty()) tail += fmt::format(" error=\"{}\"", first_line_of(failure.error));
    if (!failure.log.empty()) tail += fmt::format(" log={}", failure.log);
    log_error("{} item={} name=\"{}\" kind={}{}", failure.reason.empty() ? "failed" : "quarantined",
              failure.id, failure.name, failure.kind, tail);
}

Json to_json(const RunStatus& status) {
    Json json = {{"state", std::string(name_of(status.state))},
                 {"agents", Json::array()},
                 {"slots", Json::array()},
                 {"failures", Json::array()}};
    fields_of_status(Writer{json}, status);
    for (const AgentStatus& agent : status.agents)
        fields_of_agent(Writer{json["agents"].emplace_back(Json::object())}, agent);
    for (const SlotStatus& slot : status.slots)
        fields_of_slot(Writer{json["slots"].emplace_back(Json::object())}, slot);
    for (const FailureStatus& failure : status.failures)
        fields_of_failure(Writer{json["failures"].emplace_back(Json::object())}, failure);
    return json;
}

RunStatus status_of(const Json& json) {
    RunStatus status;
    try {
        status.state = state_of(json.at("state").get<std::string>());
        fields_of_status(Parser{json}, status);
        for (const Json& agent : json.at("agents"))
            fields_of_agent(Parser{agent}, status.agents.emplace_back());
        for (const Json& slot : json.at("slots"))
            fields_of_slot(Parser{slot}, status.slots.emplace_back());
        for (const Json& failure : json.at("failures"))
            fields_of_failure(Parser{failure}, status.failures.emplace_back());
    } catch (const Json::exception& wrong) {
        throw Error(fmt::format("no status of a run: {}", wrong.what()));
    }
    return status;
}

std::string metrics_text(const RunStatus& status) {
    Exposition out(status.name);
    out.metric("items", "gauge", "Distinct items of the run by what has become of them.");
    out.sample(status.done, "state=\"done\"");
    out.sample(status.leased, "state=\"leased\"");
    out.sample(status.open, "state=\"open\"");
    out.sample(status.quarantined, "state=\"quarantined\"");
    out.metric("state", "gauge", "1 for what the run does at this moment, 0 for the others.");
    for (std::size_t i = 0; i < state_names.size(); ++i)
        out.sample(static_cast<int>(static_cast<std::size_t>(status.state) == i),
                   fmt::format("state=\"{}\"", state_names[i]));
    out.gauge("attempt", "How many times the run was started.", status.attempt);
    out.metric("failed_tries_total", "counter", "Tries that failed, in all attempts.");
    out.sample(status.failed_tries);
    out.metric("clips_total", "counter", "Clips rendered by this attempt.");
    out.sample(status.rendered_here);
    out.gauge("clips_per_hour", "Clips finished an hour, lately.", status.clips_per_hour);
    if (status.seconds_left)
        out.gauge("left_seconds", "Seconds until all is done, by predicted cost.",
                  *status.seconds_left);
    out.gauge("cost_done_seconds", "Predicted renderer seconds of what is done.", status.cost_done);
    out.gauge("cost_seconds", "Predicted renderer seconds of all items.", status.cost_total);
    out.gauge("disk_free_bytes", "Free bytes where the run directory is.", status.disk_free);
    if (!status.agents.empty()) {
        const auto of = [](const AgentStatus& agent) {
            return fmt::format("agent=\"{}\",host=\"{}\"", agent.agent, label(agent.host));
        };
        out.metric("agent_working", "gauge", "1 while an agent takes work.");
        for (const AgentStatus& agent : status.agents)
            out.sample(static_cast<int>(agent.state == "working"), of(agent));
        out.metric("agent_clips_total", "counter", "Clips rendered by an agent in this attempt.");
        for (const AgentStatus& agent : status.agents) out.sample(agent.done, of(agent));
        out.metric("agent_failed_tries_total", "counter",
                   "Tries that failed on an agent in this attempt.");
        for (const AgentStatus& agent : status.agents) out.sample(agent.failed, of(agent));
        out.metric("agent_silent_seconds", "gauge", "Seconds since an agent was heard.");
        for (const AgentStatus& agent : status.agents) out.sample(agent.last_heard, of(agent));
    }
    return out.take();
}

bool write_status(const std::filesystem::path& directory, const RunStatus& status) {
    static std::atomic<bool> said{false};
    try {
        const std::string json =
            to_json(status).dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
        write_atomically(directory / "status.json", json);
        write_atomically(directory / "metrics.prom", metrics_text(status));
        said = false;
        return true;
    } catch (const Error& refused) {
        if (!said.exchange(true)) log_warning("the status cannot be written: {}", refused.what());
        return false;
    }
}

std::optional<RunStatus> read_status(const std::filesystem::path& directory) {
    try {
        return status_of(Json::parse(read_text(directory / "status.json"), nullptr, false));
    } catch (const Error&) {
        return {};
    }
}

}  // namespace gallop
