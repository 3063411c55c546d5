#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace gallop {

/// A bfloat16 value: the upper half of an IEEE single. Storage only; arithmetic is in float.
struct bf16 {
    std::uint16_t bits = 0;
};

/// An IEEE half. Storage only.
struct f16 {
    std::uint16_t bits = 0;
};

/// An OCP E4M3 value ("FN": no infinity, 0x7f and 0xff are NaN, largest 448). Storage only.
struct f8_e4m3 {
    std::uint8_t bits = 0;
};

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}
inline float to_float(f16 x) {
    const std::uint32_t sign = (x.bits & 0x8000U) << 16;
    const std::uint32_t rest = x.bits & 0x7fffU;
    if (rest >= 0x7c00U)  // infinity and NaN
        return std::bit_cast<float>(sign | 0x7f800000U | ((rest & 0x3ffU) << 13));
    // A half's exponent field, read as a single's, is 112 too small; the product mends that and is
    // exact for subnormals too.
    return std::bit_cast<float>(sign | (rest << 13)) * 0x1p112F;
}
inline float to_float(f8_e4m3 x) {
    const std::uint32_t sign = (x.bits & 0x80U) << 24;
    const std::uint32_t rest = x.bits & 0x7fU;
    if (rest == 0x7fU) return std::numeric_limits<float>::quiet_NaN();
    return std::bit_cast<float>(sign | (rest << 20)) * 0x1p120F;
}

/// Rounds to nearest, ties to even; NaN stays NaN.
inline bf16 to_bf16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    const std::uint32_t nan = (bits >> 16) | 0x40U;
    return {static_cast<std::uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? nan : rounded)};
}

/// Rounds to nearest, ties to even; too large becomes infinity; NaN stays NaN.
inline f16 to_f16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return {static_cast<std::uint16_t>(sign | 0x7e00U)};
    if (magnitude >= 0x477ff000U) return {static_cast<std::uint16_t>(sign | 0x7c00U)};  // ≥ 65520
    if (magnitude <
        0x38800000U) {  // below 2^-14: let the adder round at the subnormal's last place
        const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
        return {static_cast<std::uint16_t>(sign |
                                           (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U))};
    }
    const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U;
    return {static_cast<std::uint16_t>(sign | (rounded >> 13))};
}

/// Rounds to nearest, ties to even; saturates at ±448; NaN stays NaN.
inline f8_e4m3 to_f8_e4m3(float x) {
    const auto sign = static_cast<std::uint8_t>(std::signbit(x) ? 0x80 : 0);
    const float magnitude = std::fabs(x);
    if (std::isnan(x)) return {static_cast<std::uint8_t>(sign | 0x7f)};
    if (magnitude >= 448.0F) return {static_cast<std::uint8_t>(sign | 0x7e)};
    if (magnitude < 0x1p-6F) {                      // subnormal: multiples of 2^-9
        const float shifted = magnitude + 0x1p14F;  // last place of a float near 2^14 is 2^-9
        return {static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(shifted) -
                                                  std::bit_cast<std::uint32_t>(0x1p14F)))};
    }
    const auto bits = std::bit_cast<std::uint32_t>(magnitude);
    const std::uint32_t rounded = bits + 0x7ffffU + ((bits >> 20) & 1U) - (120U << 23);
    const std::uint32_t code = rounded >> 20;
    return {static_cast<std::uint8_t>(sign | (code > 0x7eU ? 0x7eU : code))};
}

/// Rounds a float to the storage type `T`.
template <class T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
    return x;
}
template <>
inline bf16 from_float<bf16>(float x) {
    return to_bf16(x);
}
template <>
inline f16 from_float<f16>(float x) {
    return to_f16(x);
}
template <>
inline f8_e4m3 from_float<f8_e4m3>(float x) {
    return to_f8_e4m3(x);
}

}  // namespace gallop
