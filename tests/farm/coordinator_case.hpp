#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "farm/coordinator.hpp"

namespace gallop::coordinator::test {

/// Open items of one bucket that take so long.
inline std::vector<WorkItem> items(const std::vector<float>& seconds, std::uint8_t gpus = 1) {
    std::vector<WorkItem> result;
    for (const float one : seconds) result.push_back({one, 0, gpus, ItemState::open});
    return result;
}

/// A coordinator, a clock, and all that it ever wanted done.
class Farm {
public:
    explicit Farm(std::vector<WorkItem> work, CoordinatorOptions options = {})
        : coordinator(std::move(options), Ledger(std::move(work))) {
        collect();
    }
    explicit Farm(Ledger ledger, CoordinatorOptions options = {})
        : coordinator(std::move(options), std::move(ledger)) {
        collect();
    }

    void tell(const Event& event) {
        coordinator.handle(event, now);
        collect();
    }
    /// Time passes; everybody who joined is heard of all the while, but for `silent`.
    void wait(double seconds, int silent = no_agent) {
        for (const double end = now + seconds; now < end;) {
            now = std::min(end, now + 1);
            for (const int agent : joined)
                if (agent != silent) tell(AgentHeard{agent});
            coordinator.tick(now);
            collect();
        }
    }
    void join(int agent, const std::string& host, int slots = 1, int gpus = 0) {
        joined.push_back(agent);
        tell(AgentJoined{agent, host, "cpu", slots, gpus == 0 ? slots : gpus});
        for (int slot = 0; slot < slots; ++slot) tell(SlotReady{agent, slot, 1});
    }
    /// The slot of an agent begins all that it holds, one after the other, and finishes it.
    void start(int agent, ItemIndex item, int slot = 0) { tell(ItemStarted{agent, slot, item}); }
    void finish(int agent, ItemIndex item, double seconds = 1, int slot = 0) {
        start(agent, item, slot);
        now += seconds;
        tell(ItemDone{agent, slot, item, seconds});
    }
    void fail(int agent, ItemIndex item, FailureKind kind = FailureKind::error, int slot = 0) {
        start(agent, item, slot);
        tell(ItemFailed{agent, slot, item, kind, "oh"});
    }

    template <class A>
    std::vector<A> all() const {
        std::vector<A> result;
        for (const Action& action : actions)
            if (const A* one = std::get_if<A>(&action)) result.push_back(*one);
        return result;
    }
    std::vector<Record> records(Record::What what) const {
        std::vector<Record> result;
        for (const Record& record : all<Record>())
            if (record.what == what) result.push_back(record);
        return result;
    }
    /// Items ever leased to an agent, in order.
    std::vector<ItemIndex> leased(int agent) const {
        std::vector<ItemIndex> result;
        for (const Lease& lease : all<Lease>())
            if (lease.agent == agent)
                for (const LeaseItem& item : lease.items) result.push_back(item.item);
        return result;
    }
    ItemState state(ItemIndex item) const { return coordinator.ledger().item(item).state; }
    std::string reason(ItemIndex item) const {
        for (const Record& record : records(Record::What::quarantined))
            if (record.item == item) return record.text;
        return {};
    }

    Coordinator coordinator;
    double now = 0;
    std::vector<int> joined;
    std::vector<Action> actions;

private:
    void collect() {
        for (Action& action : coordinator.take_actions()) actions.push_back(std::move(action));
    }
};

}  // namespace gallop::coordinator::test
