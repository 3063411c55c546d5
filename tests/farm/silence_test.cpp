#include "farm/silence.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

TEST(Silence, GrowsUntilSomethingIsHeard) {
    Silence silence(100);
    for (double now = 100; now < 110; ++now) EXPECT_EQ(silence.look(now), now - 100);
    silence.heard(110);
    EXPECT_EQ(silence.look(111), 1);
}

TEST(Silence, BeginsAnewAfterAPauseOfOnesOwn) {
    Silence silence(100);
    EXPECT_EQ(silence.look(101), 1);
    EXPECT_EQ(silence.look(171), 0);
    EXPECT_EQ(silence.look(172), 1);
}

}  // namespace
}  // namespace gallop
