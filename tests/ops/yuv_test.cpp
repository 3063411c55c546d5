#include "core/yuv.hpp"

#include <array>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "core/view.hpp"
#include "ops/backend.hpp"

namespace gallop {
namespace {

constexpr std::array formats{"yuv420p",     "yuv422p",     "yuv444p",
                             "yuv420p10le", "yuv422p10le", "yuv444p10le"};

/// Sample (row, column) of plane 0, 1 or 2 of the last picture.
int sample(const Tensor& planes, const YuvFormat& format, Index width, Index height, int plane,
           Index row, Index column) {
    const Index columns = format.chroma_columns(width);
    const Index rows = format.chroma_rows(height);
    const Index at = plane == 0
                         ? row * width + column
                         : width * height + (plane - 1) * rows * columns + row * columns + column;
    const std::uint8_t* picture =
        planes.data<std::uint8_t>() + (planes.size(0) - 1) * planes.size(1);
    if (format.bits == 8) return picture[at];
    return picture[2 * at] + 256 * picture[2 * at + 1];
}

class ToYuv : public testing::Test {
protected:
    Tensor converted(const Tensor& rgb, const YuvFormat& format) {
        Tensor planes({rgb.size(0), format.bytes(rgb.size(2), rgb.size(1))}, DType::u8);
        std::memset(planes.view().raw(), 0xff, planes.bytes());
        on_->to_yuv(rgb, format, planes);
        return planes;
    }
    std::unique_ptr<Backend> on_ = make_cpu_backend();
};

TEST_F(ToYuv, OneColourStaysOneColour) {
    constexpr Index width = 18;
    constexpr Index height = 22;
    Tensor rgb({2, height, width, 3}, DType::u8);
    for (Index i = 0; i < rgb.numel(); ++i)
        rgb.data<std::uint8_t>()[i] = std::array<std::uint8_t, 3>{255, 0, 0}[i % 3];
    for (const char* name : formats) {
        const YuvFormat format = *yuv_format(name);
        const Tensor planes = converted(rgb, format);
        const auto red = format.bits == 8 ? std::array{63, 102, 240} : std::array{250, 409, 960};
        for (int plane = 0; plane < 3; ++plane)
            for (Index y = 0; y < (plane == 0 ? height : format.chroma_rows(height)); ++y)
                for (Index x = 0; x < (plane == 0 ? width : format.chroma_columns(width)); ++x)
                    ASSERT_EQ(sample(planes, format, width, height, plane, y, x),
                              red[static_cast<std::size_t>(plane)])
                        << name << " " << plane << " " << y << " " << x;
    }
}

// Left of column 8 (or above row 8) blue, Cb 240, else yellow, Cb 16. The sample of columns 8 and 9 is sited
// on 8: of the weights, 40 + 23 − 3 = 60 of 80 are its own and right of it, so Cb = (20·240 + 60·16)/80 =
// 72; the one before has 83 and −3, 248.4: cubic filters overshoot. The sample of rows 8 and 9 lies between
// them: 279 + 279 + 77 − 27 − 9 = 599 of 640 are below the border, so Cb = (41·240 + 599·16)/640 = 30.35.
TEST_F(ToYuv, SitesChromaAsH264Does) {
    constexpr Index side = 24;
    const auto picture = [&](bool columns) {
        Tensor rgb({1, side, side, 3}, DType::u8);
        const auto view = as<std::uint8_t, 4>(rgb.view());
        for (Index y = 0; y < side; ++y)
            for (Index x = 0; x < side; ++x) {
                const bool blue = (columns ? x : y) < 8;
                view(0, y, x, 0) = view(0, y, x, 1) = blue ? 0 : 255;
                view(0, y, x, 2) = blue ? 255 : 0;
            }
        return rgb;
    };
    const YuvFormat format;
    const auto cb = [&](const Tensor& planes, Index row, Index column) {
        return sample(planes, format, side, side, 1, row, column);
    };
    const Tensor by_columns = converted(picture(true), format);
    EXPECT_EQ(cb(by_columns, 5, 1), 240);
    EXPECT_EQ(cb(by_columns, 5, 4), 72);
    EXPECT_EQ(cb(by_columns, 5, 8), 16);
    EXPECT_EQ(cb(by_columns, 5, 3), 248);
    const Tensor by_rows = converted(picture(false), format);
    EXPECT_EQ(cb(by_rows, 1, 5), 240);
    EXPECT_EQ(cb(by_rows, 4, 5), 30);
    EXPECT_EQ(cb(by_rows, 8, 5), 16);
}

TEST_F(ToYuv, TakesExtentsThatItCanHalve) {
    const auto refused = [&](Index height, Index width, const char* name) {
        const YuvFormat format = *yuv_format(name);
        Tensor rgb({1, height, width, 3}, DType::u8);
        Tensor planes({1, format.bytes(width, height)}, DType::u8);
        try {
            on_->to_yuv(rgb, format, planes);
        } catch (const Error&) {
            return true;
        }
        return false;
    };
    EXPECT_TRUE(refused(17, 16, "yuv420p"));
    EXPECT_TRUE(refused(16, 14, "yuv422p"));
    EXPECT_FALSE(refused(17, 16, "yuv422p"));
    EXPECT_FALSE(refused(3, 5, "yuv444p"));
    Tensor rgb({2, 16, 16, 3}, DType::u8);
    Tensor short_by_one({1, 384}, DType::u8);
    EXPECT_THROW(on_->to_yuv(rgb, {}, short_by_one), Error);
}

}  // namespace
}  // namespace gallop
