// The coordinator's choices: which items a slot gets, and what happens near the end.
#include <algorithm>
#include <cmath>

#include "farm/coordinator.hpp"

namespace gallop::coordinator {
namespace {

/// So many of the longest item's times before the end, order begins to matter.
constexpr double tail_items = 3;
/// In the tail, a slot stays on its bucket if its items are nearly the longest.
constexpr double nearly = 0.9;
/// What a slot holds, beyond what it renders when idle: at most this part of its share of the open
/// work, so that the others have enough left to end no sooner.
constexpr double share = 0.5;
/// A host that failed so many in a row gets one item at a time.
constexpr int suspect_streak = 3;

}  // namespace

double Coordinator::seconds_on(const Slot& slot, ItemIndex item) const {
    const WorkItem& work = ledger_.item(item);
    return work.seconds * estimates_.factor(work.bucket) / slot.speed;
}

bool Coordinator::in_time(double seconds) const { return now_ + seconds <= deadline_; }

/// Weighs the open buckets for groups of `gpus` into `loads_`; the sum of their work, in seconds on
/// a host of speed 1.
double Coordinator::weigh(int gpus) {
    loads_.clear();
    double sum = 0;
    for (const std::uint32_t index : queue_.of_gpus(gpus)) {
        const WorkQueue::Bucket& bucket = queue_.buckets()[index];
        if (bucket.count == 0) continue;
        const double factor = estimates_.factor(bucket.bucket);
        const ItemIndex head = queue_.head(index);
        loads_.push_back(
            {index, head, ledger_.item(head).seconds * factor, bucket.seconds * factor});
        sum += loads_.back().work;
    }
    return sum;
}

/// Leases to a slot that runs dry: what it is to render next, and some more.
void Coordinator::feed(SlotIndex index) {
    if (!leasing()) return;
    Slot& slot = roster_.slots[index];
    if (!slot.ready || slot.closing || slot.waiting() || !usable(roster_.agents[slot.agent]))
        return;
    const bool idle = slot.held.empty();
    const Health& host = health(slot.host);
    const bool suspect = host.streak >= suspect_streak && other_host(slot.host, 1);
    if (now_ < host.rest_until || (suspect && busy(slot.host))) return;

    Lease lease{roster_.agents[slot.agent].number, slot.number, {}};
    double first_room = forever;
    double room = 0;
    double leased = 0;
    bool retried = false;
    while (leasing() &&
           (lease.items.empty() || (!suspect && !retried &&
                                    static_cast<int>(lease.items.size()) < options_.chunk_items))) {
        const double work = weigh(slot.gpus);
        if (lease.items.empty()) {
            const double capacity = roster_.pool(slot.gpus).speed + roster_.pending();
            if (!idle) first_room = share * work / capacity - std::max(0.0, slot.until - now_);
            room = std::min(options_.chunk_seconds, share * work / capacity);
        }
        const Pick pick = choose(slot, idle && lease.items.empty());
        if (pick.item == no_item) break;
        const double seconds = seconds_on(slot, pick.item);
        if (lease.items.empty()) {
            if (pick.bucket != no_item && seconds > first_room) break;
        } else if (pick.bucket != slot.bucket || leased + seconds > room) {
            break;
        }
        if (!take(index, pick, lease)) continue;
        leased += seconds;
        retried = pick.bucket == no_item;
    }
    if (!lease.items.empty()) {
        actions_.push_back(std::move(lease));
        if (leasing()) return;
        // Choosing found an item for quarantine, which stopped the run: the lease came too late.
        for (Held& held : slot.held) held.revoked = false;
        revoke_waiting(index);
    } else if (idle && leasing()) {
        steal(index);
        regroup(index);
    }
}

void Coordinator::feed_idle() {
    hungry_ = out_of_time_ = false;
    for (SlotIndex slot = 0; slot < roster_.slots.size() && !finished_; ++slot)
        if (roster_.slots[slot].ready && roster_.slots[slot].held.empty()) feed(slot);
}

bool Coordinator::busy(HostIndex host) const {
    return std::any_of(roster_.slots.begin(), roster_.slots.end(), [=](const Slot& slot) {
        return slot.ready && slot.host == host && !slot.held.empty();
    });
}

/// `loads_` is of now. What failed before comes first: it must not be the last to end.
Coordinator::Pick Coordinator::choose(const Slot& slot, bool idle) {
    const ItemIndex again = choose_retry(slot);
    if (again != no_item) return {again, no_item};
    if (loads_.empty()) return {};
    return options_.order == Order::longest_first ? choose_longest(slot, idle)
                                                  : choose_in_order(slot);
}

ItemIndex Coordinator::choose_retry(const Slot& slot) {
    const bool elsewhere = !desperate_ && other_host(slot.host, slot.gpus);
    const ItemIndex item = queue_.retry_head(slot.gpus, slot.host, !elsewhere);
    if (item == no_item) return no_item;
    // What failed elsewhere shall not fail here for the host's sake; but that a request is wrong takes
    // a second host's word.
    const Trouble& trouble = *ledger_.trouble(item);
    if (elsewhere && health(slot.host).streak >= suspect_streak &&
        trouble.counted() > trouble.count(FailureKind::input))
        return no_item;
    if (in_time(seconds_on(slot, item))) return item;
    out_of_time_ = true;
    return no_item;
}

Coordinator::Pick Coordinator::choose_in_order(const Slot& slot) {
    Pick best;
    for (const Load& load : loads_) {
        if (!in_time(load.head / slot.speed)) {
            out_of_time_ = true;
        } else if (best.item == no_item || queue_.before(load.item, best.item)) {
            best = {load.item, load.bucket};
        }
    }
    return best;
}

/// Far from the end any order is as good as any other, as long as the long items come first on the
/// whole: each bucket gets slots in proportion to its work, the longest first, and they stay with
/// it; as many short items as the end may need are kept for it. Near the end: the longest item that
/// this slot ends before the others end anyway.
Coordinator::Pick Coordinator::choose_longest(const Slot& slot, bool idle) {
    const Pool& pool = roster_.pool(slot.gpus);
    const double capacity = pool.speed + roster_.pending();
    double work = 0;
    double longest = 0;
    for (const Load& load : loads_) {
        work += load.work;
        longest = std::max(longest, load.head);
    }
    double filler = 0;  // what fits between the long items' ends
    for (const Load& load : loads_) filler += load.head < longest / 2 ? load.work : 0;
    const bool reserve = filler < longest * capacity;
    const double in_flight = std::max(0.0, pool.area - now_ * pool.busy);
    const double share_of_all = (work + in_flight) / capacity;
    const double horizon = std::max({share_of_all, pool.latest - now_, longest / pool.fastest});
    const bool far = share_of_all >= tail_items * longest;

    const Load* stay = nullptr;    // its own bucket
    const Load* wanted = nullptr;  // the longest that wants more slots
    const Load* any = nullptr;     // the longest
    const Load* least = nullptr;   // the shortest, if all would end too late here
    for (const Load& load : loads_) {
        if (!in_time(load.head / slot.speed)) {
            out_of_time_ = true;
            continue;
        }
        if (least == nullptr || load.head < least->head) least = &load;
        if (load.head / slot.speed > horizon * (1 + 1e-9)) continue;
        const bool kept = reserve && load.head < longest / 2;
        if (load.bucket == slot.bucket && !kept) stay = &load;
        if (any == nullptr || load.head > any->head) any = &load;
        const double quota = std::ceil(load.work / work * pool.slots);
        if (!kept && slots_on_[load.bucket] < quota &&
            (wanted == nullptr || load.head > wanted->head))
            wanted = &load;
    }
    const Load* best = any;
    if (stay != nullptr && (far || stay->head >= nearly * any->head))
        best = stay;
    else if (far && wanted != nullptr)
        best = wanted;
    if (best == nullptr && idle && least != nullptr && better_here(slot, least->head)) best = least;
    if (best == nullptr) return {};
    return {best->item, best->bucket};
}

/// Whether an item of `head` seconds ends here no later than on a slot that is busy now.
bool Coordinator::better_here(const Slot& slot, double head) const {
    const double here = now_ + head / slot.speed;
    return std::none_of(roster_.slots.begin(), roster_.slots.end(), [&](const Slot& other) {
        return other.ready && !other.closing && other.gpus == slot.gpus &&
               other.speed > slot.speed && std::max(now_, other.until) + head / other.speed < here;
    });
}

/// Moves an item from the queue into a lease; false if it belongs elsewhere, where it is now.
bool Coordinator::take(SlotIndex index, const Pick& pick, Lease& lease) {
    Slot& slot = roster_.slots[index];
    const Trouble* trouble = ledger_.trouble(pick.item);
    Shape shape{0, false, slot.gpus};
    if (pick.bucket == no_item) {
        shape = queue_.pop_retry(pick.item);
    } else {
        queue_.pop(pick.bucket);
        // An earlier attempt of the run has tried it.
        if (trouble != nullptr && !trouble->failures.empty()) {
            route(pick.item);
            return false;
        }
        if (slot.bucket != pick.bucket) {
            if (slot.bucket != no_item) --slots_on_[slot.bucket];
            slot.bucket = pick.bucket;
            ++slots_on_[slot.bucket];
        }
    }
    Held held;
    held.item = pick.item;
    held.attempt = trouble == nullptr ? 1 : trouble->tries() + 1;
    held.expected = static_cast<float>(seconds_on(slot, pick.item));
    retried_ += held.attempt > 1 ? 1 : 0;
    holder_[pick.item] = index;
    roster_.add(index, held, now_);
    lease.items.push_back(
        {pick.item, held.attempt, shape.rung, shape.tiled_decode, shape.gpus, held.expected});
    record({.what = Record::What::leased,
            .item = pick.item,
            .agent = lease.agent,
            .slot = lease.slot,
            .attempt = held.attempt,
            .predicted = held.expected,
            .host = ledger_.host_name(slot.host)});
    return true;
}

/// An idle slot asks for the last waiting item of the slot that ends last, if that is worth it.
void Coordinator::steal(SlotIndex index) {
    const Slot& slot = roster_.slots[index];
    if (roster_.pool(slot.gpus).offers == 0) return;
    Slot* victim = nullptr;
    for (Slot& other : roster_.slots)
        if (other.ready && other.gpus == slot.gpus && other.offers &&
            (victim == nullptr || other.until > victim->until))
            victim = &other;
    if (victim == nullptr) return;
    const auto last = std::find_if(victim->held.rbegin(), victim->held.rend(),
                                   [](const Held& one) { return !one.begun && !one.revoked; });
    const double seconds = seconds_on(slot, last->item);
    if (now_ + seconds >= victim->until || !better_here(slot, seconds * slot.speed)) return;
    last->revoked = true;
    actions_.push_back(
        Revoke{roster_.agents[victim->agent].number, victim->number, {last->item}, false});
    roster_.settle(static_cast<SlotIndex>(roster_.find_slot(victim->agent, victim->number)), now_);
}

/// Where there is no work for groups of an idle slot's size, but for others that its agent can form:
/// asks for such a group, no more of them than items.
void Coordinator::regroup(SlotIndex index) {
    const int old = roster_.slots[index].gpus;
    Agent& agent = roster_.agents[roster_.slots[index].agent];
    if (agent.coming > 0 || queue_.count(old) > 0) return;
    for (const int gpus : queue_.sizes()) {
        if (gpus == old || gpus > agent.gpus) continue;
        std::size_t supply = 0;
        for (const Agent& other : roster_.agents)
            if (other.live() && other.coming_gpus == gpus)
                supply += static_cast<std::size_t>(other.coming);
        for (const Slot& slot : roster_.slots)
            supply += slot.ready && slot.gpus == gpus && slot.held.empty() ? 1 : 0;
        const std::size_t demand = queue_.count(gpus);
        if (supply >= demand && !desperate_) continue;
        Regroup order{agent.number, {}, gpus};
        const int wanted = static_cast<int>(std::min<std::size_t>(demand - supply, 1024)) * gpus;
        int found = 0;
        for (const SlotIndex one : agent.slots) {
            const Slot& slot = roster_.slots[one];
            if (!slot.ready || slot.closing || !slot.held.empty() || queue_.count(slot.gpus) > 0)
                continue;
            if (found >= wanted) break;
            found += slot.gpus;
            order.slots.push_back(slot.number);
        }
        if (found < gpus) continue;
        for (const int number : order.slots) {
            Slot& slot = roster_.slots[roster_.find_slot(*roster_.find(agent.number), number)];
            slot.closing = true;
            slot.changed = now_;
        }
        agent.coming = found / gpus;
        agent.coming_gpus = gpus;
        actions_.push_back(std::move(order));
        return;
    }
}

void Coordinator::revoke_waiting(SlotIndex index) {
    Slot& slot = roster_.slots[index];
    if (!slot.ready) return;
    Revoke revoke{roster_.agents[slot.agent].number, slot.number, {}, false};
    for (Held& held : slot.held) {
        if (held.begun || held.revoked) continue;
        held.revoked = true;
        revoke.items.push_back(held.item);
    }
    if (revoke.items.empty()) return;
    roster_.settle(index, now_);
    actions_.push_back(std::move(revoke));
}

}  // namespace gallop::coordinator
