#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "farm/coordinator_estimates.hpp"
#include "farm/coordinator_ledger.hpp"
#include "farm/coordinator_queue.hpp"
#include "farm/coordinator_roster.hpp"
#include "farm/coordinator_types.hpp"

namespace gallop::coordinator {

/// Hands out a run's items and decides what becomes of them: a pure state machine. Events and the
/// clock go in, actions come out; it does no I/O, has no thread and no clock of its own.
///
/// An item is open, leased, done or quarantined. It is leased to at most one agent that isn't lost;
/// an agent is lost when it is silent, leaves or joins anew. What a lost agent finished nevertheless
/// counts if it is heard of before somebody else finishes it.
///
/// Events of one agent must come in the order in which it sent them; those of different agents may
/// come in any. Events that make no sense change nothing and are answered with a Notice.
///
///     Ledger ledger(items);                       // all open
///     for (const Record& r : journal) ledger.apply(r);
///     Coordinator coordinator(options, std::move(ledger));
///     coordinator.handle(event, now); coordinator.tick(now);
///     for (Action& action : coordinator.take_actions()) ...
class Coordinator {
public:
    /// Throws Error for options that make no sense.
    Coordinator(CoordinatorOptions options, Ledger ledger);

    /// Something happened. `now`: seconds since any moment; never goes back.
    void handle(const Event& event, double now);
    /// Time has passed: silence, hung items, pauses. A few times a second; cheap.
    void tick(double now);
    /// What is to be done, in order, since the last call.
    std::vector<Action> take_actions();

    bool finished() const { return finished_; }
    const Ledger& ledger() const { return ledger_; }
    Snapshot snapshot(double now) const;

private:
    /// How a host fares.
    struct Health {
        int streak = 0;  ///< failures since its last success
        double blame =
            0;  ///< items that failed here and were done elsewhere, less half a success each
        double rest_until = 0;  ///< no leases before
        bool drained = false;
    };

    // coordinator_events.cpp: what is heard, and what follows.
    void on(const AgentJoined& event);
    void on(const AgentHeard& event);
    void on(const AgentLeft& event);
    void on(const SlotReady& event);
    void on(const SlotGone& event);
    void on(const ItemStarted& event);
    void on(const ItemProgress& event);
    void on(const ItemDone& event);
    void on(const ItemFailed& event);
    void on(const ItemReturned& event);
    void on(const DiskFree& event);
    void on(const TimeLeft& event);
    void on(const StopAsked& event);
    Agent* speaker(int number);
    SlotIndex slot_of(int agent, int slot, std::string_view event);

    // coordinator.cpp: the clock, what a slot held, the agents' going, the end.
    void fail(SlotIndex slot, const Held& held, FailureKind kind, const std::string& error);
    void give_back(SlotIndex slot, const std::vector<Held>& held, bool lost,
                   const std::string& why);
    std::vector<Held> close(SlotIndex slot);
    void lose(Agent& agent, const std::string& why, bool orderly);
    void stop(const std::string& why, double seconds_left);
    void heed_limits();
    void finish(Outcome outcome, const std::string& why);
    void settle_end();
    void keep_house();
    void look_for_hung(Slot& slot);
    void restart(Slot& slot, ItemIndex item, std::string why);
    void record(Record record);
    void notice(int agent, std::string text);

    // coordinator_leases.cpp: who gets what.
    struct Pick {
        ItemIndex item = no_item;
        std::uint32_t bucket = no_item;  ///< none: an item tried again
    };
    struct Load {
        std::uint32_t bucket;
        ItemIndex item;  ///< its first
        double head;     ///< seconds of that on a host of speed 1
        double work;     ///< seconds of all of it
    };
    bool leasing() const { return !finished_ && !stopping_ && !paused_; }
    void feed(SlotIndex slot);
    void feed_idle();
    double weigh(int gpus);
    Pick choose(const Slot& slot, bool idle);
    ItemIndex choose_retry(const Slot& slot);
    Pick choose_in_order(const Slot& slot);
    Pick choose_longest(const Slot& slot, bool idle);
    bool better_here(const Slot& slot, double head) const;
    bool in_time(double seconds) const;
    double seconds_on(const Slot& slot, ItemIndex item) const;
    bool take(SlotIndex slot, const Pick& pick, Lease& lease);
    void steal(SlotIndex slot);
    void regroup(SlotIndex slot);
    void revoke_waiting(SlotIndex slot);
    bool busy(HostIndex host) const;

    // coordinator_failures.cpp: what becomes of an item, and of a host.
    bool wrong_request(const Trouble& trouble, int gpus) const;
    std::string verdict(ItemIndex item) const;
    bool climb(ItemIndex item, Shape& shape) const;
    void route(ItemIndex item);
    void quarantine(ItemIndex item, const std::string& why);
    void fared(HostIndex host, ItemIndex item, bool well, bool disk);
    void consider_drain(HostIndex host);
    void drain(HostIndex host, const std::string& why);
    void retire(Agent& agent);
    void quarantine_impossible();
    bool usable(const Agent& agent) const;
    bool other_host(HostIndex host, int gpus) const;
    int largest_group() const;
    Health& health(HostIndex host);

    CoordinatorOptions options_;
    Ledger ledger_;
    WorkQueue queue_;
    Estimates estimates_;
    Roster roster_;
    std::vector<SlotIndex> holder_;        ///< of each item
    std::vector<std::uint32_t> slots_on_;  ///< by the queue's bucket
    std::vector<Health> health_;
    std::unordered_multimap<ItemIndex, HostIndex> failed_on_;  ///< until done or quarantined
    std::vector<Load> loads_;                                  ///< of `weigh`
    std::vector<Action> actions_;

    double now_ = 0;
    double next_house_ = 0;
    double deadline_ = forever;      ///< of the job
    double stop_at_ = forever;       ///< when stopping
    double last_agent_ = forever;    ///< when there was one last
    double disk_trouble_ = forever;  ///< since when there are disk errors and no success
    double impossible_ = forever;    ///< since when nobody can take what is open
    double idle_since_ = forever;    ///< since when nobody holds anything
    bool desperate_ = false;         ///< that has been so for long
    bool hungry_ = false;            ///< idle slots may find work now
    bool out_of_time_ = false;       ///< an idle slot was refused something, last
    bool paused_ = false;
    bool stopping_ = false;
    bool at_limit_ = false;
    bool finished_ = false;
    std::string why_;  ///< of a pause or a stop
    std::uint64_t rendered_here_ = 0;
    std::uint64_t retried_ = 0;
};

}  // namespace gallop::coordinator
