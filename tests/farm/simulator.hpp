#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "farm/coordinator_types.hpp"

namespace gallop::test {

/// An item as it really is; the coordinator knows only what is planned.
struct SimItem {
    float planned = 1;  ///< seconds
    float seconds = 1;  ///< on a node of speed 1
    std::uint16_t bucket = 0;
    std::uint8_t gpus = 1;
    enum class Kind : std::uint8_t {
        good,
        poison,     ///< fails wherever it is tried
        wrong,      ///< its request is wrong
        large,      ///< runs out of memory unless decoded in tiles
        larger,     ///< … unless split over twice the GPUs, too
        too_large,  ///< always
    } kind = Kind::good;
};

struct SimNode {
    std::string host;
    double speed = 1;
    int gpus = 1;
    double failing = 0;  ///< probability of an item's failure, for the host's sake
    double start = 0;    ///< when its agent joins
};

/// Everything a seed decides.
struct Scenario {
    std::uint64_t seed = 0;
    std::vector<SimItem> items;
    std::vector<SimNode> nodes;
    coordinator::CoordinatorOptions options;

    double load_seconds = 1;      ///< from a renderer's start until it is ready
    double longest_delay = 0.01;  ///< of a message; those of one agent keep their order
    double heartbeat = 2;
    double tick = 0.5;
    bool progress = false;  ///< renderers tell how far they are

    // Probabilities for each try of an item.
    double crash = 0;      ///< its renderer dies
    double hang = 0;       ///< it never ends
    double node_loss = 0;  ///< its node dies; half of them come back
    double partition = 0;  ///< its node is cut off for a while, rendering on
    double nonsense = 0;   ///< its agent says something that makes no sense, or says things twice
    // Of the whole run, at random moments.
    int restarts = 0;   ///< of coordinator and agents, from a prefix of the journal
    int stops = 0;      ///< asked for; then resumed
    int disk_full = 0;  ///< times that the disk fills up and is freed

    coordinator::ItemIndex watched = coordinator::no_item;  ///< printed: all that happens to it
};

struct SimReport {
    std::vector<std::string> broken;  ///< invariants; empty if all held
    double makespan = 0;              ///< until the last item was done, all attempts together
    double lower_bound = 0;           ///< no schedule ends sooner
    double efficiency = 0;            ///< useful work over what all slots could have done
    double tail_idle = 0;             ///< part of all slots' time after their last item
    double idle_bound = 0;            ///< part of all slots' time that no schedule could have used
    std::uint64_t done = 0, quarantined = 0, leases = 0, events = 0, switches = 0;
    std::uint64_t crashes = 0, losses = 0, partitions = 0, hangs = 0, adopted = 0, drained = 0;
    int attempts = 0;
    double coordinator_seconds = 0;  ///< of this machine's time, in the coordinator
    std::string last_why;            ///< of the last stop
};

/// Plays a run: nodes, renderers, disk and messages, around a real coordinator; restarts it from
/// its own records whenever it stops early. Checks, all the while, that no item is leased to two
/// live agents or rendered by two, that each is done once, and in the end that every item is done
/// or quarantined for something that really happened to it.
SimReport simulate(const Scenario& scenario);

/// No schedule can end sooner: each item at its length, each slot at its speed.
double lower_bound(const Scenario& scenario);

}  // namespace gallop::test
