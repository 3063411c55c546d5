// What the coordinator hears from agents, slots, the disk and the job, and what follows from it.
#include <algorithm>

#include <fmt/format.h>

#include "farm/coordinator.hpp"

namespace gallop::coordinator {
namespace {

std::string gigabytes(std::uint64_t bytes) {
    return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

}  // namespace

/// The agent if it is among us; else it is told to join anew, now and then.
Agent* Coordinator::speaker(int number) {
    const std::uint32_t index = roster_.enter(number);
    Agent& agent = roster_.agents[index];
    agent.heard = now_;
    if (agent.live()) return &agent;
    if (agent.state == Agent::State::stopped) return nullptr;
    if (now_ - agent.reset_at > options_.silent_seconds) {
        agent.reset_at = now_;
        actions_.push_back(ResetAgent{number});
    }
    return nullptr;
}

/// A ready slot of a live agent; else no_slot, and if that is odd, a notice.
SlotIndex Coordinator::slot_of(int number, int slot, std::string_view event) {
    const Agent* agent = speaker(number);
    if (agent == nullptr) return no_slot;
    const SlotIndex index = roster_.find_slot(*roster_.find(number), slot);
    if (index != no_slot && roster_.slots[index].ready) return index;
    notice(number, fmt::format("{} of slot {}, which isn't ready", event, slot));
    return no_slot;
}

void Coordinator::on(const AgentJoined& event) {
    const std::uint32_t index = roster_.enter(event.agent);
    if (roster_.agents[index].live()) lose(roster_.agents[index], "it joined anew", false);
    Agent& agent = roster_.agents[index];
    agent.heard = last_agent_ = now_;
    agent.host = ledger_.host(event.host);
    agent.device = event.device;
    agent.declared = event.slots;
    agent.gpus = event.gpus;
    agent.coming = 0;
    agent.state = Agent::State::working;
    agent.reset_at = -forever;
    impossible_ = forever;
    if (health(agent.host).drained) {
        agent.state = Agent::State::stopped;
        actions_.push_back(StopAgent{event.agent});
        notice(event.agent, fmt::format("joined from {}, which is drained", event.host));
        return;
    }
    roster_.count_pending(index);
    record({.what = Record::What::joined,
            .agent = event.agent,
            .slots = event.slots,
            .host = event.host,
            .text = event.device});
}

void Coordinator::on(const AgentHeard& event) { speaker(event.agent); }

void Coordinator::on(const AgentLeft& event) {
    const auto index = roster_.find(event.agent);
    if (!index) return;
    Agent& agent = roster_.agents[*index];
    if (agent.live()) lose(agent, event.why, event.orderly);
}

void Coordinator::on(const SlotReady& event) {
    Agent* agent = speaker(event.agent);
    if (agent == nullptr) return;
    const std::uint32_t index = *roster_.find(event.agent);
    if (event.gpus < 1) {
        notice(event.agent, fmt::format("slot {} has {} GPUs", event.slot, event.gpus));
        return;
    }
    if (const SlotIndex old = roster_.find_slot(index, event.slot);
        old != no_slot && roster_.slots[old].ready) {
        notice(event.agent, fmt::format("slot {} was ready already", event.slot));
        on(SlotGone{event.agent, event.slot});
    }
    if (agent->coming > 0 && agent->coming_gpus == event.gpus) --agent->coming;
    const SlotIndex slot =
        roster_.open_slot(index, event.slot, event.gpus, estimates_.speed(agent->host), now_);
    feed(slot);
}

void Coordinator::on(const SlotGone& event) {
    const SlotIndex index = slot_of(event.agent, event.slot, "end");
    if (index == no_slot) return;
    std::vector<Held> held = close(index);
    const auto begun =
        std::stable_partition(held.begin(), held.end(), [](const Held& one) { return !one.begun; });
    give_back(index, {held.begin(), begun}, false, "its slot ended");
    for (auto one = begun; one != held.end(); ++one)
        fail(index, *one, FailureKind::crash, "its slot ended");
    retire(roster_.agents[roster_.slots[index].agent]);
}

void Coordinator::on(const ItemStarted& event) {
    const SlotIndex index = slot_of(event.agent, event.slot, "start");
    if (index == no_slot) return;
    Held* held = roster_.slots[index].find(event.item);
    if (held == nullptr) {
        notice(event.agent,
               fmt::format("slot {} began item {}, which it doesn't hold", event.slot, event.item));
        actions_.push_back(Revoke{event.agent, event.slot, {event.item}, true});
        return;
    }
    if (held->begun) return;
    held->begun = true;
    held->since = held->advanced = roster_.slots[index].changed = now_;
    roster_.settle(index, now_);
    feed(index);
}

void Coordinator::on(const ItemProgress& event) {
    const SlotIndex index = slot_of(event.agent, event.slot, "progress");
    if (index == no_slot) return;
    Held* held = roster_.slots[index].find(event.item);
    if (held == nullptr || !(event.fraction > held->fraction)) return;
    held->fraction = std::min(event.fraction, 1.0);
    held->advanced = now_;
    roster_.settle(index, now_);
}

void Coordinator::on(const ItemDone& event) {
    if (event.item >= holder_.size()) {
        notice(event.agent, fmt::format("item {} is done, which there isn't", event.item));
        return;
    }
    const bool known = ledger_.item(event.item).state == ItemState::done;
    const Agent* agent = event.agent == no_agent ? nullptr : speaker(event.agent);
    const auto sender = roster_.find(event.agent);
    SlotIndex index = sender ? roster_.find_slot(*sender, event.slot) : no_slot;
    double predicted = 0;
    int attempt = 0;
    const bool holds = agent != nullptr && index != no_slot && roster_.slots[index].ready &&
                       roster_.slots[index].find(event.item) != nullptr;
    if (holds) {
        const Held held = roster_.take(index, event.item, now_);
        predicted = held.expected;
        attempt = held.attempt;
        if (holder_[event.item] == index) holder_[event.item] = no_slot;
    }
    if (!known) {
        if (const SlotIndex other = holder_[event.item]; other != no_slot) {
            // Somebody thought lost was faster: whoever has it now may drop it.
            holder_[event.item] = no_slot;
            const Slot& slot = roster_.slots[other];
            actions_.push_back(
                Revoke{roster_.agents[slot.agent].number, slot.number, {event.item}, true});
        } else if (!holds && ledger_.item(event.item).state == ItemState::open) {
            queue_.remove(event.item);
        }
        const HostIndex host = sender ? roster_.agents[*sender].host : no_host;
        record({.what = Record::What::done,
                .item = event.item,
                .agent = event.agent,
                .slot = event.slot,
                .attempt = attempt,
                .seconds = event.seconds,
                .predicted = predicted,
                .host = ledger_.host_name(host)});
        if (host != no_host) {
            ++rendered_here_;
            ++roster_.agents[*sender].done;
            const WorkItem& item = ledger_.item(event.item);
            if (holds) estimates_.measured(item.bucket, host, item.seconds, event.seconds);
            fared(host, event.item, true, false);
        } else {
            failed_on_.erase(event.item);
        }
        heed_limits();
    }
    if (holds) {
        retire(roster_.agents[roster_.slots[index].agent]);
        feed(index);
    }
}

void Coordinator::on(const ItemFailed& event) {
    const SlotIndex index = slot_of(event.agent, event.slot, "failure");
    if (index == no_slot) return;
    const Held* held = roster_.slots[index].find(event.item);
    if (held == nullptr || (event.attempt != 0 && event.attempt != held->attempt)) {
        notice(event.agent, fmt::format("slot {} failed item {}, which it doesn't hold: {}",
                                        event.slot, event.item, event.error));
        return;
    }
    fail(index, roster_.take(index, event.item, now_), event.kind, event.error);
    retire(roster_.agents[roster_.slots[index].agent]);
    feed(index);
}

void Coordinator::on(const ItemReturned& event) {
    const SlotIndex index = slot_of(event.agent, event.slot, "return");
    if (index == no_slot) return;
    if (roster_.slots[index].find(event.item) == nullptr) {
        notice(event.agent, fmt::format("slot {} returned item {}, which it doesn't hold",
                                        event.slot, event.item));
        return;
    }
    give_back(index, {roster_.take(index, event.item, now_)}, event.lost,
              event.lost ? "its renderer ended over another item" : "returned");
    retire(roster_.agents[roster_.slots[index].agent]);
    feed_idle();  // for whom it was asked back
    feed(index);
}

void Coordinator::on(const DiskFree& event) {
    if (!paused_ && event.bytes < options_.pause_below) {
        paused_ = true;
        why_ = fmt::format("{} free, below {}", gigabytes(event.bytes),
                           gigabytes(options_.pause_below));
        record({.what = Record::What::paused, .text = why_});
        actions_.push_back(PauseIntake{why_});
        for (SlotIndex slot = 0; slot < roster_.slots.size(); ++slot) revoke_waiting(slot);
    } else if (paused_ && event.bytes >= options_.resume_above) {
        paused_ = false;
        why_.clear();
        record({.what = Record::What::resumed});
        actions_.push_back(ResumeIntake{});
        hungry_ = true;
    }
}

void Coordinator::on(const TimeLeft& event) {
    deadline_ = now_ + event.seconds;
    hungry_ = true;
}

void Coordinator::on(const StopAsked& event) { stop(event.why, event.seconds_left); }

}  // namespace gallop::coordinator
