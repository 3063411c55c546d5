#include "media/exif.hpp"

#include <cstdint>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "media/encode.hpp"

namespace gallop {
namespace {

using std::string_literals::operator""s;

int orientation_of(const std::string& file) {
    return exif_orientation(std::as_bytes(std::span(file)));
}

const std::string bare_jpeg = "\xFF\xD8\xFF\xDA\0\x04xx\0\0\xFF\xD9"s;

TEST(Exif, FindsTheOrientationInEachKindOfFile) {
    for (const bool big_endian : {false, true})
        for (int orientation = 1; orientation <= 8; ++orientation) {
            const std::string tiff = tiff_with_orientation(orientation, big_endian);
            const std::string size{0, 0, 0, static_cast<char>(tiff.size())};
            const std::string size_little(size.rbegin(), size.rend());
            EXPECT_EQ(orientation_of(tiff), orientation);
            EXPECT_EQ(orientation_of(with_exif(bare_jpeg, tiff)), orientation);
            EXPECT_EQ(orientation_of("\x89PNG\r\n\x1A\n"s + "\0\0\0\x01IHDRx1234"s + size + "eXIf" +
                                     tiff + "1234"),
                      orientation);
            EXPECT_EQ(
                orientation_of("RIFF\0\0\0\0WEBPVP8 \x01\0\0\0x\0"s + "EXIF" + size_little + tiff),
                orientation);
        }
}

TEST(Exif, IsUprightWithoutASensibleOrientation) {
    EXPECT_EQ(orientation_of(""), 1);
    EXPECT_EQ(orientation_of(bare_jpeg), 1);
    EXPECT_EQ(orientation_of(tiff_with_orientation(0, true)), 1);
    EXPECT_EQ(orientation_of(tiff_with_orientation(9, false)), 1);
    EXPECT_EQ(orientation_of("II*\0\xFF\xFF\xFF\xFF"s), 1);    // the directory is past the end
    EXPECT_EQ(orientation_of("II*\0\x08\0\0\0\xFF\xFF"s), 1);  // 65,535 entries that are not there
    EXPECT_EQ(orientation_of("\x89PNG\r\n\x1A\n\xFF\xFF\xFF\xFFIHDR"s), 1);
    EXPECT_EQ(orientation_of("\xFF\xD8\xFF\xE1\0\0Exif"s), 1);  // a length below its own size
    EXPECT_EQ(orientation_of("\xFF\xD8\xFF\xFF\xFF\xFF\xFF"s), 1);
}

// A cut or altered file must give some orientation and never read out of bounds (the sanitizers
// look).
TEST(Exif, SurvivesAnyBytes) {
    std::mt19937 random(1);
    const std::string tiff = tiff_with_orientation(6, true);
    const std::string whole = with_exif(bare_jpeg, tiff);
    for (int round = 0; round < 20'000; ++round) {
        std::string file = round % 2 == 0 ? whole : tiff;
        for (int change = 0; change < 3; ++change)
            file[random() % file.size()] = static_cast<char>(random());
        file.resize(random() % (file.size() + 1));
        const int orientation = orientation_of(file);
        ASSERT_TRUE(1 <= orientation && orientation <= 8);
        is_cut_off_jpeg(std::as_bytes(std::span(file)));
    }
}

TEST(Exif, KnowsAJpegThatWasCutOff) {
    const auto cut = [](const std::string& file) {
        return is_cut_off_jpeg(std::as_bytes(std::span(file)));
    };
    EXPECT_FALSE(cut(bare_jpeg));
    EXPECT_TRUE(cut(bare_jpeg.substr(0, bare_jpeg.size() - 1)));
    EXPECT_TRUE(cut(bare_jpeg.substr(0, 5)));
    // The end marker of a thumbnail inside the EXIF block is not the picture's.
    EXPECT_TRUE(cut(with_exif(bare_jpeg.substr(0, bare_jpeg.size() - 2), "\xFF\xD9")));
    EXPECT_FALSE(cut("not a JPEG"));
}

}  // namespace
}  // namespace gallop
