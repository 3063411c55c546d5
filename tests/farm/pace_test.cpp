#include "farm/pace.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

TEST(Pace, KnowsNothingBeforeAnythingIsDone) {
    Pace pace(100);
    EXPECT_EQ(pace.clips_per_hour(), 0);
    EXPECT_FALSE(pace.seconds_left(50).has_value());
    pace.sample(110, 0, 0);
    EXPECT_FALSE(pace.seconds_left(50).has_value());
    EXPECT_EQ(pace.seconds_left(0), 0);
}

TEST(Pace, WeighsWhatIsLeftByCost) {
    Pace pace(0);
    // 20 predicted seconds in 10 s, half an item among them; one clip.
    pace.sample(10, 20, 1);
    EXPECT_DOUBLE_EQ(*pace.seconds_left(50), 25);
    EXPECT_DOUBLE_EQ(pace.clips_per_hour(), 360);
}

TEST(Pace, ForgetsWhatIsLongAgo) {
    Pace pace(0);
    for (int second = 1; second <= 1000; ++second)  // one clip a second, each of cost 1
        pace.sample(second, second, static_cast<std::size_t>(second));
    for (int second = 1; second <= 2000; ++second)  // then half as fast
        pace.sample(1000 + second, 1000 + second * 0.5,
                    static_cast<std::size_t>(1000 + second / 2));
    EXPECT_NEAR(pace.clips_per_hour(), 1800, 5);
    EXPECT_NEAR(*pace.seconds_left(100), 200, 1);
}

TEST(Pace, ReachesBackEightClipsWhenTheyAreSlow) {
    Pace pace(0);
    // A clip every 1000 s: a quarter of an hour would often hold none.
    for (int second = 1; second <= 20500; ++second)
        pace.sample(second, second, static_cast<std::size_t>(second / 1000));
    EXPECT_NEAR(pace.clips_per_hour(), 3.6, 0.3);
}

}  // namespace
}  // namespace gallop
