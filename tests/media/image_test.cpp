#include "media/image.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

extern "C" {
#include <libavutil/crc.h>
}

#include "core/files.hpp"
#include "core/view.hpp"
#include "media/encode.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using Rgb = std::array<int, 3>;
using std::string_literals::operator""s;

Rgb pixel(const Tensor& image, Index y, Index x) {
    const auto view = as<std::uint8_t, 3>(image.view());
    return {view(y, x, 0), view(y, x, 1), view(y, x, 2)};
}

void expect_close(const Rgb& found, const Rgb& wanted, int tolerance, const std::string& what) {
    for (std::size_t c = 0; c < 3; ++c)
        EXPECT_NEAR(found[c], wanted[c], tolerance) << what << ", channel " << c;
}

/// JFIF's Y′CbCr → RGB, by its published formula.
Rgb jfif(double y, double cb, double cr) {
    const auto round = [](double v) {
        return static_cast<int>(std::lround(std::clamp(v, 0., 255.)));
    };
    return {round(y + 1.402 * (cr - 128)), round(y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)),
            round(y + 1.772 * (cb - 128))};
}

class Image : public testing::Test {
protected:
    Tensor load(const std::string& content, const std::string& name = "picture") {
        write_atomically(folder_ / name, content);
        return load_image(folder_ / name);
    }
    test::TemporaryFolder folder_;
};

using Ycc = std::array<std::uint8_t, 3>;
constexpr std::array<Ycc, 4> quarters{
    {{76, 85, 255}, {150, 44, 21}, {29, 255, 107}, {255, 128, 128}}};

/// 32×48 with a colour in each quarter: red, green; blue, white.
std::string quarters_jpeg() {
    return encode_picture("mjpeg", AV_PIX_FMT_YUVJ444P, 48, 32, [](AVFrame& frame) {
        for (int c = 0; c < 3; ++c)
            for (int y = 0; y < 32; ++y)
                for (int x = 0; x < 48; ++x)
                    frame.data[c][y * frame.linesize[c] + x] =
                        quarters[static_cast<std::size_t>(2 * (y / 16) + x / 24)]
                                [static_cast<std::size_t>(c)];
    });
}

TEST_F(Image, ReadsJpegColoursInFullRange) {
    const Tensor image = load(quarters_jpeg());
    ASSERT_EQ(image.shape(), Shape({32, 48, 3}));
    for (std::size_t q = 0; q < 4; ++q) {
        const auto [y, cb, cr] = quarters[q];
        // 2: one for the converter's fixed point, one for the encoder's quantisation.
        expect_close(pixel(image, q / 2 == 0 ? 6 : 26, q % 2 == 0 ? 10 : 38), jfif(y, cb, cr), 2,
                     fmt::format("quarter {}", q));
    }
}

TEST_F(Image, ReadsEveryBrightnessOfASubsampledJpeg) {
    const std::string jpeg =
        encode_picture("mjpeg", AV_PIX_FMT_YUVJ420P, 256, 16, [](AVFrame& frame) {
            for (int y = 0; y < 16; ++y)
                for (int x = 0; x < 256; ++x)
                    frame.data[0][y * frame.linesize[0] + x] = static_cast<std::uint8_t>(x);
            for (int c = 1; c < 3; ++c)
                for (int y = 0; y < 8; ++y)
                    std::memset(frame.data[c] + y * frame.linesize[c], 128, 128);
        });
    const Tensor image = load(jpeg);
    for (Index x = 0; x < 256; ++x) {
        const auto grey = static_cast<int>(x);
        expect_close(pixel(image, 8, x), {grey, grey, grey}, 2, fmt::format("column {}", x));
    }
}

// Where the chroma of a halved side changes between two columns, the picture changes half way.
TEST_F(Image, KeepsChromaInPlaceWhenTheWidthIsOdd) {
    constexpr int edge = 136;  // chroma columns; a multiple of 8, so that the DCT keeps it sharp
    for (const int width : {302, 301}) {
        const std::string jpeg =
            encode_picture("mjpeg", AV_PIX_FMT_YUVJ420P, width, 15, [](AVFrame& frame) {
                for (int y = 0; y < 15; ++y)
                    std::memset(frame.data[0] + y * frame.linesize[0], 128, 302);
                for (int y = 0; y < 8; ++y)
                    for (int x = 0; x < 151; ++x) {
                        frame.data[1][y * frame.linesize[1] + x] = x < edge ? 96 : 160;
                        frame.data[2][y * frame.linesize[2] + x] = 128;
                    }
            });
        const Tensor image = load(jpeg);
        ASSERT_EQ(image.shape(), Shape({15, width, 3}));
        // Blue left and right of the edge lie as far below the middle as above it: 128
        // + 1.772·(±32). 6: the DCT's rounding near the edge; a quarter column's shift makes 40 and
        // more.
        EXPECT_NEAR(pixel(image, 7, 2 * edge - 1)[2] + pixel(image, 7, 2 * edge)[2], 256, 6)
            << width;
        EXPECT_NEAR(pixel(image, 7, 2 * edge - 20)[2], 71, 3);
        EXPECT_NEAR(pixel(image, 7, 2 * edge + 20)[2], 185, 3);
    }
}

// TIFF 6.0's table: where the stored row 0 and column 0 are on the upright picture.
struct Turn {
    int orientation;
    std::array<int, 4>
        corners;  ///< quarter shown at top left, top right, bottom left, bottom right
};
constexpr std::array<Turn, 8> turns{{
    {1, {0, 1, 2, 3}},  // row 0 top, column 0 left
    {2, {1, 0, 3, 2}},  // top, right
    {3, {3, 2, 1, 0}},  // bottom, right
    {4, {2, 3, 0, 1}},  // bottom, left
    {5, {0, 2, 1, 3}},  // left, top
    {6, {2, 0, 3, 1}},  // right, top
    {7, {3, 1, 2, 0}},  // right, bottom
    {8, {1, 3, 0, 2}},  // left, bottom
}};

TEST_F(Image, IsTurnedUprightForAllEightOrientations) {
    const std::string jpeg = quarters_jpeg();
    for (const bool big_endian : {false, true})
        for (const Turn& turn : turns) {
            const Tensor image =
                load(with_exif(jpeg, tiff_with_orientation(turn.orientation, big_endian)));
            const bool swap = turn.orientation >= 5;
            ASSERT_EQ(image.shape(), swap ? Shape({48, 32, 3}) : Shape({32, 48, 3}));
            for (std::size_t corner = 0; corner < 4; ++corner) {
                const auto [y, cb, cr] = quarters[static_cast<std::size_t>(turn.corners[corner])];
                expect_close(pixel(image, corner / 2 == 0 ? 2 : image.size(0) - 3,
                                   corner % 2 == 0 ? 2 : image.size(1) - 3),
                             jfif(y, cb, cr), 2,
                             fmt::format("orientation {} corner {}", turn.orientation, corner));
            }
        }
}

TEST_F(Image, DropsAlpha) {
    const std::string png = encode_picture("png", AV_PIX_FMT_RGBA, 3, 2, [](AVFrame& frame) {
        for (int y = 0; y < 2; ++y)
            for (int x = 0; x < 3; ++x) {
                const std::array<std::uint8_t, 4> colour{200, 100, 50,
                                                         static_cast<std::uint8_t>(x)};
                std::memcpy(frame.data[0] + y * frame.linesize[0] + 4 * x, colour.data(), 4);
            }
    });
    const Tensor image = load(png);
    ASSERT_EQ(image.shape(), Shape({2, 3, 3}));
    for (Index x = 0; x < 3; ++x) EXPECT_EQ(pixel(image, 1, x), (Rgb{200, 100, 50}));
}

TEST_F(Image, RepeatsGreyExactly) {
    const std::string png = encode_picture("png", AV_PIX_FMT_GRAY8, 256, 1, [](AVFrame& frame) {
        for (int x = 0; x < 256; ++x) frame.data[0][x] = static_cast<std::uint8_t>(x);
    });
    const Tensor image = load(png);
    for (Index x = 0; x < 256; ++x) {
        const auto grey = static_cast<int>(x);
        EXPECT_EQ(pixel(image, 0, x), (Rgb{grey, grey, grey}));
    }
}

TEST_F(Image, KeepsTheHighByteOfSixteenBits) {
    const std::string png = encode_picture("png", AV_PIX_FMT_RGB48BE, 16, 1, [](AVFrame& frame) {
        for (int x = 0; x < 16; ++x)
            for (int c = 0; c < 3; ++c) {
                frame.data[0][6 * x + 2 * c] = static_cast<std::uint8_t>(16 * x + c);
                frame.data[0][6 * x + 2 * c + 1] = 0x40;
            }
    });
    const Tensor image = load(png);
    for (Index x = 0; x < 16; ++x) {
        const auto base = static_cast<int>(16 * x);
        expect_close(pixel(image, 0, x), {base, base + 1, base + 2}, 0,
                     fmt::format("column {}", x));
    }
}

TEST_F(Image, ReadsPalettes) {
    const std::string png = encode_picture("png", AV_PIX_FMT_PAL8, 4, 1, [](AVFrame& frame) {
        const std::array<std::uint32_t, 4> colours{0xFF102030, 0xFF405060, 0x00708090, 0xFFA0B0C0};
        std::memset(frame.data[1], 0, AVPALETTE_SIZE);
        std::memcpy(frame.data[1], colours.data(), sizeof colours);
        for (int x = 0; x < 4; ++x) frame.data[0][x] = static_cast<std::uint8_t>(x);
    });
    const Tensor image = load(png);
    EXPECT_EQ(pixel(image, 0, 0), (Rgb{0x10, 0x20, 0x30}));
    EXPECT_EQ(pixel(image, 0, 2), (Rgb{0x70, 0x80, 0x90}));  // transparent: its colour all the same
    EXPECT_EQ(pixel(image, 0, 3), (Rgb{0xA0, 0xB0, 0xC0}));
}

TEST_F(Image, ReadsBmpAndWebp) {
    const auto fill = [](AVFrame& frame) {
        for (int y = 0; y < 4; ++y)
            for (int x = 0; x < 4; ++x) {
                const std::array<std::uint8_t, 4> bgra{50, 100, 200, 255};
                std::memcpy(frame.data[0] + y * frame.linesize[0] + 4 * x, bgra.data(), 4);
            }
    };
    EXPECT_EQ(pixel(load(encode_picture("bmp", AV_PIX_FMT_BGRA, 4, 4, fill)), 3, 3),
              (Rgb{200, 100, 50}));
    const std::string webp = encode_picture("libwebp", AV_PIX_FMT_BGRA, 4, 4, fill, 100);
    if (webp.empty()) GTEST_SKIP() << "this FFmpeg has no WebP encoder to make the test's picture";
    // 3: lossy coding, in limited range.
    expect_close(pixel(load(webp), 2, 2), {200, 100, 50}, 3, "webp");
}

TEST_F(Image, ComesBackFromItsPng) {
    Tensor image({5, 7, 3}, DType::u8);
    for (Index i = 0; i < image.numel(); ++i)
        image.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(37 * i);
    write_png(folder_ / "sheet.png", image);
    const Tensor back = load_image(folder_ / "sheet.png");
    ASSERT_EQ(back.shape(), image.shape());
    EXPECT_TRUE(std::equal(back.span<std::uint8_t>().begin(), back.span<std::uint8_t>().end(),
                           image.span<std::uint8_t>().begin()));
}

TEST_F(Image, RefusesWhatIsNoPicture) {
    EXPECT_THROW(load(""), InputError);
    EXPECT_THROW(load("no picture at all, only words, and a few more of them"), InputError);
    EXPECT_THROW(load_image(folder_ / "missing.png"), InputError);
    EXPECT_THROW(load_image(folder_.path()), InputError);
    // A playlist must not make us read another file.
    write_png(folder_ / "real.png", Tensor::zeros({8, 8, 3}, DType::u8));
    EXPECT_THROW(load("ffconcat version 1.0\nfile real.png\n", "list.txt"), InputError);
}

TEST_F(Image, RefusesAPictureThatIsCutOff) {
    const std::string jpeg = quarters_jpeg();
    EXPECT_THROW(load(jpeg.substr(0, jpeg.size() - 40)), InputError);
    Tensor noise({64, 64, 3}, DType::u8);
    for (Index i = 0; i < noise.numel(); ++i)
        noise.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * i * 7919 >> 5);
    write_png(folder_ / "whole.png", noise);
    const std::string png = read_text(folder_ / "whole.png");
    EXPECT_THROW(load(png.substr(0, png.size() / 2)), InputError);
}

TEST_F(Image, RefusesADecompressionBomb) {
    // A small picture, and the same whose header claims 40,000 × 40,000 pixels, with a right check
    // sum.
    write_png(folder_ / "small.png", Tensor::zeros({8, 8, 3}, DType::u8));
    std::string png = read_text(folder_ / "small.png");
    const std::string side = "\0\0\x9C\x40"s;
    png.replace(16, 8, side + side);
    const std::uint32_t sum = ~av_crc(av_crc_get_table(AV_CRC_32_IEEE_LE), ~0U,
                                      reinterpret_cast<const std::uint8_t*>(png.data()) + 12, 17);
    for (std::size_t i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(sum >> (24 - 8 * i));
    try {
        load(png);
        FAIL() << "accepted";
    } catch (const InputError& error) {
        EXPECT_NE(std::string(error.what()).find("beyond 200000000 pixels"), std::string::npos)
            << error.what();
    }
}

}  // namespace
}  // namespace gallop
