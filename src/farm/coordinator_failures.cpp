// The coordinator's policy: what becomes of an item that failed, and of a host that fails.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "farm/coordinator.hpp"

namespace gallop::coordinator {
namespace {

/// Items that failed here and were done elsewhere, less half a success each: then it is the host.
constexpr double too_much_blame = 3;
constexpr int suspect_streak = 3;
constexpr int longest_rest = 4;  // doublings

}  // namespace

std::string too_often_lost(const Trouble& trouble, int attempts) {
    if (trouble.losses < 2 * attempts) return {};
    return fmt::format("was lost {} times with its agent or renderer", trouble.losses);
}

Coordinator::Health& Coordinator::health(HostIndex host) {
    if (host >= health_.size()) health_.resize(host + std::size_t{1});
    return health_[host];
}

bool Coordinator::usable(const Agent& agent) const { return agent.state == Agent::State::working; }

bool Coordinator::other_host(HostIndex host, int gpus) const {
    return std::any_of(roster_.agents.begin(), roster_.agents.end(), [&](const Agent& agent) {
        return usable(agent) && agent.host != host && agent.gpus >= gpus;
    });
}

int Coordinator::largest_group() const {
    int largest = 1;
    for (const Agent& agent : roster_.agents) largest = std::max(largest, agent.gpus);
    return largest;
}

/// The shape on the item's rung of the ladder; false if it has climbed all of it.
bool Coordinator::climb(ItemIndex item, Shape& shape) const {
    shape = {0, false, ledger_.item(item).gpus};
    const Trouble* trouble = ledger_.trouble(item);
    const int wanted = trouble == nullptr ? 0 : trouble->count(FailureKind::out_of_memory);
    for (const OomStep step : options_.on_oom) {
        if (shape.rung == wanted) break;
        if (step == OomStep::split) {
            if (shape.gpus * 2 > largest_group()) continue;
            shape.gpus *= 2;
        } else {
            shape.tiled_decode = true;
        }
        ++shape.rung;
    }
    return shape.rung == wanted;
}

/// Whether two hosts say so, or one that cannot be doubted, for there is no other. When the run was
/// planned every input could be read: what one host does not find may be there for the next.
bool Coordinator::wrong_request(const Trouble& trouble, int gpus) const {
    const auto said =
        std::find_if(trouble.failures.begin(), trouble.failures.end(),
                     [](const Trouble::Failure& one) { return one.kind == FailureKind::input; });
    if (said == trouble.failures.end()) return false;
    return trouble.hosts(FailureKind::input) > 1 || !other_host(said->host, gpus);
}

/// Why the item is not to be tried again; empty if it is.
std::string Coordinator::verdict(ItemIndex item) const {
    const Trouble* trouble = ledger_.trouble(item);
    if (trouble == nullptr) return {};
    Shape shape;
    const bool fits = climb(item, shape);
    if (wrong_request(*trouble, shape.gpus)) return "the request is wrong";
    if (!fits) return fmt::format("out of memory, {} steps tried (retry.on_oom)", shape.rung);
    if (options_.other_host && trouble->hosts() >= 2) return "failed on two hosts";
    if (trouble->counted() >= options_.attempts)
        return fmt::format("failed {} times (retry.attempts)", trouble->counted());
    return too_often_lost(*trouble, options_.attempts);
}

/// Puts an open item that nobody holds where it belongs: its bucket, or among those to be tried
/// again, or quarantine.
void Coordinator::route(ItemIndex item) {
    if (std::string why = verdict(item); !why.empty()) {
        quarantine(item, why);
        return;
    }
    const Trouble* trouble = ledger_.trouble(item);
    if (trouble == nullptr || trouble->failures.empty()) {
        queue_.put(item);
        return;
    }
    Shape shape;
    climb(item, shape);
    HostIndex avoid = no_host;
    for (const Trouble::Failure& failure : trouble->failures)
        if (failure.kind == FailureKind::input ||
            (failure.kind != FailureKind::out_of_memory && options_.other_host))
            avoid = failure.host;
    queue_.put_retry(item, shape, avoid);
}

void Coordinator::quarantine(ItemIndex item, const std::string& why) {
    const Trouble* trouble = ledger_.trouble(item);
    record({.what = Record::What::quarantined,
            .item = item,
            .attempt = trouble == nullptr ? 0 : trouble->tries(),
            .text = why});
    failed_on_.erase(item);
    // Hosts that agree on a wrong request are not to blame for it.
    if (trouble != nullptr && trouble->hosts(FailureKind::input) > 1)
        for (const Trouble::Failure& failure : trouble->failures) {
            if (failure.kind != FailureKind::input) continue;
            health(failure.host).streak = 0;
            health(failure.host).rest_until = 0;
            hungry_ = true;
        }
    heed_limits();
}

/// An item went well or badly on a host. A host that fails is given pauses; it is drained once items
/// that failed there were done elsewhere, for then they aren't to blame.
void Coordinator::fared(HostIndex host, ItemIndex item, bool well, bool disk) {
    if (well) {
        disk_trouble_ = forever;
        Health& here = health(host);
        here.streak = 0;
        here.blame = std::max(0.0, here.blame - 0.5);
        const auto [begin, end] = failed_on_.equal_range(item);
        std::vector<HostIndex> blamed;
        for (auto entry = begin; entry != end; ++entry)
            if (entry->second != host) blamed.push_back(entry->second);
        failed_on_.erase(item);
        for (const HostIndex other : blamed) {
            health(other).blame += 1;
            if (health(other).blame >= too_much_blame) consider_drain(other);
        }
        return;
    }
    const auto [begin, end] = failed_on_.equal_range(item);
    if (std::none_of(begin, end, [=](const auto& entry) { return entry.second == host; }))
        failed_on_.emplace(item, host);
    Health& here = health(host);
    ++here.streak;
    if (disk) disk_trouble_ = std::min(disk_trouble_, now_);
    const int over = disk ? here.streak - 1 : here.streak - suspect_streak;
    if (over >= 0 && (disk || other_host(host, 1)))
        here.rest_until = now_ + options_.suspect_seconds * std::exp2(std::min(over, longest_rest));
}

void Coordinator::consider_drain(HostIndex host) {
    if (health(host).drained || !other_host(host, 1)) return;
    drain(host, fmt::format("{:.0f} items that failed on {} were done elsewhere",
                            health(host).blame, ledger_.host_name(host)));
}

void Coordinator::drain(HostIndex host, const std::string& why) {
    health(host).drained = true;
    std::vector<ItemIndex> doubtful;
    for (const auto& [item, trouble] : ledger_.troubles())
        if (ledger_.item(item).state == ItemState::quarantined &&
            std::any_of(trouble.failures.begin(), trouble.failures.end(),
                        [=](const Trouble::Failure& one) { return one.host == host; }))
            doubtful.push_back(item);
    std::sort(doubtful.begin(), doubtful.end());
    record({.what = Record::What::drained, .host = ledger_.host_name(host), .text = why});
    for (const ItemIndex item : doubtful) {
        if (!verdict(item).empty()) continue;
        record({.what = Record::What::retry, .item = item});
        route(item);
    }
    for (Agent& agent : roster_.agents) {
        if (agent.host != host || !usable(agent)) continue;
        agent.state = Agent::State::draining;
        roster_.count_pending(*roster_.find(agent.number));
        actions_.push_back(DrainAgent{agent.number, why});
        for (const SlotIndex slot : agent.slots) revoke_waiting(slot);
        retire(agent);
    }
    hungry_ = true;
}

/// A draining agent that holds nothing any more may end.
void Coordinator::retire(Agent& agent) {
    if (agent.state != Agent::State::draining) return;
    for (const SlotIndex slot : agent.slots)
        if (!roster_.slots[slot].held.empty()) return;
    for (const SlotIndex slot : agent.slots) close(slot);
    agent.state = Agent::State::stopped;
    actions_.push_back(StopAgent{agent.number});
}

/// Items that want a larger group than any agent here can form, once nothing else is left. If one
/// that could is gone, the run stops, and may be resumed where it is back.
void Coordinator::quarantine_impossible() {
    const std::vector<int> sizes = queue_.sizes();
    int possible = 0;
    for (const Agent& agent : roster_.agents)
        if (usable(agent)) possible = std::max(possible, agent.gpus);
    if (!leasing() || possible == 0 || sizes.empty() || sizes.front() <= possible ||
        roster_.held() > 0) {
        impossible_ = forever;
        return;
    }
    impossible_ = std::min(impossible_, now_);
    if (now_ - impossible_ < 4 * options_.silent_seconds) return;  // some nodes come late
    if (sizes.front() <= largest_group()) {
        if (now_ - impossible_ > options_.patience_seconds)
            stop(fmt::format("no node with {} GPUs is left", sizes.front()), 0);
        return;
    }
    for (const int gpus : sizes) {
        const std::string why = fmt::format(
            "wants {} GPUs in one node; the largest node here has {}", gpus, largest_group());
        for (const std::uint32_t bucket : queue_.of_gpus(gpus))
            while (queue_.buckets()[bucket].count > 0) quarantine(queue_.pop(bucket), why);
        for (ItemIndex item; (item = queue_.retry_head(gpus, no_host, true)) != no_item;) {
            queue_.pop_retry(item);
            quarantine(item, why);
        }
    }
}

}  // namespace gallop::coordinator
