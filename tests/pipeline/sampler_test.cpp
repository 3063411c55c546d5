#include "pipeline/sampler.hpp"

#include <gmock/gmock.h>

#include "support/expect_near.hpp"

namespace gallop {
using namespace test;
namespace {

/// x after each step of v(x) = 0.5 x + 0.1 from x = 1.
std::vector<float> toy_sequence(int steps) {
    const auto on = make_cpu_backend();
    UniPc solver(noise_levels(steps, 5.0), *on);
    Tensor x = values({1}, {1.0F});
    std::vector<float> seen;
    for (int i = 0; i < steps; ++i) {
        const Tensor v = values({1}, {0.5F * x.data<float>()[0] + 0.1F});
        solver.step(v, x);
        seen.push_back(x.data<float>()[0]);
    }
    return seen;
}

// Values from the reference's scheduler, printed with six digits.
constexpr double printed = 1e-6;

TEST(UniPc, FollowsTheReferenceOnAToyField) {
    expect_near(toy_sequence(5),
                std::vector<float>{0.971413F, 0.930767F, 0.868341F, 0.759059F, 0.492802F}, printed);
    expect_near(toy_sequence(8),
                std::vector<float>{0.983324F, 0.962902F, 0.937251F, 0.903855F, 0.858710F, 0.794422F,
                                   0.696321F, 0.509712F},
                printed);
}

TEST(UniPc, EndsAtThePredictionInASingleStep) {
    const auto on = make_cpu_backend();
    const NoiseLevels levels = noise_levels(1, 5.0);
    UniPc solver(levels, *on);
    Tensor x = values({2}, {1, 2});
    solver.step(values({2}, {3, -1}), x);
    EXPECT_FLOAT_EQ(x.data<float>()[0], 1 - levels.sigmas[0] * 3);
    EXPECT_FLOAT_EQ(x.data<float>()[1], 2 + levels.sigmas[0]);
}

TEST(UniPc, RefusesAStepTooMany) {
    const auto on = make_cpu_backend();
    UniPc solver(noise_levels(1, 5.0), *on);
    Tensor x = values({1}, {1});
    const Tensor v = values({1}, {0});
    solver.step(v, x);
    EXPECT_THROW(solver.step(v, x), Error);
}

TEST(RenoiseStep, MixesThePredictionWithFreshNoise) {
    const auto on = make_cpu_backend();
    const NoiseLevels levels{{0.5F, 0.25F, 0.0F}, {500, 250}};
    Tensor x = values({1}, {1});
    renoise_step(levels, 0, values({1}, {2}), values({1}, {8}), *on, x);
    EXPECT_FLOAT_EQ(x.data<float>()[0], 0.25F * 8 + 0.75F * (1 - 0.5F * 2));
}

TEST(StochasticStep, WithoutAnAngleIsEulers) {
    const auto on = make_cpu_backend();
    const NoiseLevels levels{{0.5F, 0.25F, 0.0F}, {500, 250}};
    Tensor x = values({1}, {1});
    stochastic_step(levels, 0, 0.0, values({1}, {2}), values({1}, {8}), *on, x);
    EXPECT_FLOAT_EQ(x.data<float>()[0], 1 + (0.25F - 0.5F) * 2);
}

}  // namespace
}  // namespace gallop
