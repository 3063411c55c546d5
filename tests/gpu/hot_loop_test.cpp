#include "emulation/runtime.hpp"
#include "gpu/clips.hpp"
#include "gpu/judged.hpp"

// What a denoise loop asks of the device; the emulated one counts it, whoever asks.

namespace gallop {
using namespace test;
namespace {

class HotLoop : public Judged {
protected:
    /// From the second step of a stage on nobody waits for the device, asks it for memory, or copies what
    /// it doesn't reach by itself. In the first one matrix products are timed and plans are made.
    void expect_no_hold_ups(Precision precision, Item item, const Conditioning& inputs = {}) {
        item.base.steps = item.super.steps = 4;
        std::map<std::string, std::vector<emulation::Calls>> stages;
        Renderer renderer(choice(precision), *judged_);
        renderer.denoise(item, inputs, [&](const Progress& at) {
            if (at.stage == "base" || at.stage == "sr")
                stages[at.stage].push_back(emulation::calls());
        });
        EXPECT_EQ(stages.size(), item.sr.empty() ? 1U : 2U);
        for (const auto& [stage, steps] : stages) {
            ASSERT_EQ(steps.size(), 5U) << stage;
            for (std::size_t step = 2; step < steps.size(); ++step) {
                EXPECT_EQ(steps[step].waits, steps[1].waits) << stage << ", step " << step;
                EXPECT_EQ(steps[step].allocations, steps[1].allocations)
                    << stage << ", step " << step;
                EXPECT_EQ(steps[step].pageable_copies, steps[1].pageable_copies)
                    << stage << ", step " << step;
            }
        }
    }
};
INSTANTIATE_TEST_SUITE_P(On, HotLoop, ::testing::Values("cuda"),
                         [](const auto& of) { return of.param; });

TEST_P(HotLoop, OfTheBaseStage) {
    for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp8})
        expect_no_hold_ups(precision, lower(small()));
}

TEST_P(HotLoop, WithGuidanceAndAPicture) {
    for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp8})
        expect_no_hold_ups(precision, lower(guided()), {picture(), {}});
}

TEST_P(HotLoop, OfSuperResolution) {
    Item guided_twice = lower(refined("1080p_sr"));
    guided_twice.negative_prompt = "blurred, silent";
    guided_twice.super.passes = 2;
    expect_no_hold_ups(Precision::bf16, guided_twice, {picture(), sound()});
    expect_no_hold_ups(Precision::fp8, lower(refined("540p_sr")));
}

}  // namespace
}  // namespace gallop
