#include <algorithm>
#include <filesystem>
#include <set>

#include "core/log.hpp"
#include "farm/driver.hpp"
#include "farm/time_text.hpp"

namespace gallop {
namespace {

constexpr double disk_seconds = 1;
constexpr double show_seconds = 2;
constexpr double show_share = 0.005;  ///< of the time, at most, goes into the status

}  // namespace

void Driver::look_at_disk(double now) {
    if (now < next_disk_) return;
    next_disk_ = now + disk_seconds;
    std::error_code failed;
    const auto space = std::filesystem::space(start_.directory, failed);
    if (failed) return;
    disk_free_ = space.available;
    tell(coordinator::DiskFree{space.available}, now);
}

const std::string& Driver::name_of_item(coordinator::ItemIndex item) {
    const auto [name, fresh] = names_.try_emplace(item);
    if (!fresh) return name->second;
    try {
        const PlanRow& row = start_.plan.rows[item];
        name->second = read_planned_name(start_.directory, start_.config, row.offset, row.bytes);
    } catch (const std::exception& failed) {
        log_warning("{}", failed.what());
    }
    return name->second;
}

void Driver::note_failure(const coordinator::Record& record, const nlohmann::json& line) {
    const bool given_up = record.what == coordinator::Record::What::quarantined;
    FailureStatus& failure = last_failures_[record.item];
    failure.id = line.value("id", "");
    failure.name = name_of_item(record.item);
    names_.erase(record.item);
    if (given_up) {
        if (failure.kind.empty()) failure.kind = "quarantined";
        failure.reason = line.value("reason", "");
    } else {
        failure.kind = line.value("kind", "");
        failure.error = line.value("error", "");
        failure.host = line.value("host", "");
        failure.log = line.value("log", "");
    }
    failure.time = line.value("time", "");
    log_failure(failure);
    failures_.push_back(failure);
    if (failures_.size() > RunStatus::most_failures) failures_.erase(failures_.begin());
    if (given_up) last_failures_.erase(record.item);
}

RunStatus Driver::status(double now) {
    const coordinator::Snapshot view = coordinator_.snapshot(now);
    RunStatus status;
    status.state = view.state == "paused"     ? RunState::paused
                   : view.state == "stopping" ? RunState::stopping
                                              : RunState::running;
    if (finished_)
        status.state =
            outcome_ == coordinator::Outcome::stopped ? RunState::stopped : RunState::finished;
    status.reason = view.why;
    status.name = start_.config.name;
    status.attempt = start_.attempt;
    status.items = view.items;
    status.done = view.done;
    status.quarantined = view.quarantined;
    status.leased = view.leased;
    status.open = view.open;
    status.failed_tries = failed_tries_;
    status.rendered_here = view.rendered_here;
    status.cost_done = view.cost_done;
    status.cost_total = view.cost_total;
    status.disk_free = disk_free_;
    for (const auto& [item, trouble] : coordinator_.ledger().troubles())
        status.retried += trouble.tries() > 0 &&
                          coordinator_.ledger().item(item).state == coordinator::ItemState::open;
    for (const coordinator::AgentView& agent : view.agents)
        status.agents.push_back({agent.agent, agent.host, agent.device, agent.slots,
                                 std::string(agent.state), agent.done, agent.failed,
                                 agent.last_heard});
    double under_way = 0;
    for (const coordinator::SlotView& slot : view.slots) {
        SlotStatus one;
        one.agent = slot.agent;
        one.slot = slot.slot;
        if (slot.item != coordinator::no_item) {
            one.id = id_of_item(slot.item);
            one.name = name_of_item(slot.item);
            one.seconds = slot.seconds;
            one.predicted = start_.plan.rows[slot.item].seconds;
            under_way += slot.fraction * one.predicted;
            const auto progress = progress_.find({slot.agent, slot.slot});
            if (progress != progress_.end()) {
                one.stage = progress->second.stage;
                one.step = progress->second.step;
                one.steps = progress->second.steps;
            }
        }
        status.slots.push_back(std::move(one));
    }
    pace_.sample(now, view.cost_done - start_.ledger.cost_done() + under_way, view.rendered_here);
    status.clips_per_hour = pace_.clips_per_hour();
    if (view.seconds_left < coordinator::forever) status.seconds_left = view.seconds_left;
    status.failures = failures_;
    status.updated = utc_text();
    return status;
}

void Driver::show(double now) {
    if (now < next_show_) return;
    next_show_ = now + show_seconds;
    try {
        journal_.flush();  // what counts is on disk
    } catch (const std::exception&) {
        return;  // the next step ends the run
    }
    const double begun = seconds_now();
    const RunStatus seen = status(now);
    write_status(start_.directory, seen);
    line_.show(seen, now);
    // Names of items that nobody works on any more.
    std::set<std::string_view> shown;
    for (const SlotStatus& slot : seen.slots) shown.insert(slot.id);
    std::erase_if(names_,
                  [&](const auto& entry) { return !shown.contains(id_of_item(entry.first)); });
    next_show_ = now + std::max(show_seconds, (seconds_now() - begun) / show_share);
}

void Driver::sign_off(double now) {
    const RunStatus seen = status(now);
    write_status(start_.directory, seen);
    line_.show(seen, now);
}

}  // namespace gallop
