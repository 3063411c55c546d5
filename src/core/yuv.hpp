#pragma once

// RGB → Y′CbCr by the BT.709 matrix in limited range, in whole numbers, written once for the host and the
// device. Luma is 16 … 235 of 255, chroma 16 … 240. Where chroma is halved it is filtered bicubically
// (C = 0.6) from all pixels around; columns are sited on the left one of two, rows between both, which is
// H.264's default. Steps and roundings are swscale's (bicubic, accurate_rnd, full chroma input, bitexact),
// so that a picture gives the same bytes wherever it is converted. Reads without fmt.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gallop {

/// Planes Y′, Cb, Cr of a picture, one after the other without gaps.
struct YuvFormat {
    int bits = 8;              ///< 8: bytes; 10: in 16 bits, little-endian
    bool half_columns = true;  ///< chroma has half the columns
    bool half_rows = true;     ///< chroma has half the rows

    constexpr std::int64_t chroma_columns(std::int64_t width) const {
        return half_columns ? width / 2 : width;
    }
    constexpr std::int64_t chroma_rows(std::int64_t height) const {
        return half_rows ? height / 2 : height;
    }
    constexpr std::int64_t sample_bytes() const { return bits == 8 ? 1 : 2; }
    /// Bytes of one picture. What is halved must be even.
    constexpr std::int64_t bytes(std::int64_t width, std::int64_t height) const {
        return (width * height + 2 * chroma_columns(width) * chroma_rows(height)) * sample_bytes();
    }
    bool operator==(const YuvFormat&) const = default;
};

/// What FFmpeg calls yuv420p, yuv422p, yuv444p, and these with 10le; nothing for other names.
constexpr std::optional<YuvFormat> yuv_format(std::string_view name) {
    YuvFormat made;
    if (name.ends_with("10le")) {
        made.bits = 10;
        name.remove_suffix(4);
    }
    if (name != "yuv420p" && name != "yuv422p" && name != "yuv444p") return {};
    made.half_columns = name != "yuv444p";
    made.half_rows = name == "yuv420p";
    return made;
}

/// Luma and chroma of one pixel, in 64ths of an 8-bit level.
struct YuvPixel {
    std::int32_t y, u, v;
};
constexpr YuvPixel yuv_pixel(std::int32_t r, std::int32_t g, std::int32_t b) {
    // The matrix times 219/255 (luma) and 224/255 (chroma), in 15 binary places.
    constexpr std::int32_t half = 1 << 8;
    constexpr std::int32_t black = 16 << 15;
    constexpr std::int32_t grey = 128 << 15;
    return {(5983 * r + 20127 * g + 2032 * b + black + half) >> 9,
            (-3298 * r - 11094 * g + 14392 * b + grey + half) >> 9,
            (14392 * r - 13073 * g - 1320 * b + grey + half) >> 9};
}

/// The weights with which samples of an axis make those of chroma. Sample i reads the samples
/// step·i + first + tap of the axis, where weights are not zero always inside it.
struct YuvTaps {
    static constexpr int most = 8;
    static constexpr int border = 2;  ///< samples at each end that have weights of their own
    int step = 1;
    int first = 0;
    int count = 1;
    std::int32_t weights[2 * border + 1][most] = {};  ///< left ones, inner ones, right ones

    /// Which weights sample i of `n` has. n is at least 2·border, or no sample has others.
    constexpr int kind(std::int64_t i, std::int64_t n) const {
        if (step == 1) return border;
        if (i < border) return static_cast<int>(i);
        return i >= n - border ? static_cast<int>(i - n) + 2 * border + 1 : border;
    }
};

/// Weights that add up to `one`. An axis that is halved has at least 8 samples and an even number.
constexpr YuvTaps yuv_taps(bool halved, bool columns, std::int32_t one) {
    YuvTaps taps;
    if (!halved) {
        for (auto& kind : taps.weights) kind[0] = one;
        return taps;
    }
    // The cubic of B = 0, C = 0.6 at every half pixel (columns) or quarter (rows), of 80 and 640.
    constexpr std::int32_t column[YuvTaps::most] = {-3, 0, 23, 40, 23, 0, -3, 0};
    constexpr std::int32_t row[YuvTaps::most] = {-9, -27, 77, 279, 279, 77, -27, -9};
    const auto& cubic = columns ? column : row;
    const std::int32_t sum = columns ? 80 : 640;
    taps.step = 2;
    taps.first = -3;
    taps.count = columns ? 7 : 8;
    constexpr int length = 16;  // an axis on which every kind of sample occurs
    for (int kind = 0; kind <= 2 * YuvTaps::border; ++kind) {
        const int i = kind > YuvTaps::border ? length / 2 - (2 * YuvTaps::border + 1 - kind) : kind;
        const int from = taps.step * i + taps.first;
        std::int32_t folded[YuvTaps::most] = {};  // beyond an end the last sample repeats
        for (int tap = 0; tap < taps.count; ++tap) {
            const int at = from + tap;
            folded[(at < 0 ? 0 : at >= length ? length - 1 : at) - from] += cubic[tap];
        }
        std::int32_t error = 0;  // what rounding leaves goes to the next
        for (int tap = 0; tap < taps.count; ++tap) {
            const std::int32_t exact = folded[tap] * one + error;
            const std::int32_t rounded = (exact + (exact < 0 ? -sum : sum) / 2) / sum;
            taps.weights[kind][tap] = rounded;
            error = exact - rounded * sum;
        }
    }
    return taps;
}

/// The weights of both axes, of chroma.
struct YuvFilter {
    YuvTaps columns, rows;
};
constexpr YuvFilter yuv_filter(const YuvFormat& format) {
    return {yuv_taps(format.half_columns, true, 1 << 14),
            yuv_taps(format.half_rows, false, 1 << 12)};
}

/// A sum of 64ths of a level with a column's weights, in 128ths.
constexpr std::int32_t yuv_between(std::int32_t sum) {
    const std::int32_t value = sum >> 13;
    return value < 32767 ? value : 32767;
}
/// The level of a sum of 128ths with a row's weights.
constexpr std::int32_t yuv_level(std::int32_t sum, int bits) {
    const int shift = 27 - bits;
    const std::int32_t level = (sum + (1 << (shift - 1))) >> shift;
    const std::int32_t most = (1 << bits) - 1;
    return level < 0 ? 0 : level > most ? most : level;
}
/// The level of a pixel's luma.
constexpr std::int32_t yuv_luma(std::int32_t y, int bits) { return yuv_level(y << 13, bits); }

}  // namespace gallop
