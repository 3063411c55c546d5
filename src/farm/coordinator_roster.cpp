#include "farm/coordinator_roster.hpp"

#include <algorithm>

namespace gallop::coordinator {

double Held::whole() const {
    // The first percents are loading and warming up: no measure yet.
    if (fraction < 0.05) return expected;
    return (advanced - since) / fraction;
}

double Held::remaining(double now) const {
    if (!begun) return expected;
    return std::max(whole() - (now - since), 0.02 * expected);
}

Held* Slot::find(ItemIndex item) {
    const auto entry =
        std::find_if(held.begin(), held.end(), [=](const Held& one) { return one.item == item; });
    return entry == held.end() ? nullptr : &*entry;
}

bool Slot::waiting() const {
    return std::any_of(held.begin(), held.end(), [](const Held& one) { return !one.begun; });
}

std::uint32_t Roster::enter(int number) {
    const auto [entry, fresh] =
        index_.try_emplace(number, static_cast<std::uint32_t>(agents.size()));
    if (fresh) {
        agents.push_back({});
        agents.back().number = number;
    }
    return entry->second;
}

std::optional<std::uint32_t> Roster::find(int number) const {
    const auto entry = index_.find(number);
    if (entry == index_.end()) return std::nullopt;
    return entry->second;
}

SlotIndex Roster::find_slot(std::uint32_t agent, int number) const {
    for (const SlotIndex slot : agents[agent].slots)
        if (slots[slot].number == number) return slot;
    return no_slot;
}

SlotIndex Roster::open_slot(std::uint32_t agent, int number, int gpus, double speed, double now) {
    SlotIndex index = find_slot(agent, number);
    if (index == no_slot) {
        index = static_cast<SlotIndex>(slots.size());
        slots.push_back({});
        slots.back().agent = agent;
        slots.back().number = number;
        agents[agent].slots.push_back(index);
    }
    Slot& slot = slots[index];
    slot.gpus = gpus;
    slot.ready = true;
    slot.closing = false;
    slot.host = agents[agent].host;
    slot.bucket = no_item;
    slot.speed = speed;
    slot.changed = now;
    enter_pool(slot, now);
    count_pending(agent);
    return index;
}

std::vector<Held> Roster::close_slot(SlotIndex index) {
    Slot& slot = slots[index];
    if (!slot.ready) return {};
    leave_pool(slot);
    slot.ready = false;
    held_ -= slot.held.size();
    count_pending(slot.agent);
    return std::exchange(slot.held, {});
}

void Roster::add(SlotIndex index, Held held, double now) {
    leave_pool(slots[index]);
    slots[index].held.push_back(held);
    slots[index].changed = now;
    ++held_;
    enter_pool(slots[index], now);
}

Held Roster::take(SlotIndex index, ItemIndex item, double now) {
    Slot& slot = slots[index];
    leave_pool(slot);
    const auto entry = std::find_if(slot.held.begin(), slot.held.end(),
                                    [=](const Held& one) { return one.item == item; });
    const Held held = *entry;
    slot.held.erase(entry);
    slot.changed = now;
    --held_;
    enter_pool(slot, now);
    return held;
}

void Roster::settle(SlotIndex index, double now) {
    leave_pool(slots[index]);
    enter_pool(slots[index], now);
}

void Roster::enter_pool(Slot& slot, double now) {
    slot.until = now;
    for (const Held& held : slot.held) slot.until += held.remaining(now);
    slot.offers = std::any_of(slot.held.begin(), slot.held.end(),
                              [](const Held& one) { return !one.begun && !one.revoked; });
    Pool& pool = pools_[slot.gpus];
    ++pool.slots;
    pool.offers += slot.offers ? 1 : 0;
    pool.speed += slot.speed;
    pool.fastest = std::max(pool.fastest, slot.speed);
    if (slot.held.empty()) return;
    pool.busy += slot.speed;
    pool.area += slot.speed * slot.until;
    pool.latest = std::max(pool.latest, slot.until);
}

void Roster::leave_pool(const Slot& slot) {
    Pool& pool = pools_[slot.gpus];
    --pool.slots;
    pool.offers -= slot.offers ? 1 : 0;
    pool.speed -= slot.speed;
    if (slot.held.empty()) return;
    pool.busy -= slot.speed;
    pool.area -= slot.speed * slot.until;
}

void Roster::count_pending(std::uint32_t index) {
    Agent& agent = agents[index];
    pending_ -= agent.pending;
    agent.pending = 0;
    if (agent.state == Agent::State::working) {
        int ready = 0;
        for (const SlotIndex slot : agent.slots) ready += slots[slot].ready ? 1 : 0;
        agent.pending = std::max(0, agent.declared - ready);
    }
    pending_ += agent.pending;
}

}  // namespace gallop::coordinator
