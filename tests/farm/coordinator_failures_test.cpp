// What becomes of items and hosts that fail, and of agents that are lost.
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/farm/coordinator_case.hpp"

namespace gallop::coordinator {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

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

TEST(Coordinator, AsksASecondHostWhetherARequestIsWrong) {
    CoordinatorOptions options;
    options.other_host = false;  // that is about what may pass
    Farm farm(items({10, 10}), options);
    farm.join(0, "a");
    farm.join(1, "b");
    farm.fail(0, 0, FailureKind::input);
    EXPECT_EQ(farm.state(0), ItemState::open);
    EXPECT_THAT(farm.leased(0), ElementsAre(0)) << "not again";
    farm.finish(1, 1);
    ASSERT_THAT(farm.leased(1), ElementsAre(1, 0));
    farm.fail(1, 0, FailureKind::input);
    EXPECT_EQ(farm.reason(0), "the request is wrong");
}

/// The agent fails with all that it is leased, until it rests.
std::set<ItemIndex> fail_all(Farm& farm, int agent) {
    std::set<ItemIndex> failed;
    for (std::size_t i = 0; i < farm.leased(agent).size(); ++i) {
        failed.insert(farm.leased(agent)[i]);
        farm.fail(agent, farm.leased(agent)[i], FailureKind::input);
    }
    return failed;
}

TEST(Coordinator, BlamesNoHostForARequestThatTwoCallWrong) {
    Farm farm(items(std::vector<float>(20, 10)));
    farm.join(0, "a");
    farm.join(1, "b");
    const std::set<ItemIndex> wrong = fail_all(farm, 0);
    const std::size_t before = farm.leased(0).size();
    farm.wait(1);
    EXPECT_EQ(farm.leased(0).size(), before);  // it rests
    for (std::size_t i = 0; i < farm.leased(1).size(); ++i) {
        const ItemIndex item = farm.leased(1)[i];
        if (!wrong.contains(item)) {
            farm.finish(1, item, 0.01);
            continue;
        }
        farm.fail(1, item, FailureKind::input);
        break;
    }
    EXPECT_EQ(farm.records(Record::What::quarantined).size(), 1U);
    farm.wait(1);
    EXPECT_LT(farm.now, 5);  // its rest
    EXPECT_GT(farm.leased(0).size(), before);
}

TEST(Coordinator, AsksSuspectHostsForTheirWordOnAWrongRequest) {
    Farm farm(items(std::vector<float>(60, 10)));
    farm.join(0, "a");
    farm.join(1, "b");
    const std::set<ItemIndex> wrong = fail_all(farm, 0);
    std::size_t i = 0;
    for (; i < farm.leased(1).size() && farm.now < 1; ++i) {
        const ItemIndex item = farm.leased(1)[i];
        if (wrong.contains(item))
            farm.fail(1, item, FailureKind::crash);
        else
            farm.finish(1, item, 0.01);
    }
    ASSERT_LT(farm.records(Record::What::quarantined).size(), wrong.size()) << "it rests before";
    farm.wait(100);
    ASSERT_GT(farm.leased(1).size(), i);
    EXPECT_TRUE(wrong.contains(farm.leased(1)[i]));
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

class BadHost : public testing::TestWithParam<FailureKind> {};

INSTANTIATE_TEST_SUITE_P(Coordinator, BadHost,
                         testing::Values(FailureKind::error, FailureKind::input),
                         [](const auto& kind) { return std::string(failure_name(kind.param)); });

TEST_P(BadHost, IsDrainedOnceItsItemsAreDoneElsewhereAndTheyAreForgiven) {
    CoordinatorOptions options;
    options.suspect_seconds = 1;
    Farm farm(items(std::vector<float>(12, 10)), options);
    farm.join(0, "bad");
    farm.join(1, "good");
    farm.join(2, "also good");
    std::size_t failed = 0;
    for (int i = 0; i < 40 && farm.records(Record::What::drained).empty(); ++i) {
        if (farm.leased(0).size() > failed) farm.fail(0, farm.leased(0).at(failed++), GetParam());
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
    EXPECT_THAT(farm.records(Record::What::quarantined), IsEmpty());
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
    EXPECT_TRUE(farm.all<Finished>()[0].at_limit);
    EXPECT_TRUE(Farm(farm.coordinator.ledger(), options).coordinator.finished());
    // A retry makes room for another attempt.
    Ledger forgiven = farm.coordinator.ledger();
    forgiven.apply({.what = Record::What::retry, .item = farm.leased(0).at(0)});
    EXPECT_FALSE(Farm(forgiven, options).coordinator.finished());
}

}  // namespace
}  // namespace gallop::coordinator
