#include "farm/coordinator.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gallop::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<WorkItem> items(const std::vector<float>& seconds, std::uint8_t gpus = 1) {
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

TEST(Coordinator, RetriesOnAnotherHostAndQuarantinesWhatFailsOnTwo) {
    Farm farm(items({10, 10}));
    farm.join(0, "a");
    farm.join(1, "b");
    farm.start(1, 1);
    farm.fail(0, 0);
    EXPECT_THAT(farm.leased(0), ElementsAre(0));  // not again, though it is idle
    farm.finish(1, 1, 10);
    ASSERT_THAT(farm.leased(1), ElementsAre(1, 0));
    farm.fail(1, 0);
    EXPECT_EQ(farm.reason(0), "failed on two hosts");
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::quarantined);
}

TEST(Coordinator, RetriesOnTheOnlyHostUntilTheAttemptsAreSpent) {
    Farm farm(items({10}));
    farm.join(0, "a");
    farm.fail(0, 0);
    farm.fail(0, 0, FailureKind::bad_output);
    farm.fail(0, 0, FailureKind::crash);
    EXPECT_THAT(farm.leased(0), ElementsAre(0, 0, 0));
    EXPECT_EQ(farm.all<Lease>().back().items[0].attempt, 3);
    EXPECT_EQ(farm.reason(0), "failed 3 times (retry.attempts)");
}

TEST(Coordinator, NeverRetriesAWrongRequest) {
    Farm farm(items({10}));
    farm.join(0, "a");
    farm.fail(0, 0, FailureKind::input);
    EXPECT_EQ(farm.reason(0), "the request is wrong");
}

TEST(Coordinator, DoesNotCountWhatTheDiskDid) {
    Farm farm(items({10}));
    farm.join(0, "a");
    for (int i = 0; i < 5; ++i) {
        farm.fail(0, 0, FailureKind::disk);
        EXPECT_EQ(farm.leased(0).size(), static_cast<std::size_t>(i) + 1) << "at once";
        farm.wait(100);
    }
    farm.finish(0, 0);
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::complete);
}

TEST(Coordinator, StopsWhenNothingCanBeWritten) {
    CoordinatorOptions options;
    options.patience_seconds = 50;
    Farm farm(items({10, 10}), options);
    farm.join(0, "a");
    for (int i = 0; i < 3 && !farm.coordinator.finished(); ++i) {
        farm.fail(0, farm.leased(0).back(), FailureKind::disk);
        farm.wait(20);
    }
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::stopped);
    EXPECT_EQ(farm.all<Finished>().at(0).why, "nothing can be written");
}

TEST(Coordinator, ClimbsTheLadderWhenMemoryRunsOut) {
    Farm farm(items({10}));
    farm.join(0, "a", 2);
    farm.fail(0, 0, FailureKind::out_of_memory);
    ASSERT_EQ(farm.leased(0).size(), 2U);
    LeaseItem lease = farm.all<Lease>().back().items[0];
    EXPECT_TRUE(lease.tiled_decode);
    EXPECT_EQ(lease.gpus, 1);
    farm.fail(0, 0, FailureKind::out_of_memory, farm.all<Lease>().back().slot);
    // Both slots are idle; they become a group.
    ASSERT_THAT(farm.all<Regroup>(), testing::SizeIs(1));
    EXPECT_THAT(farm.all<Regroup>()[0].slots, ElementsAre(0, 1));
    EXPECT_EQ(farm.all<Regroup>()[0].gpus, 2);
    farm.tell(SlotGone{0, 0});
    farm.tell(SlotGone{0, 1});
    farm.tell(SlotReady{0, 0, 2});
    ASSERT_EQ(farm.leased(0).size(), 3U);
    lease = farm.all<Lease>().back().items[0];
    EXPECT_TRUE(lease.tiled_decode);
    EXPECT_EQ(lease.gpus, 2);
    EXPECT_EQ(lease.rung, 2);
    farm.fail(0, 0, FailureKind::out_of_memory);
    EXPECT_THAT(farm.reason(0), HasSubstr("out of memory"));
}

TEST(Coordinator, QuarantinesWhatNoNodeCanTake) {
    Farm farm(items({10, 10}, 4));
    farm.join(0, "a", 2);
    farm.wait(100);
    EXPECT_FALSE(farm.coordinator.finished()) << "some nodes come late";
    farm.wait(30);
    EXPECT_EQ(farm.reason(0), "wants 4 GPUs in one node; the largest node here has 2");
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::quarantined);
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

TEST(Coordinator, DrainsAHostWhoseItemsAreDoneElsewhereAndForgives) {
    CoordinatorOptions options;
    options.suspect_seconds = 1;
    Farm farm(items(std::vector<float>(12, 10)), options);
    farm.join(0, "bad");
    farm.join(1, "good");
    farm.join(2, "also good");
    std::size_t failed = 0;
    for (int i = 0; i < 40 && farm.records(Record::What::drained).empty(); ++i) {
        if (farm.leased(0).size() > failed) farm.fail(0, farm.leased(0).at(failed++));
        for (const int agent : {1, 2}) {
            const std::vector<ItemIndex> mine = farm.leased(agent);
            for (const ItemIndex item : mine)
                if (farm.state(item) == ItemState::open) {
                    farm.finish(agent, item, 1);
                    break;
                }
        }
        farm.wait(1);
    }
    ASSERT_EQ(farm.records(Record::What::drained).size(), 1U);
    EXPECT_EQ(farm.records(Record::What::drained)[0].host, "bad");
    EXPECT_EQ(farm.all<DrainAgent>().at(0).agent, 0);
    for (const auto& [item, trouble] : farm.coordinator.ledger().troubles())
        EXPECT_EQ(trouble.counted(), 0) << "item " << item;
    EXPECT_LE(failed, 8U) << "a bad host is given pauses";
}

TEST(Coordinator, OpensAgainWhatTwoBadHostsQuarantined) {
    // It failed on a and b and is quarantined; then a turns out to be bad: it fails what b does.
    Farm farm(items(std::vector<float>(12, 10)));
    farm.join(0, "a");
    farm.join(1, "b");
    farm.start(1, farm.leased(1).at(0));
    const ItemIndex first = farm.leased(0).at(0);
    farm.fail(0, first);
    farm.finish(1, farm.leased(1).at(0));
    const auto next = [&](int agent) {
        const std::vector<ItemIndex> mine = farm.leased(agent);
        const auto open = std::find_if(mine.begin(), mine.end(), [&](ItemIndex item) {
            return farm.state(item) == ItemState::open;
        });
        return open == mine.end() ? no_item : *open;
    };
    while (next(1) != first) farm.finish(1, next(1));
    farm.fail(1, first);
    ASSERT_EQ(farm.state(first), ItemState::quarantined);
    std::size_t failed = 1;
    for (int i = 0; i < 60 && farm.records(Record::What::drained).empty(); ++i) {
        if (farm.leased(0).size() > failed) farm.fail(0, farm.leased(0).at(failed++));
        if (next(1) != no_item) farm.finish(1, next(1));
        farm.wait(2);
    }
    ASSERT_EQ(farm.records(Record::What::drained).size(), 1U);
    EXPECT_EQ(farm.records(Record::What::retry).at(0).item, first);
    EXPECT_EQ(farm.state(first), ItemState::open);
}

TEST(Coordinator, TakesASilentAgentForLostAndAcceptsWhatItFinishedOnce) {
    Farm farm(items({10}));
    farm.join(0, "a");
    farm.join(1, "b");
    farm.start(0, 0);
    farm.wait(40, 0);
    ASSERT_EQ(farm.records(Record::What::lost).size(), 1U);
    ASSERT_THAT(farm.leased(1), ElementsAre(0));
    farm.start(1, 0);
    farm.tell(ItemDone{0, 0, 0, 10});
    EXPECT_EQ(farm.all<ResetAgent>().at(0).agent, 0);
    EXPECT_EQ(farm.all<Revoke>().at(0).agent, 1);
    EXPECT_TRUE(farm.all<Revoke>().at(0).begun);
    farm.tell(ItemDone{1, 0, 0, 10});
    EXPECT_EQ(farm.records(Record::What::done).size(), 1U);
    EXPECT_EQ(farm.records(Record::What::done)[0].agent, 0);
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::complete);
}

TEST(Coordinator, TakesBackALostAgentThatJoinsAnew) {
    Farm farm(items({10, 10}));
    farm.join(0, "a");
    farm.start(0, 0);
    farm.wait(40, 0);
    EXPECT_EQ(farm.records(Record::What::released).size(), 1U);
    farm.join(0, "a");
    EXPECT_EQ(farm.all<Lease>().back().agent, 0);
    for (const ItemIndex item : {0U, 1U}) farm.finish(0, item);
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::complete);
}

TEST(Coordinator, GivesBackASlotsItemsWhenItEnds) {
    Farm farm(items({1, 1, 1, 1, 1, 1, 1, 1}));
    farm.join(0, "a");
    farm.start(0, farm.leased(0).at(0));
    const std::size_t held = farm.leased(0).size();
    ASSERT_GT(held, 1U);
    farm.tell(SlotGone{0, 0});
    EXPECT_EQ(farm.records(Record::What::failed).size(), 1U);
    EXPECT_EQ(farm.records(Record::What::failed)[0].kind, FailureKind::crash);
    EXPECT_EQ(farm.records(Record::What::released).size(), held - 1);
    farm.tell(SlotReady{0, 0, 1});
    EXPECT_GT(farm.leased(0).size(), held);
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

TEST(Coordinator, RestartsASlotThatHangs) {
    CoordinatorOptions options;
    options.hung_seconds = 20;
    options.hung_factor = 3;
    Farm farm(items({10}), options);
    farm.join(0, "a");
    farm.start(0, 0);
    farm.wait(25);
    EXPECT_THAT(farm.all<RestartSlot>(), IsEmpty());
    farm.wait(10);
    ASSERT_EQ(farm.all<RestartSlot>().size(), 1U);
    EXPECT_EQ(farm.all<RestartSlot>()[0].item, 0U);
    farm.tell(ItemFailed{0, 0, 0, FailureKind::hung, "ended"});
    EXPECT_EQ(farm.leased(0).size(), 1U) << "not to a slot that is being restarted";
    farm.tell(SlotGone{0, 0});
    farm.tell(SlotReady{0, 0, 1});
    EXPECT_EQ(farm.leased(0).size(), 2U);
}

TEST(Coordinator, TrustsProgressMoreThanThePlan) {
    CoordinatorOptions options;
    options.hung_seconds = 1;
    options.hung_factor = 3;
    Farm farm(items({10}), options);  // really 100
    farm.join(0, "a");
    farm.start(0, 0);
    for (int i = 1; i < 10; ++i) {
        farm.wait(10);
        farm.tell(ItemProgress{0, 0, 0, 0.1 * i});
    }
    EXPECT_THAT(farm.all<RestartSlot>(), IsEmpty());
}

TEST(Coordinator, StopsAfterSoManyFailed) {
    CoordinatorOptions options;
    options.attempts = 1;
    options.stop_after_failed = {10, true};  // of 20 items: 2, but never fewer than 5
    Farm farm(items(std::vector<float>(20, 1)), options);
    farm.join(0, "a");
    for (std::size_t i = 0; i < 5; ++i) {
        ASSERT_FALSE(farm.coordinator.finished());
        farm.fail(0, farm.leased(0).at(i));
    }
    for (const Revoke& revoke : farm.all<Revoke>())
        for (const ItemIndex item : revoke.items) farm.tell(ItemReturned{0, 0, item});
    EXPECT_EQ(farm.all<Finished>().at(0).outcome, Outcome::stopped);
    EXPECT_THAT(farm.all<Finished>()[0].why, HasSubstr("5 items are quarantined"));
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

TEST(Ledger, TakesAnyPrefixAndOpensAgainWhatIsRetried) {
    Ledger ledger(items({1, 2}));
    using What = Record::What;
    ledger.apply({.what = What::failed, .item = 0, .kind = FailureKind::error, .host = "a"});
    ledger.apply({.what = What::failed, .item = 0, .kind = FailureKind::disk, .host = "b"});
    ledger.apply({.what = What::failed, .item = 0, .kind = FailureKind::crash, .host = "b"});
    ASSERT_NE(ledger.trouble(0), nullptr);
    EXPECT_EQ(ledger.trouble(0)->hosts(), 2);
    EXPECT_EQ(ledger.trouble(0)->tries(), 2);
    ledger.apply({.what = What::drained, .host = "b"});
    EXPECT_EQ(ledger.trouble(0)->hosts(), 1);
    EXPECT_EQ(ledger.trouble(0)->tries(), 2) << "tries keep their numbers";
    ledger.apply({.what = What::quarantined, .item = 0});
    EXPECT_EQ(ledger.quarantined(), 1U);
    ledger.apply({.what = What::retry, .item = 0});
    EXPECT_EQ(ledger.open(), 2U);
    EXPECT_EQ(ledger.trouble(0), nullptr);
    ledger.apply({.what = What::done, .item = 0, .seconds = 3});
    ledger.apply({.what = What::done, .item = 0, .seconds = 3});
    ledger.apply({.what = What::done, .item = 9});
    EXPECT_EQ(ledger.done(), 1U);
    EXPECT_DOUBLE_EQ(ledger.gpu_seconds(), 3);
}

TEST(Estimates, LearnsBucketsAndHosts) {
    Estimates estimates(2);
    // Bucket 0 takes twice, bucket 1 three times what was planned; host 1 is half as fast as host 0.
    for (int i = 0; i < 50; ++i) {
        estimates.measured(0, 0, 10, 20);
        estimates.measured(1, 0, 10, 30);
        estimates.measured(0, 1, 10, 40);
    }
    const auto predicted = [&](std::uint16_t bucket, HostIndex host) {
        return 10 * estimates.factor(bucket) / estimates.speed(host);
    };
    EXPECT_NEAR(predicted(0, 0), 20, 0.5);
    EXPECT_NEAR(predicted(1, 0), 30, 0.5);
    EXPECT_NEAR(predicted(0, 1), 40, 1);
    EXPECT_NEAR(predicted(1, 1), 60, 6);  // never measured
    estimates.measured(0, 0, 10, std::nan(""));
    estimates.measured(0, 0, 10, -1);
    EXPECT_NEAR(predicted(0, 0), 20, 0.5);
}

}  // namespace
}  // namespace gallop::coordinator
