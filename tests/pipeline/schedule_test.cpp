#include "pipeline/schedule.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

TEST(NoiseLevels, ArePublishedForFiveSteps) {
    const NoiseLevels levels = noise_levels(5, 5.0);
    EXPECT_EQ(levels.sigmas, (std::vector<float>{0.999799848F, 0.95215404F, 0.882093251F,
                                                 0.768934727F, 0.55524677F, 0.0F}));
    EXPECT_EQ(levels.timesteps, (std::vector<int>{999, 952, 882, 768, 555}));
}

TEST(NoiseLevels, SwitchTheGuidanceAfterTwentySevenOfThirtyTwoSteps) {
    const NoiseLevels levels = noise_levels(32, 5.0);
    int early = 0;
    for (const int t : levels.timesteps) early += t > 500;
    EXPECT_EQ(early, 27);
    EXPECT_EQ(levels.timesteps[26], 535);
    EXPECT_EQ(levels.timesteps[27], 480);
}

TEST(NoiseLevels, RefuseZeroSteps) { EXPECT_ANY_THROW(noise_levels(0, 5.0)); }

TEST(ZeroSnrTable, EndsInPureNoise) {
    const auto table = zero_snr_table();
    ASSERT_EQ(table.size(), 1000U);
    EXPECT_FLOAT_EQ(table[0], 0.9995749F);
    EXPECT_NEAR(table[100], 0.94168F, 5e-6);
    EXPECT_FLOAT_EQ(table[220], 0.8389104008674622F);
    EXPECT_NEAR(table[500], 0.49094F, 5e-6);
    EXPECT_EQ(table[999], 0.0F);
}

}  // namespace
}  // namespace gallop
