#include "core/yuv.hpp"

#include <array>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gallop {
namespace {

using testing::ElementsAre;

/// 8-bit levels of a colour.
std::array<int, 3> levels(int r, int g, int b, int bits = 8) {
    const YuvPixel p = yuv_pixel(r, g, b);
    const auto chroma = [&](std::int32_t x) { return yuv_level(yuv_between(x << 14) << 12, bits); };
    return {yuv_luma(p.y, bits), chroma(p.u), chroma(p.v)};
}

// By hand: Y′ = 16 + 219·(0.2126 r + 0.7152 g + 0.0722 b), Cb = 128 + 224·(b − luma)/1.8556,
// Cr = 128 + 224·(r − luma)/1.5748, with r, g, b, luma in 0 … 1.
TEST(Yuv, IsBt709InLimitedRange) {
    EXPECT_THAT(levels(0, 0, 0), ElementsAre(16, 128, 128));
    EXPECT_THAT(levels(255, 255, 255), ElementsAre(235, 128, 128));
    EXPECT_THAT(levels(255, 0, 0), ElementsAre(63, 102, 240));       // 62.56, 102.34, 240
    EXPECT_THAT(levels(0, 255, 0), ElementsAre(173, 42, 26));        // 172.63, 41.66, 26.27
    EXPECT_THAT(levels(0, 0, 255), ElementsAre(32, 240, 118));       // 31.81, 240, 117.73
    EXPECT_THAT(levels(128, 128, 128), ElementsAre(126, 128, 128));  // 125.93
    EXPECT_THAT(levels(0, 0, 0, 10), ElementsAre(64, 512, 512));
    EXPECT_THAT(levels(255, 255, 255, 10), ElementsAre(940, 512, 512));
    EXPECT_THAT(levels(255, 0, 0, 10), ElementsAre(250, 409, 960));  // 250.24, 409.36, 960
}

// The cubic at half pixels, of 80: −3, 0, 23, 40, 23, 0, −3; of 16,384, what rounding leaves going on.
TEST(Yuv, ChromaOfTwoColumnsIsSitedOnTheLeftOne) {
    const YuvTaps taps = yuv_taps(true, true, 1 << 14);
    EXPECT_EQ(taps.step, 2);
    EXPECT_EQ(taps.first, -3);
    EXPECT_THAT(taps.weights[YuvTaps::border], ElementsAre(-614, 0, 4710, 8192, 4710, 0, -614, 0));
    // The first one: what lies left of the picture is its first column, 60 of 80.
    EXPECT_THAT(taps.weights[0], ElementsAre(0, 0, 0, 12288, 4710, 0, -614, 0));
}

// At quarters of a pixel, of 640: −9, −27, 77, 279, 279, 77, −27, −9; of 4,096.
TEST(Yuv, ChromaOfTwoRowsIsSitedBetweenThem) {
    const YuvTaps taps = yuv_taps(true, false, 1 << 12);
    EXPECT_THAT(taps.weights[YuvTaps::border],
                ElementsAre(-58, -172, 492, 1786, 1786, 492, -172, -58));
    // The last one: 341 of 640 below the middle.
    EXPECT_THAT(taps.weights[2 * YuvTaps::border],
                ElementsAre(-58, -172, 492, 1786, 2048, 0, 0, 0));
}

TEST(Yuv, WeightsAddUpAndStayInside) {
    for (const bool columns : {true, false}) {
        const std::int32_t one = columns ? 1 << 14 : 1 << 12;
        for (const bool halved : {true, false}) {
            const YuvTaps taps = yuv_taps(halved, columns, one);
            for (const std::int64_t n : {4, 5, 8, 960}) {  // samples of chroma
                for (std::int64_t i = 0; i < n; ++i) {
                    const auto& weights = taps.weights[taps.kind(i, n)];
                    EXPECT_EQ(std::accumulate(weights, weights + taps.count, 0), one);
                    for (int tap = 0; tap < taps.count; ++tap) {
                        const std::int64_t at = taps.step * i + taps.first + tap;
                        EXPECT_TRUE(weights[tap] == 0 || (0 <= at && at < taps.step * n));
                    }
                }
            }
        }
    }
}

TEST(Yuv, KnowsFormatsByName) {
    EXPECT_EQ(yuv_format("yuv420p"), YuvFormat{});
    EXPECT_EQ(yuv_format("yuv422p10le"), (YuvFormat{10, true, false}));
    EXPECT_EQ(yuv_format("yuv444p"), (YuvFormat{8, false, false}));
    EXPECT_EQ(yuv_format("nv12"), std::nullopt);
    EXPECT_EQ(yuv_format("yuv420p10be"), std::nullopt);
    EXPECT_EQ(yuv_format("10le"), std::nullopt);
    EXPECT_EQ(YuvFormat{}.bytes(1920, 1088), 1920 * 1088 * 3 / 2);
    EXPECT_EQ(yuv_format("yuv422p10le")->bytes(32, 16), 32 * 16 * 4);
    EXPECT_EQ(yuv_format("yuv444p")->bytes(17, 3), 17 * 3 * 3);
}

}  // namespace
}  // namespace gallop
