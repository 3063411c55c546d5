#include "farm/shared_queue.hpp"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>

namespace gallop {
namespace {

using Order = Schedule::Order;

/// Items 0 … n-1; item i is of bucket i % buckets, whose items take 10, 20, 30 … seconds.
PlanIndex plan_of(std::uint32_t items, std::uint16_t buckets) {
    PlanIndex plan;
    for (std::uint16_t b = 0; b < buckets; ++b) plan.buckets.push_back(std::to_string(b));
    for (std::uint32_t i = 0; i < items; ++i) {
        PlanRow row{};
        row.bucket = static_cast<std::uint16_t>(i % buckets);
        row.seconds = static_cast<float>(10 * (row.bucket + 1));
        row.gpus = 1;
        plan.rows.push_back(row);
    }
    return plan;
}

std::vector<std::uint32_t> take(SharedQueue& queue, int count) {
    std::vector<std::uint32_t> taken;
    std::set<std::uint32_t> seen;
    for (int i = 0; i < count; ++i)
        if (const auto item = queue.next(0, [&](std::uint32_t one) { return !seen.count(one); })) {
            taken.push_back(*item);
            seen.insert(*item);
        }
    return taken;
}

TEST(SharedQueue, GoesThroughEveryItemOnce) {
    SharedQueue queue(plan_of(10, 3), Order::longest_first, "a");
    std::vector<std::uint32_t> all = take(queue, 20);
    std::sort(all.begin(), all.end());
    EXPECT_THAT(all, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST(SharedQueue, TakesTheLongestBucketFirstAndWholly) {
    SharedQueue queue(plan_of(9, 3), Order::longest_first, "host-12");
    const std::vector<std::uint32_t> all = take(queue, 9);
    for (int i = 0; i < 9; ++i) EXPECT_EQ(all[i] % 3, 2U - static_cast<unsigned>(i / 3)) << i;
}

TEST(SharedQueue, BeginsElsewhereForEachProcess) {
    const PlanIndex plan = plan_of(1000, 1);
    std::set<std::uint32_t> firsts;
    for (int i = 0; i < 50; ++i) {
        SharedQueue queue(plan, Order::longest_first, "host-" + std::to_string(i));
        firsts.insert(*queue.next(0, [](std::uint32_t) { return true; }));
    }
    EXPECT_GT(firsts.size(), 40U);  // 50 of 1000 places: one or two meetings are likely
}

TEST(SharedQueue, KeepsThePlansOrderWhenAsked) {
    SharedQueue queue(plan_of(6, 3), Order::manifest, "a");
    EXPECT_THAT(take(queue, 6), testing::ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(SharedQueue, PassesOverWhatSomebodyHoldsForAWhile) {
    SharedQueue queue(plan_of(2, 1), Order::manifest, "a");
    const auto any = [](std::uint32_t) { return true; };
    ASSERT_EQ(queue.next(0, any), 0U);
    queue.pass_over(0, 5);
    EXPECT_EQ(queue.next(1, any), 1U);
    EXPECT_EQ(queue.next(1, any), 1U);
    queue.pass_over(1, 9);
    EXPECT_EQ(queue.next(2, any), std::nullopt);
    EXPECT_EQ(queue.next(5, any), 0U);
}

}  // namespace
}  // namespace gallop
