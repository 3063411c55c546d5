#include "core/random.hpp"

#include <cmath>
#include <cstring>
#include <numbers>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gallop {
namespace {

using testing::ElementsAre;

std::vector<float> normals(std::uint64_t seed, std::string_view name, std::size_t n,
                           std::uint64_t first = 0) {
    std::vector<float> values(n);
    fill_normal(NoiseStream(seed, name), first, values);
    return values;
}

double correlation(const std::vector<float>& a, const std::vector<float>& b, std::size_t lag = 0) {
    double sum = 0;
    for (std::size_t i = lag; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i - lag];
    return sum / static_cast<double>(a.size() - lag);
}

// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: the known answers that
// come with their library, philox4x32 with 10 rounds.
TEST(Philox, GivesTheKnownAnswers) {
    EXPECT_THAT(philox4x32_10({0, 0, 0, 0}, {0, 0}),
                ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
    const std::uint32_t ones = 0xffffffff;
    EXPECT_THAT(philox4x32_10({ones, ones, ones, ones}, {ones, ones}),
                ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
    EXPECT_THAT(
        philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
        ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

// The published test vectors of the 64-bit FNV-1a hash.
TEST(Fnv1a, GivesTheKnownAnswers) {
    EXPECT_EQ(fnv1a_64(""), 0xcbf29ce484222325U);
    EXPECT_EQ(fnv1a_64("a"), 0xaf63dc4c8601ec8cU);
    EXPECT_EQ(fnv1a_64("foobar"), 0x85944171f73967e8U);
}

// Definition 1, worked out by a second program (integers in Python, its own inverse normal
// function). A clip must never change, so neither must these.
TEST(Noise, FirstValuesNeverChange) {
    EXPECT_THAT(normals(42, "video", 6),
                ElementsAre(0x1.57d978p-1F, 0x1.4cab4ap-1F, -0x1.0399e2p-1F, -0x1.67b2b8p+0F,
                            -0x1.4a6e2p+0F, 0x1.2b06fep-5F));
    EXPECT_THAT(normals(42, "audio", 6),
                ElementsAre(-0x1.6acdfep-2F, 0x1.1e9ff8p-1F, -0x1.1522b6p+0F, 0x1.d76576p+0F,
                            -0x1.10f046p+0F, 0x1.5fb566p-1F));
    EXPECT_THAT(normals(0, "", 3), ElementsAre(-0x1.18817ap-1F, -0x1.422a68p+0F, 0x1.a78d0ap-1F));
    EXPECT_THAT(normals(~std::uint64_t{0}, "sr", 3),
                ElementsAre(-0x1.da1648p-4F, -0x1.c97fd8p-5F, 0x1.821744p-4F));
}

TEST(Noise, IndicesAbove32BitsOfBlocksCount) {
    EXPECT_THAT(normals(42, "video", 1, (std::uint64_t{1} << 34) + 1),
                ElementsAre(-0x1.106508p-2F));
    EXPECT_THAT(normals(42, "audio", 1, (std::uint64_t{1} << 34) + 1), ElementsAre(0x1.da47b4p-2F));
}

TEST(Noise, IsTheSameForEverySplit) {
    const std::vector<float> whole = normals(7, "video", 103);
    for (std::size_t piece = 1; piece <= 9; ++piece)
        for (std::size_t first = 0; first < whole.size(); first += piece) {
            const std::size_t n = std::min(piece, whole.size() - first);
            const std::vector<float> part = normals(7, "video", n, first);
            ASSERT_EQ(std::memcmp(part.data(), whole.data() + first, n * sizeof(float)), 0)
                << piece << " from " << first;
        }
}

TEST(Noise, IsTheInverseNormalOfItsBits) {
    // |Φ(x) − p| must be what the rounding of x to float explains (half an ulp: 2^-24·|x|), plus
    // erfc's own few ulps. A stride prime to 2^32 visits all regions; both ends are added.
    const auto check = [](std::uint32_t word) {
        const double x = normal_from_bits(word);
        // The smaller tail, where erfc loses nothing; both are exact in double.
        const double tail = word < 0x80000000U ? (word + 0.5) * 0x1p-32 : (~word + 0.5) * 0x1p-32;
        const double found = 0.5 * std::erfc(std::fabs(x) / std::numbers::sqrt2);
        const double density = std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
        ASSERT_NEAR(found, tail, density * std::fabs(x) * 0x1.01p-24 + 1e-14 * tail) << word;
        ASSERT_EQ(std::signbit(x), word < 0x80000000U) << word;
    };
    std::uint32_t word = 0;
    for (int i = 0; i < 400'000; ++i) check(word += 2'654'435'761U);
    for (std::uint32_t i = 0; i < 20'000; ++i) {
        check(i);
        check(~i);
    }
}

TEST(Noise, IsSymmetricMonotoneAndBounded) {
    float last = normal_from_bits(0);
    EXPECT_GT(last, -6.34F);
    EXPECT_LT(last, -6.33F);
    for (std::uint64_t word = 0; word < (std::uint64_t{1} << 32); word += 65'521) {
        const auto bits = static_cast<std::uint32_t>(word);
        const float value = normal_from_bits(bits);
        ASSERT_EQ(value, -normal_from_bits(~bits)) << word;
        ASSERT_GE(value, last) << word;
        last = value;
    }
}

TEST(Noise, HasTheMomentsOfANormal) {
    constexpr std::size_t n = 1'000'000;
    const std::vector<float> values = normals(42, "video", n);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    for (const double x : values) {
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
    }
    // Four standard errors of the sample's raw moments: √(1/n), √(2/n), √(15/n), √(96/n).
    EXPECT_NEAR(m1 / n, 0.0, 4 * std::sqrt(1.0 / n));
    EXPECT_NEAR(m2 / n, 1.0, 4 * std::sqrt(2.0 / n));
    EXPECT_NEAR(m3 / n, 0.0, 4 * std::sqrt(15.0 / n));
    EXPECT_NEAR(m4 / n, 3.0, 4 * std::sqrt(96.0 / n));
}

TEST(Noise, StreamsSeedsAndNeighboursAreIndependent) {
    constexpr std::size_t n = 250'000;
    const double limit = 4 / std::sqrt(static_cast<double>(n));  // four standard errors
    const std::vector<float> base = normals(42, "video", n);
    for (const char* name : {"audio", "video.sr", "videp", "Video", ""})
        EXPECT_NEAR(correlation(base, normals(42, name, n)), 0.0, limit) << name;
    for (const std::uint64_t seed :
         {std::uint64_t{0}, std::uint64_t{43}, 42 + (std::uint64_t{1} << 32)})
        EXPECT_NEAR(correlation(base, normals(seed, "video", n)), 0.0, limit) << seed;
    for (const std::size_t lag : {1U, 2U, 3U, 4U, 5U, 64U, 1024U})
        EXPECT_NEAR(correlation(base, base, lag), 0.0, limit) << lag;
}

}  // namespace
}  // namespace gallop
