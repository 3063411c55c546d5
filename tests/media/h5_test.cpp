#include "media/h5.hpp"

#include <cmath>
#include <fstream>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.hpp"
#include "core/numeric.hpp"
#include "media/command.hpp"
#include "media/digest.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using testing::HasSubstr;

Tensor numbers(Shape shape, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Tensor values(shape);
    for (float& value : values.span<float>()) value = normal(random);
    return values;
}

LatentsFile latents(DType stored) {
    LatentsFile file;
    file.video_base = numbers({48, 3, 4, 6}, 1);
    file.video_final = numbers({48, 3, 8, 12}, 2);
    file.audio = numbers({9, 64}, 3);
    file.attributes = {{"format_version", std::int64_t{1}},
                       {"frames", std::int64_t{9}},
                       {"fps", 25.0},
                       {"id", "00112233445566778899aabbccddeeff"},
                       {"prompt", "Ein Café im Regen ☂"},
                       {"negative_prompt", ""},
                       {"item", std::string(100'000, 'j')},
                       {"seed", std::int64_t{-1}}};
    file.stored = stored;
    return file;
}

class LatentsH5 : public testing::Test {
protected:
    std::filesystem::path path(const std::string& name = "clip.h5") const { return folder_ / name; }
    /// Gives a file that somebody else wrote our check sum.
    void seal(const std::string& name = "clip.h5") const {
        const std::string content = read_text(path(name));
        std::ofstream(path(name), std::ios::binary)
            << content << "\ngallop sha256 " << digest_text(content) << "\n";
    }
    test::TemporaryFolder folder_;
};

void expect_same(const Tensor& found, const Tensor& wanted, bool rounded) {
    ASSERT_EQ(found.shape(), wanted.shape());
    for (Index i = 0; i < wanted.numel(); ++i) {
        const float value = wanted.data<float>()[i];
        ASSERT_EQ(found.data<float>()[i], rounded ? to_float(to_bf16(value)) : value) << i;
    }
}

TEST_F(LatentsH5, ComeBackAsTheyWereStored) {
    for (const DType stored : {DType::bf16, DType::f32}) {
        const LatentsFile wanted = latents(stored);
        write_latents(path(), wanted);
        const LatentsFile found = read_latents(path());
        expect_same(found.video_base, wanted.video_base, stored == DType::bf16);
        expect_same(found.video_final, wanted.video_final, stored == DType::bf16);
        expect_same(found.audio, wanted.audio, stored == DType::bf16);
        EXPECT_EQ(found.attributes, wanted.attributes);
        EXPECT_EQ(found.stored, stored);
    }
}

TEST_F(LatentsH5, MayLackParts) {
    LatentsFile file;
    file.video_base = numbers({48, 1, 2, 2}, 1);
    write_latents(path(), file);
    const LatentsFile found = read_latents(path());
    EXPECT_TRUE(found.video_base.defined());
    EXPECT_FALSE(found.video_final.defined());
    EXPECT_FALSE(found.audio.defined());
    EXPECT_TRUE(found.attributes.empty());
}

TEST_F(LatentsH5, AreTheSameFileTwice) {
    write_latents(path("a.h5"), latents(DType::bf16));
    write_latents(path("b.h5"), latents(DType::bf16));
    EXPECT_EQ(digest_file(path("a.h5")), digest_file(path("b.h5")));
}

TEST_F(LatentsH5, AreReadableByH5py) {
    constexpr auto python = "/usr/bin/python3";
    if (!output_of(std::string(python) + " -c 'import h5py, numpy'"))
        GTEST_SKIP() << "h5py and numpy are not installed for " << python;
    const LatentsFile wanted = latents(DType::bf16);
    write_latents(path(), wanted);
    double sum = 0;
    for (const float value : wanted.video_final.span<float>())
        sum += static_cast<double>(to_float(to_bf16(value)));
    write_atomically(path("read.py"), R"(
import sys, h5py, numpy
with h5py.File(sys.argv[1], "r") as file:
    for name, data in sorted(file.items()):
        bits = data[:]
        assert bits.dtype == numpy.uint16 and data.attrs["dtype"] == "bfloat16"
        assert data.shuffle and data.compression == "gzip" and data.compression_opts == 1
        values = (bits.astype(numpy.uint32) << 16).view(numpy.float32)
        print(name, data.shape, data.chunks, f"{values.astype(float).sum():.6f}")
    print(file.attrs["prompt"], file.attrs["frames"], file.attrs["fps"], len(file.attrs["item"]))
)");
    const auto text = output_of(fmt::format("PYTHONIOENCODING=utf-8 {} {} {}", python,
                                            path("read.py").string(), path().string()));
    ASSERT_TRUE(text);
    EXPECT_THAT(*text, HasSubstr("audio (9, 64) (9, 64)"));
    EXPECT_THAT(*text, HasSubstr("video_base (48, 3, 4, 6) (48, 1, 4, 6)"));
    EXPECT_THAT(*text,
                HasSubstr(fmt::format("video_final (48, 3, 8, 12) (48, 1, 8, 12) {:.6f}", sum)));
    EXPECT_THAT(*text, HasSubstr("Ein Café im Regen ☂ 9 25.0 100000"));
}

TEST_F(LatentsH5, MayBeWrittenByH5py) {
    constexpr auto python = "/usr/bin/python3";
    if (!output_of(std::string(python) + " -c 'import h5py, numpy'"))
        GTEST_SKIP() << "h5py and numpy are not installed for " << python;
    write_atomically(path("write.py"), R"(
import sys, h5py, numpy
with h5py.File(sys.argv[1], "w") as file:
    data = numpy.arange(48 * 2 * 3 * 4, dtype=numpy.float32).reshape(48, 2, 3, 4)
    file.create_dataset("video_base", data=data, chunks=(48, 1, 3, 4), compression="gzip")
    file.attrs["prompt"] = "by hand"
    file.attrs["fixed"] = numpy.bytes_(b"text")
    file.attrs["small"] = numpy.int32(-3)
)");
    ASSERT_TRUE(
        output_of(fmt::format("{} {} {}", python, path("write.py").string(), path().string())));
    EXPECT_THROW(read_latents(path()), InputError);  // without our check sum
    seal();
    const LatentsFile found = read_latents(path());
    ASSERT_EQ(found.video_base.shape(), Shape({48, 2, 3, 4}));
    EXPECT_EQ(found.video_base.data<float>()[1151], 1151.0F);
    EXPECT_EQ(found.attributes,
              (Attributes{{"prompt", "by hand"}, {"fixed", "text"}, {"small", std::int64_t{-3}}}));
}

TEST_F(LatentsH5, AreRefusedWhenCutOff) {
    write_latents(path(), latents(DType::bf16));
    const std::string whole = read_text(path());
    for (std::size_t part = 0; part < 20; ++part) {
        write_atomically(path("cut.h5"), whole.substr(0, whole.size() * part / 20));
        EXPECT_THROW(read_latents(path("cut.h5")), InputError) << part << "/20 of the file";
    }
    EXPECT_THROW(read_latents(path("none.h5")), InputError);
}

TEST_F(LatentsH5, AreRefusedWhenAnyByteChanged) {
    LatentsFile small;
    small.video_base = numbers({48, 2, 2, 2}, 1);
    small.attributes = {{"prompt", "rain"}, {"seed", std::int64_t{3}}};
    write_latents(path(), small);
    const std::string whole = read_text(path());
    std::mt19937 random(5);
    for (int round = 0; round < 100; ++round) {
        std::string damaged = whole;
        damaged[random() % damaged.size()] ^= static_cast<char>(1U << random() % 8);
        std::ofstream(path("damaged.h5"), std::ios::binary) << damaged;  // no fsync: it takes time
        EXPECT_THROW(read_latents(path("damaged.h5")), InputError);
    }
}

// A small file must not make the reader allocate much, nor pass off HDF5's fill values as latents.
TEST_F(LatentsH5, AreRefusedWhenChunksAreMissingOrShapesImpossible) {
    constexpr auto python = "/usr/bin/python3";
    if (!output_of(std::string(python) + " -c 'import h5py, numpy'"))
        GTEST_SKIP() << "h5py and numpy are not installed for " << python;
    write_atomically(path("write.py"), R"(
import sys, h5py, numpy
def write(name, *what, **how):
    with h5py.File(sys.argv[1] + "/" + name, "w") as file:
        file.create_dataset(*what, **how)
zeros = numpy.zeros
write("missing.h5", "video_base", (48, 9, 8, 8), "f4", chunks=(48, 1, 8, 8))
write("huge.h5", "video_base", (48, 1000000, 8000, 8000), "f4", chunks=(48, 1, 8, 8))
write("rank.h5", "video_base", (2, 8, 8), "f4", data=zeros((2, 8, 8)), chunks=(2, 8, 8))
write("double.h5", "audio", (4, 64), "f8", data=zeros((4, 64)), chunks=(4, 64))
write("u16.h5", "audio", (4, 64), "u2", data=zeros((4, 64)), chunks=(4, 64))
write("contiguous.h5", "audio", (4, 64), "f4", data=zeros((4, 64)))
)");
    ASSERT_TRUE(output_of(
        fmt::format("{} {} {}", python, path("write.py").string(), folder_.path().string())));
    for (const std::string name :
         {"missing.h5", "huge.h5", "rank.h5", "double.h5", "u16.h5", "contiguous.h5"}) {
        seal(name);
        EXPECT_THROW(read_latents(path(name)), InputError) << name;
    }
}

TEST_F(LatentsH5, AreRefusedWhenTheyHoldSomethingElse) {
    write_atomically(path(), "not HDF5 at all");
    EXPECT_THROW(read_latents(path()), InputError);
    write_latents(path(), {});
    EXPECT_THROW(read_latents(path()), InputError);  // no data set
}

TEST_F(LatentsH5, CannotBeWrittenWhereThereIsNoFolder) {
    write_atomically(path("file"), "x");
    EXPECT_THROW(write_latents(path("file") / "clip.h5", latents(DType::bf16)), Error);
}

TEST_F(LatentsH5, AreNotWrittenEmptyOrInAnotherType) {
    LatentsFile file;
    file.audio = Tensor({0, 64});
    EXPECT_THROW(write_latents(path(), file), Error);
    EXPECT_THROW(write_latents(path(), latents(DType::f16)), Error);
    EXPECT_FALSE(std::filesystem::exists(path()));
}

}  // namespace
}  // namespace gallop
