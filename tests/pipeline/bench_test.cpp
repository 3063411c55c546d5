#include "pipeline/bench.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

// Counted from the networks' shapes: products and attention of one forward of five seconds.
TEST(Bench, AForwardIsThatOfThePublishedNetworks) {
    const auto tflop = [](const char* name) {
        const BenchCase of = bench_case(name);
        return 1e-12 * forward_flop(of.network, of.sequence);
    };
    EXPECT_NEAR(tflop("256p"), 90 + 14, 1);
    EXPECT_NEAR(tflop("540p"), 324 + 181, 2);
    // 8 layers see all frames, 32 only those nearby.
    EXPECT_NEAR(tflop("1080p"), 1437 + 709 + 1693, 5);
    EXPECT_EQ(bench_case("1080p").network.local_attn_layers.size(), 32U);
}

TEST(Bench, AClipsStagesTakeTheirArraysFromTheirBlocks) {
    const auto on = make_cpu_backend(1);
    const auto clips = time_clips(bench_case("tiny"), Precision::bf16, 1, *on);
    ASSERT_EQ(clips.size(), 1U);
    EXPECT_EQ(clips[0].spent.stages.size(), 4U);  // text, base, sound, picture
    ASSERT_EQ(clips[0].spent.memory.size(), 3U);
    for (const auto& [stage, use] : clips[0].spent.memory) {
        EXPECT_GT(use.foretold, 0U) << stage;
        EXPECT_GT(use.extent, 0U) << stage;
        EXPECT_EQ(use.asked, 0U) << stage;
    }
}

}  // namespace
}  // namespace gallop
