#include "model/resample.hpp"

#include <numbers>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/checkpoint.hpp"
#include "support/expect_near.hpp"

namespace gallop {
namespace {

using test::expect_near;
using test::floats;
using test::values;
using testing::Each;
using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;

// Both compute in double: what is left is the rounding to float.
constexpr double rounding = 1e-6;

TEST(Resample, KeepsAConstant) {
    EXPECT_THAT(floats(resample(values({1, 6}, {2, 2, 2, 2, 2, 2}), 4)), Each(FloatEq(2)));
    EXPECT_THAT(floats(resample(values({1, 3}, {2, 2, 2}), 7)), Each(FloatEq(2)));
}

TEST(Resample, DropsWhatTheNewRateCannotHold) {
    EXPECT_THAT(floats(resample(values({1, 4}, {1, -1, 1, -1}), 2)), Each(FloatNear(0, 1e-7F)));
}

TEST(Resample, JoinsBothSidesOfTheNewNyquistFrequency) {
    // cos at a quarter of the rate, 4 → 2 samples: all that is left of it alternates
    EXPECT_THAT(floats(resample(values({1, 4}, {1, 0, -1, 0}), 2)), ElementsAre(1, -1));
}

TEST(Resample, SplitsTheOldNyquistFrequency) {
    // 1, −1 is a cosine whose zeros fall between: half a period is two of four samples
    EXPECT_THAT(floats(resample(values({1, 2}, {1, -1}), 4)),
                ElementsAre(FloatEq(1), FloatNear(0, 1e-7F), FloatEq(-1), FloatNear(0, 1e-7F)));
}

TEST(Resample, AgreesWithScipy) {
    const auto cases =
        Checkpoint::open(std::filesystem::path(GALLOP_GOLDEN) / "resample/cases.safetensors");
    ASSERT_EQ(cases.tensors().size(), 40U);
    for (int n = 0; n < 20; ++n) {
        Tensor in = cases.read_f32(fmt::format("{}.in", n));
        const Tensor want = cases.read_f32(fmt::format("{}.out", n));
        in.reshape({1, in.numel()});
        const Tensor got = resample(in, want.numel());
        SCOPED_TRACE(fmt::format("{} to {} samples", in.numel(), want.numel()));
        expect_near(got.span<float>(), want.span<float>(), rounding);
    }
}

TEST(Resample, TreatsEveryChannelAlone) {
    test::RandomValues random;
    const Tensor x = random.tensor({3, 100});
    const Tensor all = resample(x, 86);
    for (Index c = 0; c < 3; ++c)
        expect_near(
            all.rows(c, c + 1).span<float>(),
            resample(values({1, 100}, {x.data<float>() + c * 100, x.data<float>() + (c + 1) * 100}),
                     86)
                .span<float>(),
            rounding);
}

TEST(Resample, KeepsATonesPitchAndLengthFromLatentsToSeconds) {
    // 441 Hz in sound of 51,200 Hz, both periodic over 251 latents times 8: prime factors in plenty
    const Index latents = 251;
    const auto tone = [](Index samples, double cycles) {
        Tensor y({1, samples});
        for (Index s = 0; s < samples; ++s)
            y.data<float>()[s] =
                static_cast<float>(std::sin(2 * std::numbers::pi * cycles * static_cast<double>(s) /
                                            static_cast<double>(samples)));
        return y;
    };
    const Tensor in = tone(latents * 2048, 4427);
    const Index samples = in.numel() * resample_up / resample_down;
    EXPECT_EQ(samples, latents * 1764);
    const Tensor want = tone(samples, 4427);
    expect_near(resample(in, samples).span<float>(), want.span<float>(), rounding);
    expect_near(resample_aside(in.clone()).get().span<float>(), want.span<float>(), rounding);
}

}  // namespace
}  // namespace gallop
