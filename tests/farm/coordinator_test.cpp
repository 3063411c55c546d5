#include "farm/coordinator.hpp"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/farm/coordinator_case.hpp"

namespace gallop::coordinator {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

CoordinatorOptions in_order(Order order) {
    CoordinatorOptions options;
    options.order = order;
    return options;
}

TEST(Coordinator, LeasesTheLongestFirst) {
    Farm farm(items({10, 30, 20}));
    farm.join(0, "a");
    for (const ItemIndex item : {1U, 2U, 0U}) {
        ASSERT_EQ(farm.leased(0).back(), item);
        farm.finish(0, item, 10);
    }
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::complete);
    EXPECT_THAT(farm.all<StopAgent>(), testing::SizeIs(1));
}

TEST(Coordinator, FollowsTheManifestOrShowsFirstLastMiddle) {
    Farm manifest(items({1, 9, 2, 8, 3, 7, 4, 6, 5}), in_order(Order::manifest));
    manifest.join(0, "a");
    Farm preview(items({1, 9, 2, 8, 3, 7, 4, 6, 5}), in_order(Order::preview));
    preview.join(0, "a");
    for (int i = 0; i < 9; ++i) {
        manifest.finish(0, manifest.leased(0).at(static_cast<std::size_t>(i)));
        preview.finish(0, preview.leased(0).at(static_cast<std::size_t>(i)));
    }
    EXPECT_THAT(manifest.leased(0), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
    EXPECT_THAT(preview.leased(0), ElementsAre(0, 8, 4, 2, 6, 1, 3, 5, 7));
}

TEST(Coordinator, SendsChunksThatShrinkTowardsTheEnd) {
    CoordinatorOptions options;
    options.chunk_seconds = 8;
    Farm farm(items(std::vector<float>(64, 1)), options);
    farm.join(0, "a");
    for (std::size_t i = 0; i < 64; ++i) farm.finish(0, farm.leased(0).at(i));
    std::vector<std::size_t> sizes;
    for (const Lease& lease : farm.all<Lease>()) sizes.push_back(lease.items.size());
    EXPECT_EQ(sizes.front(), 8U);
    EXPECT_EQ(sizes.back(), 1U);
    EXPECT_TRUE(std::is_sorted(sizes.rbegin(), sizes.rend()));
}

TEST(Coordinator, KeepsASlotOnItsBucketFarFromTheEnd) {
    std::vector<WorkItem> work;
    for (int i = 0; i < 400; ++i)
        work.push_back({static_cast<float>(40 + i % 7), static_cast<std::uint16_t>(i % 4), 1,
                        ItemState::open});
    Farm farm(std::move(work));
    farm.join(0, "a");
    farm.join(1, "b");
    std::map<int, std::vector<int>> buckets;
    for (std::size_t i = 0; i < 60; ++i)
        for (const int agent : {0, 1}) {
            const ItemIndex item = farm.leased(agent).at(i);
            buckets[agent].push_back(static_cast<int>(item % 4));
            farm.finish(agent, item, 40);
        }
    for (auto& [agent, seen] : buckets) {
        seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
        EXPECT_EQ(seen.size(), 1U) << "switches of agent " << agent;
    }
}

TEST(Coordinator, AsksAWaitingItemBackForAnIdleSlot) {
    Farm farm(items(std::vector<float>(8, 100)));
    farm.join(0, "a");
    farm.start(0, 0);
    ASSERT_THAT(farm.leased(0), ElementsAre(0, 1));  // one beyond what it renders
    farm.join(1, "b", 6);
    ASSERT_THAT(farm.leased(1), ElementsAre(2, 3, 4, 5, 6, 7));
    ASSERT_THAT(farm.all<Revoke>(), IsEmpty());
    farm.join(2, "c");
    const std::vector<Revoke> revokes = farm.all<Revoke>();
    ASSERT_EQ(revokes.size(), 1U);
    EXPECT_EQ(revokes[0].agent, 0);
    EXPECT_THAT(revokes[0].items, ElementsAre(1));
    EXPECT_FALSE(revokes[0].begun);
    EXPECT_THAT(farm.leased(2), IsEmpty()) << "nobody else's until it is back";
    farm.tell(ItemReturned{0, 0, 1});
    EXPECT_THAT(farm.leased(2), ElementsAre(1));
}

TEST(Coordinator, FormsGroupsForItemsThatWantThem) {
    std::vector<WorkItem> work = items({10, 10, 10, 10}, 2);
    for (const WorkItem& one : items({5, 5, 5, 5})) work.push_back(one);
    Farm farm(std::move(work));
    farm.join(0, "a", 4);
    for (int slot = 0; slot < 4; ++slot) farm.finish(0, static_cast<ItemIndex>(4 + slot), 1, slot);
    ASSERT_FALSE(farm.all<Regroup>().empty());
    int regrouped = 0;
    for (const Regroup& order : farm.all<Regroup>()) {
        EXPECT_EQ(order.gpus, 2);
        regrouped += static_cast<int>(order.slots.size());
        for (const int slot : order.slots) farm.tell(SlotGone{0, slot});
        farm.tell(SlotReady{0, order.slots[0], 2});
    }
    EXPECT_GE(regrouped, 2);
    EXPECT_EQ(farm.all<Lease>().back().items[0].gpus, 2);
}

TEST(Coordinator, StopsWithoutNewLeasesAndKeepsWhatEndsInTime) {
    Farm farm(items({10, 100, 10, 10}));
    farm.join(0, "a");
    farm.join(1, "b");
    farm.start(0, 1);
    const ItemIndex other = farm.leased(1).at(0);
    farm.start(1, other);
    farm.tell(StopAsked{"SIGTERM", 50});
    std::vector<ItemIndex> given_up;
    for (const Revoke& revoke : farm.all<Revoke>())
        if (revoke.begun) given_up.insert(given_up.end(), revoke.items.begin(), revoke.items.end());
    EXPECT_THAT(given_up, ElementsAre(1));
    for (const Revoke& revoke : farm.all<Revoke>())
        for (const ItemIndex item : revoke.items)
            farm.tell(ItemReturned{revoke.agent, revoke.slot, item});
    EXPECT_FALSE(farm.coordinator.finished());
    const std::size_t leases = farm.all<Lease>().size();
    farm.tell(ItemDone{1, 0, other, 10});
    EXPECT_EQ(farm.all<Lease>().size(), leases);
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::stopped);
    EXPECT_EQ(farm.all<Finished>().at(0).why, "SIGTERM");
    EXPECT_EQ(farm.records(Record::What::ended).at(0).text, "stopped");
}

TEST(Coordinator, EndsAtTheDeadlineEvenIfNobodyAnswers) {
    Farm farm(items({10, 10}));
    farm.join(0, "a");
    farm.start(0, 0);
    farm.tell(StopAsked{"SIGTERM", 20});
    farm.wait(10, 0);
    EXPECT_FALSE(farm.coordinator.finished());
    farm.wait(15, 0);
    EXPECT_TRUE(farm.coordinator.finished());
}

TEST(Coordinator, LeasesNothingThatOutlastsTheJob) {
    Farm farm(items({100, 10}));
    farm.tell(TimeLeft{50});
    farm.join(0, "a");
    ASSERT_THAT(farm.leased(0), IsEmpty());  // one bucket, whose first item is too long
    farm.wait(2);
    EXPECT_EQ(farm.all<Finished>().at(0).why, "what is left doesn't fit into the job's time");
}

TEST(Coordinator, WaitsForItsOnlyRendererThoughOneItemOutlastsTheJob) {
    std::vector<WorkItem> work = items({10'000, 10, 10, 10});
    for (std::size_t i = 1; i < work.size(); ++i) work[i].bucket = 1;
    Farm farm(std::move(work));
    farm.tell(TimeLeft{1000});
    farm.join(0, "a");
    farm.start(0, farm.leased(0).at(0));
    farm.tell(SlotGone{0, 0});
    farm.wait(10);
    ASSERT_FALSE(farm.coordinator.finished()) << "nobody could be asked whether anything fits";
    farm.tell(SlotReady{0, 0, 1});
    for (int i = 0; i < 3; ++i) {
        const std::vector<ItemIndex> mine = farm.leased(0);
        const auto open = std::find_if(mine.begin(), mine.end(), [&](ItemIndex item) {
            return farm.state(item) == ItemState::open;
        });
        ASSERT_NE(open, mine.end());
        farm.finish(0, *open, 10);
    }
    farm.wait(1);
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::stopped);
    EXPECT_THAT(farm.all<Finished>()[0].why, HasSubstr("doesn't fit"));
}

TEST(Coordinator, PausesWhileTheDiskIsFull) {
    CoordinatorOptions options;
    options.pause_below = 100;
    options.resume_above = 200;
    Farm farm(items({1, 1, 1, 1}), options);
    farm.tell(DiskFree{99});
    EXPECT_EQ(farm.all<PauseIntake>().size(), 1U);
    farm.join(0, "a");
    farm.tell(DiskFree{150});
    EXPECT_THAT(farm.leased(0), IsEmpty());
    farm.tell(DiskFree{200});
    EXPECT_EQ(farm.all<ResumeIntake>().size(), 1U);
    EXPECT_FALSE(farm.leased(0).empty());
    EXPECT_EQ(farm.records(Record::What::paused).size(), 1U);
    EXPECT_EQ(farm.records(Record::What::resumed).size(), 1U);
}

TEST(Coordinator, StopsWhenNobodyIsLeft) {
    CoordinatorOptions options;
    options.patience_seconds = 60;
    Farm farm(items({10}), options);
    farm.join(0, "a");
    farm.wait(120, 0);
    EXPECT_EQ(farm.all<Finished>().at(0).why, "no agent is left");
}

TEST(Coordinator, StopsWhenTheBudgetIsSpent) {
    CoordinatorOptions options;
    options.gpu_seconds = 15;
    Farm farm(items({10, 10, 10}), options);
    farm.join(0, "a");
    farm.finish(0, 0, 10);
    ASSERT_FALSE(farm.coordinator.finished());
    farm.finish(0, 1, 10);
    EXPECT_THAT(farm.all<Finished>().at(0).why, HasSubstr("limits.gpu_hours"));
    EXPECT_TRUE(farm.all<Finished>()[0].at_limit);
    // Another attempt begins nothing.
    const Farm again(farm.coordinator.ledger(), options);
    ASSERT_TRUE(again.coordinator.finished());
    EXPECT_EQ(again.all<Finished>().at(0).outcome, Outcome::stopped);
    EXPECT_THAT(again.all<Finished>()[0].why, HasSubstr("limits.gpu_hours"));
    EXPECT_TRUE(again.all<Finished>()[0].at_limit);
}

TEST(Coordinator, AnswersNonsenseWithANotice) {
    Farm farm(items({10, 10}));
    farm.join(0, "a");
    farm.start(0, 0);
    const std::size_t before = farm.actions.size();
    farm.tell(ItemFailed{0, 0, 1, FailureKind::error, ""});
    farm.tell(ItemReturned{0, 7, 0});
    farm.tell(ItemReturned{0, 0, 77});
    farm.tell(ItemStarted{0, 3, 0});
    farm.tell(ItemProgress{0, 9, 5, 0.5});
    farm.tell(ItemDone{0, 0, 99, 1});
    farm.tell(SlotGone{0, 5});
    farm.tell(SlotReady{0, 8, 0});
    EXPECT_EQ(farm.all<Notice>().size(), 8U);
    EXPECT_EQ(farm.actions.size(), before + 8);
    farm.tell(ItemStarted{5, 0, 0});  // whom nobody knows
    EXPECT_EQ(farm.all<ResetAgent>().at(0).agent, 5);
    farm.finish(0, 0);
    farm.finish(0, 1);
    EXPECT_TRUE(farm.coordinator.finished());
}

TEST(Coordinator, ResumesFromItsRecords) {
    const std::vector<WorkItem> work = items({40, 30, 20, 10});
    Farm first(work);
    first.join(0, "a");
    first.finish(0, 0, 40);
    first.fail(0, 1);
    first.fail(0, 1);
    Ledger ledger(work);
    for (const Record& record : first.all<Record>()) ledger.apply(record);
    EXPECT_EQ(ledger.done(), 1U);
    Farm second(std::move(ledger));
    second.join(3, "a");
    std::vector<ItemIndex> tried;
    for (std::size_t i = 0; i < 3; ++i) {
        tried.push_back(second.leased(3).at(i));
        if (tried.back() == 1)
            second.fail(3, 1);
        else
            second.finish(3, tried.back());
    }
    EXPECT_EQ(second.reason(1), "failed 3 times (retry.attempts)");
    EXPECT_EQ(second.all<Finished>().at(0).outcome, Outcome::quarantined);
}

}  // namespace
}  // namespace gallop::coordinator
