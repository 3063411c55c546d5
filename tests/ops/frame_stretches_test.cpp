#include "ops/frame_stretches.hpp"

#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace gallop {
namespace {

constexpr Index counted = std::numeric_limits<std::int32_t>::max();

TEST(FrameStretches, AreOneWhereAllFits) {
    const auto made = frame_stretches({33, 4, 4, 8}, 3, {}, {31, 4, 4, 8}, counted, counted);
    ASSERT_EQ(made.size(), 1U);
    EXPECT_EQ(made[0].begin, 0);
    EXPECT_EQ(made[0].end, 31);
    EXPECT_EQ(made[0].first, 0);
    EXPECT_EQ(made[0].last, 33);
}

// The turbo decoder at 1080p: 36 pictures of 960 × 544 with 128 channels from a chunk in the middle, two more in
// the input. 2.5e9 elements make two stretches of 18.
TEST(FrameStretches, CutWhatCannotBeCountedIn31Bits) {
    const auto made =
        frame_stretches({38, 544, 960, 128}, 3, {}, {36, 544, 960, 128}, counted, counted);
    ASSERT_EQ(made.size(), 2U);
    EXPECT_EQ(made[0].end, 18);
    EXPECT_EQ(made[0].last, 20);
    EXPECT_EQ(made[1].begin, 18);
    EXPECT_EQ(made[1].first, 18);
    EXPECT_EQ(made[1].last, 38);
}

// Every frame of the result once, with just the frames of the input that it depends on, and none too large.
TEST(FrameStretches, CoverAllFramesWithAllTheyDependOn) {
    for (const Index kernel : {1, 2, 3, 5})
        for (const Index stride : {1, 2, 3})
            for (const Index dilation : {1, 2})
                for (Index frames = 1; frames < 30; ++frames) {
                    ConvSpec spec;
                    spec.stride[0] = stride;
                    spec.dilation[0] = dilation;
                    const Index reach = (kernel - 1) * dilation + 1;
                    const Shape x{(frames - 1) * stride + reach, 2, 3, 4};
                    const Shape y{frames, 2, 3, 5};
                    const Index most_x = 12 * 24;  // twelve frames
                    const Index most_y = 4 * 30;   // four
                    Index next = 0;
                    for (const FrameStretch& part :
                         frame_stretches(x, kernel, spec, y, most_x, most_y)) {
                        EXPECT_EQ(part.begin, next);
                        EXPECT_EQ(part.first, part.begin * stride);
                        EXPECT_EQ(part.last, (part.end - 1) * stride + reach);
                        EXPECT_LE((part.last - part.first) * 24, most_x);
                        EXPECT_LE((part.end - part.begin) * 30, most_y);
                        next = part.end;
                    }
                    EXPECT_EQ(next, frames);
                }
}

TEST(FrameStretches, TakeAFrameThatIsTooLargeByItself) {
    EXPECT_EQ(frame_stretches({4, 2, 2, 2}, 1, {}, {4, 2, 2, 2}, 7, 64).size(), 4U);
    EXPECT_EQ(frame_stretches({4, 2, 2, 2}, 1, {}, {4, 2, 2, 2}, 64, 7).size(), 4U);
}

}  // namespace
}  // namespace gallop
