#include "pipeline/fit_image.hpp"

#include <filesystem>

#include <gtest/gtest.h>

#include "model/checkpoint.hpp"

namespace gallop {
namespace {

TEST(CentreCrop, RoundsHalvesToEven) {
    EXPECT_EQ(centre_crop(1000, 1000, {448, 256}), (CropBox{0, 214, 1000, 786}));
    EXPECT_EQ(centre_crop(300, 100, {32, 32}), (CropBox{100, 0, 200, 100}));
}

class Lanczos : public ::testing::TestWithParam<const char*> {};

TEST_P(Lanczos, GivesPillowsBytes) {
    const auto file =
        Checkpoint::open(std::filesystem::path(GALLOP_GOLDEN) / "lanczos/resize.safetensors");
    const Tensor image = file.read(std::string(GetParam()) + ".image");
    const Tensor expected = file.read(std::string(GetParam()) + ".resized");
    const Tensor actual = resize_lanczos(
        image, {static_cast<int>(expected.size(1)), static_cast<int>(expected.size(0))});
    ASSERT_EQ(actual.shape(), expected.shape());
    for (Index i = 0; i < actual.numel(); ++i)
        ASSERT_EQ(actual.data<std::uint8_t>()[i], expected.data<std::uint8_t>()[i]) << "at " << i;
}

INSTANTIATE_TEST_SUITE_P(Cases, Lanczos,
                         ::testing::Values("shrink", "enlarge", "one_axis", "both_ways"));

TEST(FitImage, LeavesAPictureOfTheRightSizeAlone) {
    Tensor image({32, 64, 3}, DType::u8);
    for (Index i = 0; i < image.numel(); ++i)
        image.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 37);
    const Tensor same = fit_image(image, {64, 32});
    EXPECT_TRUE(std::equal(image.span<std::uint8_t>().begin(), image.span<std::uint8_t>().end(),
                           same.span<std::uint8_t>().begin()));
}

TEST(FitImage, KeepsTheMiddle) {
    // Left and right thirds are black, the middle is white.
    Tensor image({32, 96, 3}, DType::u8);
    for (Index y = 0; y < 32; ++y)
        for (Index x = 0; x < 96; ++x)
            for (Index c = 0; c < 3; ++c)
                image.data<std::uint8_t>()[(y * 96 + x) * 3 + c] = x >= 32 && x < 64 ? 255 : 0;
    const Tensor middle = fit_image(image, {32, 32});
    for (const std::uint8_t value : middle.span<std::uint8_t>()) ASSERT_EQ(value, 255);
}

}  // namespace
}  // namespace gallop
