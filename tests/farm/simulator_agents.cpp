// What the simulated nodes do: messages, renderers, their deaths, and nonsense.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "tests/farm/simulation.hpp"

namespace gallop::test::simulation {

void Simulator::send_up(std::uint32_t n, Event event, int round) {
    Node& node = nodes_[n];
    node.up.push_back(std::move(event));
    node.up_round.push_back(round);
    node.last_up = std::max({node.last_up, now_ + delay(), node.cut_until});
    happen(node.last_up, What::up, n, 0, static_cast<std::uint64_t>(report_.attempts));
}

void Simulator::send_down(int agent, Action action, int round) {
    Node& node = nodes_[static_cast<std::size_t>(agent)];
    node.down.emplace_back(std::move(action), round);
    node.last_down = std::max({node.last_down, now_ + delay(), node.cut_until});
    happen(node.last_down, What::down, static_cast<std::uint32_t>(agent), 0,
           static_cast<std::uint64_t>(report_.attempts));
}

void Simulator::deliver_up(std::uint32_t n) {
    Node& node = nodes_[n];
    const Event event = std::move(node.up.front());
    const int round = node.up_round.front();
    node.up.pop_front();
    node.up_round.pop_front();
    if (const auto* ready = std::get_if<SlotReady>(&event))
        known_round_[{ready->agent, ready->slot}] = round;
    if (std::holds_alternative<AgentJoined>(event))
        joining_life_ = static_cast<std::uint64_t>(round);
    note(event);
    tell(event);
    // What doesn't matter when it is said twice is said twice now and then.
    if (chance(s_.nonsense) &&
        (std::holds_alternative<ItemDone>(event) || std::holds_alternative<ItemStarted>(event) ||
         std::holds_alternative<ItemFailed>(event) || std::holds_alternative<SlotGone>(event)))
        tell(event);
}

void Simulator::deliver_down(std::uint32_t n) {
    Node& node = nodes_[n];
    auto [action, round] = std::move(node.down.front());
    node.down.pop_front();
    if (!node.alive) return;
    if (const auto* lease = std::get_if<Lease>(&action)) {
        SimSlot* slot = find(n, lease->slot);
        if (slot == nullptr || !slot->up || slot->round != round) return;
        for (const LeaseItem& one : lease->items) slot->queue.push_back({one, 0});
        if (!slot->busy) begin_next(n, *slot);
    } else if (const auto* revoke = std::get_if<Revoke>(&action)) {
        give_back(n, *revoke);
    } else if (const auto* restart = std::get_if<RestartSlot>(&action)) {
        SimSlot* slot = find(n, restart->slot);
        if (slot == nullptr || !slot->up) return;
        if (slot->busy && slot->current.lease.item == restart->item)
            fail(n, *slot, FailureKind::hung);
        end_slot(n, *slot, true);
    } else if (const auto* regroup = std::get_if<Regroup>(&action)) {
        form_groups(n, *regroup);
    } else if (std::holds_alternative<ResetAgent>(action)) {
        join(n);
    } else if (std::holds_alternative<StopAgent>(action)) {
        node.alive = false;
        ++node.life;
        drop_renders(n);
        send_up(n, AgentLeft{static_cast<int>(n), "stopped", true});
    }
}

void Simulator::join(std::uint32_t n) {
    Node& node = nodes_[n];
    const SimNode& plan = s_.nodes[n];
    drop_renders(n);
    node.alive = true;
    ++node.life;
    const int agent = static_cast<int>(n);
    send_up(n, AgentJoined{agent, plan.host, "sim", plan.gpus, plan.gpus},
            static_cast<int>(node.life));
    node.slots.assign(static_cast<std::size_t>(plan.gpus), SimSlot());
    for (int i = 0; i < plan.gpus; ++i) {
        SimSlot& slot = node.slots[static_cast<std::size_t>(i)];
        slot.number = i;
        slot.round = ++rounds_;
        happen(now_ + s_.load_seconds * (0.5 + uniform()), What::ready, n,
               static_cast<std::uint32_t>(i), token_for(slot));
    }
    happen(now_ + s_.heartbeat * uniform(), What::beat, n, 0, node.life);
}

SimSlot* Simulator::find(std::uint32_t n, int number) {
    for (SimSlot& slot : nodes_[n].slots)
        if (slot.number == number) return &slot;
    return nullptr;
}

void Simulator::begin_next(std::uint32_t n, SimSlot& slot) {
    if (slot.queue.empty() || slot.busy) return;
    slot.current = slot.queue.front();
    slot.queue.pop_front();
    slot.busy = true;
    slot.current.begun = now_;
    const ItemIndex index = slot.current.lease.item;
    const SimItem& item = s_.items[index];
    if (slot.bucket != item.bucket + 1U) ++report_.switches;
    slot.bucket = item.bucket + 1U;
    if (index == s_.watched) watch(fmt::format("begins on {}.{}", n, slot.number));
    check_alone(n, index);
    send_up(n, ItemStarted{static_cast<int>(n), slot.number, index});
    speak_nonsense(n);
    double seconds = item.seconds / s_.nodes[n].speed;
    ending_[{n, slot.number}] = ending(n, item, slot.current.lease, seconds);
    if (ending_[{n, slot.number}] == Ending::hang) return;
    const std::uint64_t token = token_for(slot);
    happen(now_ + seconds, What::end, n, static_cast<std::uint32_t>(slot.number), token);
    if (s_.progress)
        happen(now_ + seconds / 2, What::half, n, static_cast<std::uint32_t>(slot.number), token);
}

Simulator::Ending Simulator::ending(std::uint32_t n, const SimItem& item, const LeaseItem& lease,
                                    double& seconds) {
    using Kind = SimItem::Kind;
    if (item.kind == Kind::wrong) return seconds *= 0.01, Ending::input;
    const bool tiled = lease.tiled_decode;
    const bool split = lease.gpus >= 2 * item.gpus;
    if ((item.kind == Kind::large && !tiled) || (item.kind == Kind::larger && !(tiled && split)) ||
        item.kind == Kind::too_large)
        return seconds *= 0.2, Ending::out_of_memory;
    if (chance(s_.nodes[n].failing))
        return seconds *= 0.1, chance(0.5) ? Ending::error : Ending::crash;
    if (item.kind == Kind::poison)
        return seconds *= uniform(), chance(0.5) ? Ending::error : Ending::crash;
    if (chance(s_.crash)) return seconds *= uniform(), Ending::crash;
    if (chance(s_.hang)) return Ending::hang;
    if (chance(s_.node_loss)) return seconds *= uniform(), Ending::node_loss;
    if (chance(s_.partition)) {
        ++report_.partitions;
        watch(fmt::format("node {} is cut off", n));
        nodes_[n].cut_until = now_ + s_.options.silent_seconds * (0.2 + 3 * uniform());
    }
    return Ending::done;
}

void Simulator::end_item(std::uint32_t n, SimSlot& slot) {
    const ItemIndex item = slot.current.lease.item;
    switch (ending_[{n, slot.number}]) {
        case Ending::done:
            if (disk_full_ && chance(0.5)) {
                fail(n, slot, FailureKind::disk);
                break;
            }
            on_disk_[item] = true;
            renders_[item].erase({static_cast<int>(n), nodes_[n].life});
            slot.busy = false;
            slot.last_end = now_;
            useful_ += now_ - slot.current.begun;
            send_up(n, ItemDone{static_cast<int>(n), slot.number, item, now_ - slot.current.begun});
            break;
        case Ending::error: fail(n, slot, FailureKind::error); break;
        case Ending::input: fail(n, slot, FailureKind::input); break;
        case Ending::out_of_memory: fail(n, slot, FailureKind::out_of_memory); break;
        case Ending::crash:
            ++report_.crashes;
            if (chance(0.5))
                fail(n, slot, FailureKind::crash);
            else
                ++inflicted_[item];
            end_slot(n, slot, true);
            return;
        case Ending::node_loss: lose_node(n); return;
        case Ending::hang: return;  // never
    }
    begin_next(n, slot);
}

void Simulator::fail(std::uint32_t n, SimSlot& slot, FailureKind kind) {
    const ItemIndex item = slot.current.lease.item;
    if (kind == FailureKind::hung) ++report_.hangs;
    ++inflicted_[item];
    renders_[item].erase({static_cast<int>(n), nodes_[n].life});
    slot.busy = false;
    slot.last_end = now_;
    send_up(n, ItemFailed{static_cast<int>(n), slot.number, item, kind, "simulated",
                          slot.current.lease.attempt});
}

void Simulator::end_slot(std::uint32_t n, SimSlot& slot, bool comes_back) {
    if (slot.busy) renders_[slot.current.lease.item].erase({static_cast<int>(n), nodes_[n].life});
    slot.busy = false;
    slot.up = false;
    slot.queue.clear();
    slot.round = ++rounds_;
    token_for(slot);
    send_up(n, SlotGone{static_cast<int>(n), slot.number});
    if (comes_back)
        happen(now_ + s_.load_seconds * (0.5 + uniform()), What::ready, n,
               static_cast<std::uint32_t>(slot.number), slot.token);
}

void Simulator::give_back(std::uint32_t n, const Revoke& revoke) {
    SimSlot* slot = find(n, revoke.slot);
    if (slot == nullptr || !slot->up) return;
    for (const ItemIndex item : revoke.items) {
        const auto waiting =
            std::find_if(slot->queue.begin(), slot->queue.end(),
                         [=](const Task& task) { return task.lease.item == item; });
        if (waiting != slot->queue.end()) {
            slot->queue.erase(waiting);
        } else if (revoke.begun && slot->busy && slot->current.lease.item == item) {
            slot->busy = false;
            token_for(*slot);
            renders_[item].erase({static_cast<int>(n), nodes_[n].life});
        } else {
            continue;
        }
        send_up(n, ItemReturned{static_cast<int>(n), slot->number, item});
    }
    begin_next(n, *slot);
}

void Simulator::form_groups(std::uint32_t n, const Regroup& order) {
    std::vector<SimSlot>& slots = nodes_[n].slots;
    int gpus = 0;
    for (const int number : order.slots) {
        SimSlot* slot = find(n, number);
        if (slot == nullptr || !slot->up) return;  // meant for those of an earlier life
        if (slot->busy || !slot->queue.empty()) {
            broken(fmt::format("slot {}.{} is regrouped though it is not idle", n, number));
            return;
        }
        gpus += slot->gpus;
    }
    std::vector<int> numbers;
    for (const int number : order.slots) {
        end_slot(n, *find(n, number), false);
        std::erase_if(slots, [=](const SimSlot& slot) { return slot.number == number; });
    }
    for (int size = order.gpus; gpus > 0; gpus -= size) {
        if (gpus < size) size = 1;
        SimSlot slot;
        slot.number = 0;
        while (find(n, slot.number) != nullptr) ++slot.number;
        slot.gpus = size;
        slot.round = ++rounds_;
        const std::uint64_t token = token_for(slot);
        slots.push_back(slot);
        happen(now_ + s_.load_seconds * (0.5 + uniform()), What::ready, n,
               static_cast<std::uint32_t>(slot.number), token);
    }
}

void Simulator::drop_renders(std::uint32_t n) {
    for (SimSlot& slot : nodes_[n].slots) {
        if (slot.busy)
            renders_[slot.current.lease.item].erase({static_cast<int>(n), nodes_[n].life});
        slot.busy = false;
        slot.up = false;
        slot.queue.clear();
        token_for(slot);
    }
}

void Simulator::lose_node(std::uint32_t n) {
    ++report_.losses;
    watch(fmt::format("node {} dies", n));
    Node& node = nodes_[n];
    drop_renders(n);
    node.alive = false;
    ++node.life;
    if (chance(0.5))
        happen(now_ + s_.options.silent_seconds * 3 * uniform(), What::revive, n, 0, node.life);
}

void Simulator::speak_nonsense(std::uint32_t n) {
    if (!chance(s_.nonsense)) return;
    const int agent = static_cast<int>(n);
    const auto item = static_cast<ItemIndex>(uniform() * static_cast<double>(s_.items.size()) * 2);
    const int slot = 100 + static_cast<int>(uniform() * 5);  // which no agent has
    const int own = item < s_.items.size() ? slot : 0;       // or an item that there isn't
    switch (static_cast<int>(uniform() * 7)) {
        case 0: send_up(n, ItemStarted{agent, slot, item}); break;
        case 1: send_up(n, ItemReturned{agent, own, item}); break;
        case 2: send_up(n, ItemFailed{agent, own, item, FailureKind::error, "?", 0}); break;
        case 3: send_up(n, SlotGone{agent, slot}); break;
        case 4: send_up(n, ItemProgress{agent, own, item, std::nan("")}); break;
        case 5: send_up(n, AgentHeard{static_cast<int>(nodes_.size()) - 1}); break;
        default:
            send_up(n, ItemDone{agent, own, static_cast<ItemIndex>(s_.items.size()) + item, 1});
    }
}

}  // namespace gallop::test::simulation
