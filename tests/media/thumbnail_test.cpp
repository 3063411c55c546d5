#include "media/thumbnail.hpp"

#include <array>
#include <cstdlib>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/clip.hpp"
#include "core/error.hpp"
#include "core/files.hpp"
#include "core/view.hpp"
#include "media/image.hpp"
#include "media/mp4.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using Colour = std::array<std::uint8_t, 3>;
constexpr Colour red = {200, 30, 40};
constexpr Colour green = {30, 180, 60};
constexpr Colour blue = {20, 50, 210};
constexpr Colour grey = {128, 128, 128};

Tensor plain(Index height, Index width, const Colour& colour) {
    Tensor picture({1, height, width, 3}, DType::u8);
    for (Index i = 0; i < picture.numel(); ++i)
        picture.data<std::uint8_t>()[i] = colour[static_cast<std::size_t>(i % 3)];
    return picture;
}

/// Nine plain pictures, red first, green in the middle, blue last; silence, then from the middle of
/// the clip a square wave of half the full scale.
void write_clip(const std::filesystem::path& path, int width, int height) {
    constexpr int frames = 9;
    Tensor sound = Tensor::zeros({2, frames * samples_per_frame});
    for (Index channel = 0; channel < 2; ++channel)
        for (Index i = sound.size(1) / 2; i < sound.size(1); ++i)
            sound.data<float>()[channel * sound.size(1) + i] = i / 10 % 2 == 0 ? 0.5F : -0.5F;
    Mp4Options options;
    options.width = width;
    options.height = height;
    options.preset = "ultrafast";
    Mp4Writer writer(path, options, std::move(sound));
    for (int n = 0; n < frames; ++n)
        writer.add_frames(plain(height, width,
                                n == 0            ? red
                                : n == frames / 2 ? green
                                : n == 8          ? blue
                                                  : grey));
    writer.finish();
}

void expect_colour(const Tensor& image, Index y, Index x, const Colour& colour) {
    const auto pixels = as<std::uint8_t, 3>(image.view());
    for (Index c = 0; c < 3; ++c)  // the codec's rounding, 4:2:0
        EXPECT_NEAR(pixels(y, x, c), colour[static_cast<std::size_t>(c)], 6) << y << " " << x;
}

TEST(ContactStrip, ShowsFirstMiddleAndLastPictureAndTheSound) {
    const test::TemporaryFolder folder;
    write_clip(folder / "clip.mp4", 384, 224);
    const Tensor strip = contact_strip(folder / "clip.mp4");
    ASSERT_EQ(strip.shape(), Shape({112 + 2 + 32, 3 * 192 + 4, 3}));  // half the size
    for (const Index y : {0, 56, 111}) {
        expect_colour(strip, y, 3, red);
        expect_colour(strip, y, 190, red);
        expect_colour(strip, y, 290, green);
        expect_colour(strip, y, 390, blue);
        expect_colour(strip, y, 579, blue);
    }
    const Colour ground = {24, 26, 30};
    expect_colour(strip, 10, 192, ground);  // the gaps
    expect_colour(strip, 113, 50, ground);
    // The waveform's rows are 114 … 145; half of full scale is 8 rows above and below the middle.
    expect_colour(strip, 122, 100, ground);
    expect_colour(strip, 138, 100, ground);
    const auto pixels = as<std::uint8_t, 3>(strip.view());
    for (const Index y : {124, 130, 136}) EXPECT_GT(pixels(y, 450, 2), 200) << y;
    expect_colour(strip, 115, 450, ground);
    expect_colour(strip, 144, 450, ground);
}

TEST(ContactStrip, KeepsSmallAndUprightPicturesInProportion) {
    const test::TemporaryFolder folder;
    write_clip(folder / "small.mp4", 64, 32);
    EXPECT_EQ(contact_strip(folder / "small.mp4").shape(), Shape({32 + 2 + 32, 3 * 64 + 4, 3}));
    write_clip(folder / "upright.mp4", 128, 448);
    EXPECT_EQ(contact_strip(folder / "upright.mp4").shape(), Shape({112 + 2 + 32, 3 * 32 + 4, 3}));
}

TEST(ContactStrip, RefusesWhatIsNoClip) {
    const test::TemporaryFolder folder;
    std::ofstream(folder / "text.mp4") << "no clip";
    EXPECT_THROW(contact_strip(folder / "text.mp4"), InputError);
    EXPECT_THROW(contact_strip(folder / "missing.mp4"), InputError);
    write_clip(folder / "clip.mp4", 64, 32);
    const std::string whole = read_text(folder / "clip.mp4");
    std::ofstream(folder / "cut.mp4") << whole.substr(0, 200);
    EXPECT_THROW(contact_strip(folder / "cut.mp4"), InputError);
}

TEST(Jpeg, ComesBackNearlyTheSameAndTwiceTheSameBytes) {
    const test::TemporaryFolder folder;
    Tensor image = plain(34, 46, blue);  // no multiples of eight
    image.reshape({34, 46, 3});
    write_jpeg(folder / "one.jpg", image);
    write_jpeg(folder / "two.jpg", image);
    EXPECT_EQ(read_text(folder / "one.jpg"), read_text(folder / "two.jpg"));
    const Tensor back = load_image(folder / "one.jpg");
    ASSERT_EQ(back.shape(), image.shape());
    for (const Index y : {0, 16, 33}) expect_colour(back, y, 45, blue);
}

}  // namespace
}  // namespace gallop
