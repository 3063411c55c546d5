#include "tests/farm/simulator.hpp"

#include <cmath>
#include <cstdlib>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "farm/coordinator.hpp"

namespace gallop::test {
namespace {

using coordinator::Order;

// With a sanitizer everything takes ten times as long, and the heap is not what it is.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

/// GALLOP_SIMULATOR_SEED runs one seed alone and tells about it.
std::uint64_t first_seed() {
    const char* seed = std::getenv("GALLOP_SIMULATOR_SEED");
    return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}
std::uint64_t last_seed(std::uint64_t usual) {
    return std::getenv("GALLOP_SIMULATOR_SEED") == nullptr ? usual : first_seed();
}

class Dice {
public:
    explicit Dice(std::uint64_t seed) : random_(seed * 7919 + 1) {}
    double real(double low, double high) {
        return std::uniform_real_distribution<double>(low, high)(random_);
    }
    int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
    bool chance(double p) { return real(0, 1) < p; }
    double normal() { return std::normal_distribution<double>(0, 1)(random_); }

private:
    std::mt19937_64 random_;
};

/// Items of some buckets of `low` to `high` seconds; the plan is wrong by a factor for each bucket
/// and by `noise` for each item.
std::vector<SimItem> make_items(Dice& dice, int count, int buckets, double low, double high,
                                double noise) {
    std::vector<double> seconds;
    std::vector<double> wrong;
    for (int i = 0; i < buckets; ++i) {
        seconds.push_back(low * std::pow(high / low, dice.real(0, 1)));
        wrong.push_back(std::exp(0.3 * dice.normal()));
    }
    std::vector<SimItem> items;
    for (int i = 0; i < count; ++i) {
        const auto bucket = static_cast<std::uint16_t>(dice.whole(0, buckets - 1));
        SimItem item;
        item.bucket = bucket;
        item.planned = static_cast<float>(seconds[bucket] * dice.real(0.9, 1.1));
        item.seconds =
            static_cast<float>(item.planned * wrong[bucket] * std::exp(noise * dice.normal()));
        items.push_back(item);
    }
    return items;
}

/// A few hundred items and everything that can go wrong, by the seed.
Scenario any_scenario(std::uint64_t seed) {
    Dice dice(seed);
    Scenario s;
    s.seed = seed;
    s.items = make_items(dice, dice.whole(150, 400), dice.whole(1, 12), 1, 60, 0.1);
    const int hosts = dice.whole(1, 8);
    const int agents_per_host = dice.chance(0.2) ? 2 : 1;
    const int gpus = 1 << dice.whole(0, 3);
    for (int i = 0; i < hosts * agents_per_host; ++i)
        s.nodes.push_back({fmt::format("n{}", i / agents_per_host), std::exp(0.3 * dice.normal()),
                           dice.chance(0.8) ? gpus : 1, 0,
                           dice.chance(0.8) ? 0 : dice.real(0, 30)});
    if (hosts > 2 && dice.chance(0.3)) s.nodes[0].failing = dice.real(0.7, 1);
    const auto some = [&](SimItem::Kind kind, double part) {
        for (SimItem& item : s.items)
            if (dice.chance(part)) item.kind = kind;
    };
    if (dice.chance(0.4)) some(SimItem::Kind::poison, dice.real(0, 0.1));
    if (dice.chance(0.2)) some(SimItem::Kind::wrong, 0.03);
    if (dice.chance(0.3)) some(SimItem::Kind::large, 0.1);
    if (dice.chance(0.3)) some(SimItem::Kind::larger, 0.03);
    if (dice.chance(0.2)) some(SimItem::Kind::too_large, 0.02);
    if (dice.chance(0.2)) {
        const int group = 1 << dice.whole(1, 2);
        for (SimItem& item : s.items)
            if (item.bucket % 3 == 1) item.gpus = static_cast<std::uint8_t>(group);
    }

    auto& options = s.options;
    options.order = dice.chance(0.8)   ? Order::longest_first
                    : dice.chance(0.5) ? Order::manifest
                                       : Order::preview;
    options.chunk_seconds = dice.real(5, 60);
    options.attempts = dice.whole(1, 4);
    options.other_host = dice.chance(0.8);
    options.silent_seconds = 10;
    options.hung_seconds = 300;
    options.patience_seconds = 120;
    options.pause_below = 1'000'000'000;
    options.resume_above = 2'000'000'000;
    s.longest_delay = dice.chance(0.5) ? 0.02 : 1;
    s.progress = dice.chance(0.3);
    if (dice.chance(0.4)) s.crash = dice.real(0, 0.05);
    if (dice.chance(0.3)) s.hang = dice.real(0, 0.02);
    if (dice.chance(0.4)) s.node_loss = dice.real(0, 0.02);
    if (dice.chance(0.4)) s.partition = dice.real(0, 0.02);
    if (dice.chance(0.3)) s.nonsense = 0.2;
    if (dice.chance(0.3)) s.restarts = dice.whole(1, 4);
    if (dice.chance(0.2)) s.stops = dice.whole(1, 2);
    if (dice.chance(0.2)) s.disk_full = dice.whole(1, 3);
    return s;
}

std::string text(const SimReport& r) {
    return fmt::format(
        "makespan {:.1f} s (at least {:.1f}), efficiency {:.3f}, tail idle {:.4f}; done {}, "
        "quarantined "
        "{}; {} leases, {} switches, {} events; {} attempts, {} crashes, {} losses, {} partitions, "
        "{} "
        "hangs, {} adopted, {} drained; coordinator {:.3f} s; {}",
        r.makespan, r.lower_bound, r.efficiency, r.tail_idle, r.done, r.quarantined, r.leases,
        r.switches, r.events, r.attempts, r.crashes, r.losses, r.partitions, r.hangs, r.adopted,
        r.drained, r.coordinator_seconds, r.last_why);
}

TEST(Simulator, LosesNothingAndDoesNothingTwiceWhateverHappens) {
    SimReport sum;
    for (std::uint64_t seed = first_seed(); seed <= last_seed(sanitized ? 200 : 1200); ++seed) {
        Scenario scenario = any_scenario(seed);
        if (const char* item = std::getenv("GALLOP_SIMULATOR_ITEM"))
            scenario.watched = static_cast<coordinator::ItemIndex>(std::atoi(item));
        const SimReport report = simulate(scenario);
        for (const std::string& broken : report.broken)
            ADD_FAILURE() << "GALLOP_SIMULATOR_SEED=" << seed << ": " << broken;
        if (HasFailure()) {
            fmt::print("{}\n", text(report));
            break;
        }
        sum.done += report.done;
        sum.quarantined += report.quarantined;
        sum.crashes += report.crashes;
        sum.losses += report.losses;
        sum.partitions += report.partitions;
        sum.hangs += report.hangs;
        sum.adopted += report.adopted;
        sum.drained += report.drained;
        sum.attempts += report.attempts;
        sum.events += report.events;
        sum.leases += report.leases;
        sum.coordinator_seconds += report.coordinator_seconds;
        if (first_seed() == last_seed(0)) fmt::print("{}\n", text(report));
    }
    fmt::print("all seeds: {}\n", text(sum));
}

/// A load without failures: sixty items a slot, of 2 to 60 seconds.
Scenario quiet_scenario(std::uint64_t seed) {
    Dice dice(seed);
    Scenario s;
    s.seed = seed;
    s.longest_delay = 0.002;
    s.load_seconds = 0.1;
    s.tick = 0.25;
    const int nodes = dice.whole(1, 6);
    int slots = 0;
    for (int i = 0; i < nodes; ++i) {
        s.nodes.push_back(
            {fmt::format("n{}", i), std::exp(0.3 * dice.normal()), 1 << dice.whole(0, 2), 0, 0});
        slots += s.nodes.back().gpus;
    }
    s.items = make_items(dice, std::max(400, slots * 60), dice.whole(3, 12), 2, 60, 0.03);
    return s;
}

TEST(Simulator, EndsWithinFivePercentOfTheLowerBoundWithoutFailures) {
    constexpr int seeds = sanitized ? 20 : 200;
    double sum = 0;
    double worst = 0;
    double idle = 0;
    double worst_idle = 0;
    for (std::uint64_t seed = first_seed(); seed <= last_seed(seeds); ++seed) {
        const SimReport report = simulate(quiet_scenario(seed));
        const std::string which = fmt::format("GALLOP_SIMULATOR_SEED={}: {}", seed, text(report));
        EXPECT_TRUE(report.broken.empty()) << which;
        const double ratio = report.makespan / report.lower_bound;
        EXPECT_LE(ratio, 1.05) << which;
        // Besides what no schedule avoids: items are whole.
        EXPECT_LE(report.tail_idle, 0.02 + report.idle_bound) << which;
        sum += ratio;
        worst = std::max(worst, ratio);
        idle += report.tail_idle;
        worst_idle = std::max(worst_idle, report.tail_idle);
    }
    fmt::print(
        "makespan over lower bound: mean {:.4f}, worst {:.4f}; tail idle: mean {:.4f}, worst "
        "{:.4f}\n",
        sum / seeds, worst, idle / seeds, worst_idle);
}

TEST(Simulator, IsEfficientOnEightAndSixtyFourNodes) {
    for (const auto& [nodes, least] : {std::pair{8, 0.97}, std::pair{64, 0.95}}) {
        Dice dice(static_cast<std::uint64_t>(nodes));
        Scenario s;
        s.seed = 1;
        s.load_seconds = 40;  // of the models
        s.crash = 1e-3;
        s.node_loss = 1e-5;
        s.options.silent_seconds = 30;
        for (int i = 0; i < nodes; ++i)
            s.nodes.push_back(
                {fmt::format("n{:02}", i), std::exp(0.05 * dice.normal()), 8, 0, dice.real(0, 20)});
        s.items = make_items(dice, nodes * 8 * 150, 16, 8, 120, 0.05);
        const SimReport report = simulate(s);
        EXPECT_TRUE(report.broken.empty()) << report.broken.front();
        EXPECT_GE(report.efficiency, least);
        fmt::print("{} nodes of 8 GPUs: {}\n", nodes, text(report));
    }
}

/// Bytes of the heap in use.
std::size_t heap_bytes() { return ::mallinfo2().uordblks; }

TEST(Simulator, ServesAMillionItemsOn1024Workers) {
    Dice dice(1);
    Scenario s;
    s.seed = 1;
    for (int i = 0; i < 128; ++i)
        s.nodes.push_back(
            {fmt::format("n{:03}", i), std::exp(0.1 * dice.normal()), 8, 0, dice.real(0, 60)});
    s.items = make_items(dice, sanitized ? 50'000 : 1'000'000, 40, 5, 300, 0.05);
    s.node_loss = 2e-6;
    s.crash = 1e-5;
    s.heartbeat = 100;
    s.tick = 5;
    s.options.silent_seconds = 400;
    s.options.hung_seconds = 3600;

    const auto count = static_cast<double>(s.items.size());
    if (!sanitized) {
        std::vector<coordinator::WorkItem> work;
        for (const SimItem& item : s.items) work.push_back({item.planned, item.bucket, item.gpus});
        const std::size_t before = heap_bytes() - work.capacity() * sizeof(work[0]);
        const coordinator::Coordinator whole({}, coordinator::Ledger(std::move(work)));
        const double bytes = static_cast<double>(heap_bytes() - before) / count;
        fmt::print("{:.1f} bytes an item\n", bytes);
        EXPECT_LE(bytes, 64);
    }
    const SimReport report = simulate(s);
    EXPECT_TRUE(report.broken.empty()) << report.broken.front();
    EXPECT_EQ(report.done + report.quarantined, s.items.size());
    EXPECT_LE(report.makespan, 1.05 * report.lower_bound);
    const double microseconds = 1e6 * report.coordinator_seconds / count;
    fmt::print("{}; {:.2f} us an item\n", text(report), microseconds);
    EXPECT_LT(microseconds, sanitized ? 500 : 50);
}

}  // namespace
}  // namespace gallop::test
