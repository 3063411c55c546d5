#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "farm/coordinator_ledger.hpp"
#include "farm/coordinator_queue.hpp"

namespace gallop::coordinator {

/// An item that a slot holds.
struct Held {
    ItemIndex item;
    int attempt;     ///< 1 for the first
    float expected;  ///< seconds, on this slot
    bool begun = false;
    bool revoked = false;  ///< asked back
    double since = 0;      ///< when it began
    double advanced = 0;   ///< when its fraction last grew
    double fraction = 0;

    /// Seconds it still needs.
    double remaining(double now) const;
    /// Seconds it will have taken in all, judged by its progress if it made any.
    double whole() const;
};

using SlotIndex = std::uint32_t;
inline constexpr SlotIndex no_slot = std::numeric_limits<SlotIndex>::max();

/// A renderer or a group of them.
struct Slot {
    std::uint32_t agent;  ///< index in the roster
    int number;           ///< the agent's
    int gpus = 0;
    bool ready = false;
    bool closing = false;  ///< being regrouped or restarted: no leases
    bool offers = false;   ///< holds something that has neither begun nor been asked back
    HostIndex host = no_host;
    std::uint32_t bucket = no_item;  ///< of the queue; what it rendered last
    std::vector<Held> held;          ///< in order
    double until = 0;                ///< expected end of what it holds
    double changed = 0;              ///< when what it holds, or does, last changed
    double speed = 1;

    Held* find(ItemIndex item);
    bool waiting() const;  ///< holds something that hasn't begun
};

struct Agent {
    enum class State : std::uint8_t { working, draining, stopped, lost };
    int number;
    HostIndex host = no_host;
    std::string device;
    State state = State::lost;
    int declared = 0;  ///< slots it means to have
    int pending = 0;   ///< of those, not ready
    int gpus = 0;
    int coming = 0;       ///< groups asked for by Regroup and not yet there
    int coming_gpus = 0;  ///< their size
    double heard = 0;
    double reset_at = -1e30;
    std::uint64_t done = 0;
    std::uint64_t failed = 0;
    std::vector<SlotIndex> slots;  ///< all it ever had

    bool live() const { return state == State::working || state == State::draining; }
};

/// All ready slots with groups of one size, and what they hold.
struct Pool {
    double speed = 0;  ///< sum
    double fastest = 0;
    double busy = 0;    ///< sum of speeds of those that hold something
    double area = 0;    ///< sum of speed × until of those
    double latest = 0;  ///< largest until
    int slots = 0;
    int offers = 0;  ///< slots that offer something
};

/// Agents and their slots, with sums by group size kept up to date.
class Roster {
public:
    /// The agent's entry, made if there is none.
    std::uint32_t enter(int number);
    std::optional<std::uint32_t> find(int number) const;
    /// no_slot if it never was announced.
    SlotIndex find_slot(std::uint32_t agent, int number) const;

    std::vector<Agent> agents;
    std::deque<Slot> slots;

    /// Makes a slot ready (again), holding nothing. `speed`: of its host.
    SlotIndex open_slot(std::uint32_t agent, int number, int gpus, double speed, double now);
    /// Takes it out of its pool; what it held is returned.
    std::vector<Held> close_slot(SlotIndex slot);
    void add(SlotIndex slot, Held held, double now);
    Held take(SlotIndex slot, ItemIndex item, double now);
    /// After what a slot holds has changed: its expected end, and its pool's sums.
    void settle(SlotIndex slot, double now);
    /// Everything anew, with `speed_of(host)`: once a second, against drift and overruns.
    template <class SpeedOf>
    void refresh(SpeedOf&& speed_of, double now) {
        for (auto& [gpus, pool] : pools_) pool = Pool{};
        for (Slot& slot : slots) {
            if (!slot.ready) continue;
            slot.speed = speed_of(slot.host);
            enter_pool(slot, now);
        }
    }

    const Pool& pool(int gpus) { return pools_[gpus]; }
    /// Slots that agents announced and that aren't ready yet.
    int pending() const { return pending_; }
    std::uint64_t held() const { return held_; }

    /// Works out the agent's `pending` after it or one of its slots came or went.
    void count_pending(std::uint32_t agent);

private:
    void enter_pool(Slot& slot, double now);
    void leave_pool(const Slot& slot);

    std::unordered_map<int, std::uint32_t> index_;
    std::map<int, Pool> pools_;
    int pending_ = 0;
    std::uint64_t held_ = 0;
};

}  // namespace gallop::coordinator
