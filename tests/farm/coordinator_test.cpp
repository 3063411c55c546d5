#include "farm/coordinator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gallop::coordinator {
namespace {

using testing::ElementsAre;

std::vector<WorkItem> items(std::initializer_list<float> seconds) {
    std::vector<WorkItem> result;
    for (const float one : seconds) result.push_back({one, 0, 1, ItemState::open});
    return result;
}

/// All actions of one kind since the last call.
template <class A>
std::vector<A> take(Coordinator& coordinator) {
    std::vector<A> result;
    for (const Action& action : coordinator.take_actions())
        if (const A* one = std::get_if<A>(&action)) result.push_back(*one);
    return result;
}

std::vector<ItemIndex> leased(Coordinator& coordinator) {
    std::vector<ItemIndex> result;
    for (const Lease& lease : take<Lease>(coordinator))
        for (const LeaseItem& item : lease.items) result.push_back(item.item);
    return result;
}

TEST(Coordinator, LeasesTheLongestFirst) {
    Coordinator coordinator({}, Ledger(items({10, 30, 20})));
    coordinator.handle(AgentJoined{0, "a", "cpu", 1, 1}, 0);
    coordinator.handle(SlotReady{0, 0, 1}, 0);
    EXPECT_THAT(leased(coordinator), ElementsAre(1));
    coordinator.handle(ItemStarted{0, 0, 1}, 0);
    coordinator.handle(ItemDone{0, 0, 1, 30}, 30);
    EXPECT_THAT(leased(coordinator), ElementsAre(2));
    coordinator.handle(ItemDone{0, 0, 2, 20}, 50);
    EXPECT_THAT(leased(coordinator), ElementsAre(0));
    coordinator.handle(ItemDone{0, 0, 0, 10}, 60);
    EXPECT_TRUE(coordinator.finished());
    EXPECT_EQ(take<Finished>(coordinator).at(0).outcome, Outcome::complete);
}

}  // namespace
}  // namespace gallop::coordinator
