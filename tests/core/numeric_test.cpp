#include "core/numeric.hpp"

#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace gallop {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Finite non-negative values of a storage type, ascending, with their codes.
template <class T>
std::vector<std::pair<float, unsigned>> ladder(unsigned codes) {
    std::vector<std::pair<float, unsigned>> steps;
    for (unsigned code = 0; code < codes; ++code) {
        T x;
        x.bits = static_cast<decltype(x.bits)>(code);
        const float value = to_float(x);
        if (std::isfinite(value)) steps.emplace_back(value, code);
    }
    return steps;
}

/// Every value comes back from its float, NaN as NaN; `codes` is half of the code space.
template <class T>
void expect_round_trip(unsigned codes) {
    for (unsigned code = 0; code < 2 * codes; ++code) {
        T x;
        x.bits = static_cast<decltype(x.bits)>(code);
        const float value = to_float(x);
        if (std::isnan(value)) {
            EXPECT_TRUE(std::isnan(to_float(from_float<T>(value)))) << code;
        } else {
            EXPECT_EQ(from_float<T>(value).bits, code);
            EXPECT_EQ(std::signbit(value), code >= codes) << code;
        }
    }
}

/// Between neighbours: just below the middle goes down, just above goes up, the middle to the even
/// code.
template <class T>
void expect_nearest_even(unsigned codes) {
    const auto steps = ladder<T>(codes);
    for (std::size_t i = 0; i + 1 < steps.size(); ++i) {
        const auto [low, low_code] = steps[i];
        const auto [high, high_code] = steps[i + 1];
        ASSERT_EQ(high_code, low_code + 1);
        const float middle = low + (high - low) / 2;  // exact: a float has more bits than either
        const float below = std::nextafter(middle, 0.0F);
        const float above = std::nextafter(middle, infinity);
        ASSERT_EQ(from_float<T>(middle).bits, low_code % 2 == 0 ? low_code : high_code) << low;
        ASSERT_EQ(from_float<T>(below).bits, low_code) << low;
        ASSERT_EQ(from_float<T>(above).bits, high_code) << low;
        ASSERT_EQ(from_float<T>(-above).bits, high_code + codes) << low;
    }
}

TEST(Bf16, EveryCodeComesBack) { expect_round_trip<bf16>(0x8000); }
TEST(F16, EveryCodeComesBack) { expect_round_trip<f16>(0x8000); }
TEST(F8E4m3, EveryCodeComesBack) { expect_round_trip<f8_e4m3>(0x80); }

TEST(Bf16, RoundsToNearestEven) { expect_nearest_even<bf16>(0x8000); }
TEST(F16, RoundsToNearestEven) { expect_nearest_even<f16>(0x8000); }
TEST(F8E4m3, RoundsToNearestEven) { expect_nearest_even<f8_e4m3>(0x80); }

TEST(Bf16, HasItsLandmarks) {
    EXPECT_EQ(to_bf16(1.0F).bits, 0x3f80);
    EXPECT_EQ(to_bf16(-2.5F).bits, 0xc020);
    EXPECT_EQ(to_bf16(infinity).bits, 0x7f80);
    EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()).bits, 0x7f80);
    EXPECT_TRUE(std::isnan(to_float(to_bf16(nan))));
    // A NaN whose payload lies in the lower half must not become infinity.
    EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7f800001U)))));
}

TEST(F16, HasItsLandmarks) {
    EXPECT_EQ(to_f16(1.0F).bits, 0x3c00);
    EXPECT_EQ(to_float(f16{0x7bff}), 65504.0F);
    EXPECT_EQ(to_float(f16{0x0001}), 0x1p-24F);
    EXPECT_EQ(to_float(f16{0x7c00}), infinity);
    EXPECT_EQ(to_f16(65519.996F).bits, 0x7bff);
    EXPECT_EQ(to_f16(65520.0F).bits, 0x7c00);
    EXPECT_EQ(to_f16(-infinity).bits, 0xfc00);
    EXPECT_EQ(to_f16(0x1p-25F).bits, 0x0000);
    EXPECT_EQ(to_f16(-0x1p-40F).bits, 0x8000);
    EXPECT_TRUE(std::isnan(to_float(to_f16(nan))));
}

TEST(F8E4m3, HasItsLandmarks) {
    EXPECT_EQ(to_f8_e4m3(1.0F).bits, 0x38);
    EXPECT_EQ(to_float(f8_e4m3{0x7e}), 448.0F);
    EXPECT_EQ(to_float(f8_e4m3{0x01}), 0x1p-9F);
    EXPECT_EQ(to_f8_e4m3(464.0F).bits, 0x7e);  // saturates; there is no infinity
    EXPECT_EQ(to_f8_e4m3(-infinity).bits, 0xfe);
    EXPECT_EQ(to_f8_e4m3(0x1p-10F).bits, 0x00);
    EXPECT_TRUE(std::isnan(to_float(f8_e4m3{0x7f})));
    EXPECT_TRUE(std::isnan(to_float(f8_e4m3{0xff})));
    EXPECT_TRUE(std::isnan(to_float(to_f8_e4m3(nan))));
}

}  // namespace
}  // namespace gallop
