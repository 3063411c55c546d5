#include "farm/coordinator.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "core/check.hpp"

namespace gallop::coordinator {
namespace {

constexpr double house_seconds = 0.5;

std::size_t bucket_count(const Ledger& ledger) {
    std::size_t count = 0;
    for (const WorkItem& item : ledger.items())
        count = std::max(count, item.bucket + std::size_t{1});
    return count;
}

}  // namespace

Coordinator::Coordinator(CoordinatorOptions options, Ledger ledger)
    : options_(std::move(options)),
      ledger_(std::move(ledger)),
      queue_(ledger_, options_.order),
      estimates_(bucket_count(ledger_)),
      holder_(ledger_.items().size(), no_slot),
      slots_on_(queue_.buckets().size(), 0) {
    CHECK(options_.chunk_items > 0, "chunk_items is {} (must be positive)", options_.chunk_items);
    CHECK(options_.attempts > 0, "attempts is {} (must be positive)", options_.attempts);
    CHECK(options_.silent_seconds > 0, "silent_seconds is {} (must be positive)",
          options_.silent_seconds);
    CHECK(options_.resume_above >= options_.pause_below, "resume_above is below pause_below");
    heed_limits();  // earlier attempts may have reached one
    settle_end();
}

void Coordinator::handle(const Event& event, double now) {
    now_ = std::max(now_, now);
    if (last_agent_ == forever) last_agent_ = now_;
    if (finished_) return;
    std::visit([this](const auto& one) { on(one); }, event);
    settle_end();
    if (hungry_) feed_idle();
}

void Coordinator::tick(double now) {
    now_ = std::max(now_, now);
    if (last_agent_ == forever) last_agent_ = now_;
    if (finished_ || now_ < next_house_) return;
    next_house_ = now_ + house_seconds;
    keep_house();
    settle_end();
    if (finished_) return;
    feed_idle();
    if (out_of_time_ && roster_.held() == 0)
        stop("what is left doesn't fit into the job's time", 0);
    settle_end();
}

std::vector<Action> Coordinator::take_actions() { return std::exchange(actions_, {}); }

void Coordinator::record(Record record) {
    ledger_.apply(record);
    actions_.push_back(std::move(record));
}

void Coordinator::notice(int agent, std::string text) {
    actions_.push_back(Notice{agent, std::move(text)});
}

/// A slot that held an item no longer does, for it failed.
void Coordinator::fail(SlotIndex index, const Held& held, FailureKind kind,
                       const std::string& error) {
    const Slot& slot = roster_.slots[index];
    Agent& agent = roster_.agents[slot.agent];
    ++agent.failed;
    if (holder_[held.item] != index) return;
    holder_[held.item] = no_slot;
    record({.what = Record::What::failed,
            .item = held.item,
            .agent = agent.number,
            .slot = slot.number,
            .attempt = held.attempt,
            .kind = kind,
            .host = ledger_.host_name(slot.host),
            .text = error});
    if (kind != FailureKind::out_of_memory)
        fared(slot.host, held.item, false, kind == FailureKind::disk);
    route(held.item);
    hungry_ = true;
}

/// What a slot held goes back; with `lost`, what it had begun counts as a try.
void Coordinator::give_back(SlotIndex index, const std::vector<Held>& held, bool lost,
                            const std::string& why) {
    const Slot& slot = roster_.slots[index];
    for (const Held& one : held) {
        if (holder_[one.item] != index) continue;
        holder_[one.item] = no_slot;
        record({.what = Record::What::released,
                .item = one.item,
                .agent = roster_.agents[slot.agent].number,
                .slot = slot.number,
                .attempt = one.attempt,
                .kind = lost && one.begun ? FailureKind::lost : FailureKind::error,
                .host = ledger_.host_name(slot.host),
                .text = why});
        route(one.item);
    }
    hungry_ = true;
}

/// The slot is no more; what it held.
std::vector<Held> Coordinator::close(SlotIndex index) {
    Slot& slot = roster_.slots[index];
    if (slot.bucket != no_item) --slots_on_[std::exchange(slot.bucket, no_item)];
    return roster_.close_slot(index);
}

void Coordinator::lose(Agent& agent, const std::string& why, bool orderly) {
    agent.state = Agent::State::lost;
    agent.coming = 0;
    record({.what = Record::What::lost,
            .agent = agent.number,
            .host = ledger_.host_name(agent.host),
            .text = why});
    const std::uint32_t index = *roster_.find(agent.number);
    roster_.count_pending(index);
    for (const SlotIndex one : agent.slots) {
        const std::vector<Held> held = close(one);
        give_back(one, held, !orderly, why);
    }
}

void Coordinator::stop(const std::string& why, double seconds_left) {
    if (finished_) return;
    const double at = now_ + std::max(0.0, seconds_left);
    if (!stopping_) {
        why_ = why;
        for (SlotIndex slot = 0; slot < roster_.slots.size(); ++slot) revoke_waiting(slot);
    }
    stopping_ = true;
    if (at >= stop_at_) return;
    stop_at_ = at;
    for (Slot& slot : roster_.slots) {
        Revoke revoke{roster_.agents[slot.agent].number, slot.number, {}, true};
        for (const Held& held : slot.held)
            if (held.begun && now_ + held.remaining(now_) > stop_at_)
                revoke.items.push_back(held.item);
        if (!revoke.items.empty()) actions_.push_back(std::move(revoke));
    }
}

/// Stops the run, with what it has begun done, once a limit of the whole run is reached.
void Coordinator::heed_limits() {
    const std::string reached = reached_limit(options_, ledger_);
    if (reached.empty()) return;
    at_limit_ = true;
    stop(reached, forever);
}

/// Ends the run once there is nothing left to do or to wait for.
void Coordinator::settle_end() {
    if (finished_) return;
    if (ledger_.open() == 0)
        finish(ledger_.quarantined() > 0 ? Outcome::quarantined : Outcome::complete, "");
    else if (stopping_ && (roster_.held() == 0 || now_ >= stop_at_))
        finish(Outcome::stopped, why_);
}

void Coordinator::finish(Outcome outcome, const std::string& why) {
    constexpr const char* names[] = {"complete", "quarantined", "stopped"};
    for (const Slot& slot : roster_.slots)
        for (const Held& held : slot.held)
            if (ledger_.item(held.item).state == ItemState::open)
                record({.what = Record::What::released,
                        .item = held.item,
                        .agent = roster_.agents[slot.agent].number,
                        .slot = slot.number,
                        .attempt = held.attempt,
                        .host = ledger_.host_name(slot.host),
                        .text = "the run stops"});
    record({.what = Record::What::ended, .text = names[static_cast<int>(outcome)]});
    for (Agent& agent : roster_.agents) {
        if (!agent.live()) continue;
        agent.state = Agent::State::stopped;
        actions_.push_back(StopAgent{agent.number});
    }
    actions_.push_back(Finished{outcome, why, outcome == Outcome::stopped && at_limit_});
    finished_ = true;
}

void Coordinator::keep_house() {
    bool anybody = false;
    for (Agent& agent : roster_.agents) {
        if (agent.live() && now_ - agent.heard > options_.silent_seconds)
            lose(agent, fmt::format("silent for {:.0f} s", now_ - agent.heard), false);
        anybody = anybody || usable(agent);
    }
    if (anybody) last_agent_ = now_;
    for (Slot& slot : roster_.slots)
        if (slot.ready) look_for_hung(slot);
    roster_.refresh([this](HostIndex host) { return estimates_.speed(host); }, now_);
    if (now_ - last_agent_ > options_.patience_seconds) stop("no agent is left", 0);
    if (now_ - disk_trouble_ > options_.patience_seconds) stop("nothing can be written", 0);
    if (now_ >= deadline_) stop("what is left doesn't fit into the job's time", 0);
    // Nobody works, though there is work: then scruples about hosts must wait.
    if (leasing() && roster_.held() == 0 && anybody)
        idle_since_ = std::min(idle_since_, now_);
    else
        idle_since_ = forever;
    desperate_ = now_ - idle_since_ > options_.silent_seconds;
    quarantine_impossible();
}

void Coordinator::look_for_hung(Slot& slot) {
    const double idle = now_ - slot.changed;
    if (slot.closing) {
        Agent& agent = roster_.agents[slot.agent];
        if (idle <= 10 * options_.silent_seconds || !agent.live()) return;
        lose(agent, fmt::format("slot {} doesn't end", slot.number), false);
        speaker(agent.number);
        return;
    }
    if (slot.held.empty()) return;
    if (std::none_of(slot.held.begin(), slot.held.end(),
                     [](const Held& one) { return one.begun; })) {
        if (idle > options_.hung_seconds)
            restart(slot, slot.held.front().item,
                    fmt::format("hung: nothing begun for {:.0f} s", idle));
        return;
    }
    for (const Held& held : slot.held) {
        const double elapsed = now_ - held.since;
        const double usual = std::max<double>(held.expected, held.whole());
        if (!held.begun || elapsed <= std::max(options_.hung_seconds, options_.hung_factor * usual))
            continue;
        restart(
            slot, held.item,
            fmt::format("hung: {:.0f} s where {:.0f} s were predicted", elapsed, held.expected));
        return;
    }
}

void Coordinator::restart(Slot& slot, ItemIndex item, std::string why) {
    slot.closing = true;
    slot.changed = now_;
    actions_.push_back(
        RestartSlot{roster_.agents[slot.agent].number, slot.number, item, std::move(why)});
}

Snapshot Coordinator::snapshot(double now) const {
    Snapshot view;
    view.state = finished_ ? "finished" : stopping_ ? "stopping" : paused_ ? "paused" : "running";
    view.why = why_;
    view.items = ledger_.items().size();
    view.done = ledger_.done();
    view.quarantined = ledger_.quarantined();
    view.rendered_here = rendered_here_;
    view.retried = retried_;
    view.cost_done = ledger_.cost_done();
    view.cost_total = ledger_.cost_total();
    double speed = 0;
    double latest = now;
    double work = 0;
    for (const Slot& slot : roster_.slots) {
        if (!slot.ready) continue;
        SlotView one{roster_.agents[slot.agent].number, slot.number, slot.gpus, no_item, 0, 0,
                     static_cast<int>(slot.held.size())};
        for (const Held& held : slot.held) {
            view.leased += ledger_.item(held.item).state == ItemState::open;
            work += held.remaining(now) * slot.speed * slot.gpus;
            latest = std::max(latest, now + held.remaining(now));
            if (!held.begun) continue;  // of one begun before, the files are being finished
            one.item = held.item;
            one.fraction = held.fraction;
            one.seconds = now - held.since;
        }
        speed += slot.speed * slot.gpus;
        view.slots.push_back(one);
    }
    view.open = ledger_.open() - view.leased;
    for (const WorkQueue::Bucket& bucket : queue_.buckets())
        work += bucket.seconds * estimates_.factor(bucket.bucket) * bucket.gpus;
    view.seconds_left = ledger_.open() == 0 ? 0
                        : speed > 0         ? std::max(work / speed, latest - now)
                                            : forever;
    for (const Agent& agent : roster_.agents) {
        if (agent.host == no_host) continue;  // spoke, but never joined
        AgentView one{agent.number,
                      ledger_.host_name(agent.host),
                      agent.device,
                      "working",
                      0,
                      agent.done,
                      agent.failed,
                      now - agent.heard};
        for (const SlotIndex slot : agent.slots) one.slots += roster_.slots[slot].ready ? 1 : 0;
        const bool suspect = agent.host < health_.size() && health_[agent.host].streak >= 3;
        one.state = agent.state == Agent::State::draining  ? "draining"
                    : agent.state == Agent::State::stopped ? "stopped"
                    : agent.state == Agent::State::lost    ? "lost"
                    : suspect                              ? "suspect"
                                                           : "working";
        view.agents.push_back(std::move(one));
    }
    return view;
}

}  // namespace gallop::coordinator
