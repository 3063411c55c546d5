#include "ops/gemm_choices.hpp"

#include <thread>

#include <gmock/gmock.h>

#include "core/files.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using test::TemporaryFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* platform = "NVIDIA H100 80GB HBM3, cuBLASLt 130100";

GemmKey key(Index out) {
    GemmKey made;
    made.rows = 4352;
    made.out = out;
    made.depth = 5120;
    made.in = DType::f8_e4m3;
    made.to = DType::bf16;
    return made;
}
GemmAlgorithm algorithm(std::uint64_t first) {
    return {first, 2, 3, ~std::uint64_t{0}, 0, 6, 7, 8};
}

TEST(GemmChoices, HaveSixteenBucketsAnOctave) {
    std::vector<Index> buckets;
    for (const Index rows : {0, 1, 16, 17, 255, 257, 526, 4096, 4110, 4352, 4353, 8192, 65806})
        buckets.push_back(row_bucket(rows));
    EXPECT_THAT(buckets,
                ElementsAre(16, 16, 16, 32, 256, 272, 544, 4096, 4352, 4352, 4608, 8192, 8192));
    for (Index rows = 1; rows < 8192; ++rows) {
        ASSERT_GE(row_bucket(rows), rows);
        ASSERT_EQ(row_bucket(row_bucket(rows)), row_bucket(rows)) << "a bucket is its own";
    }
}

TEST(GemmChoices, TakeTheLeastMedianAmongTheSameBits) {
    const GemmTrial first{true, {10, 10, 10}};
    const GemmTrial other_bits{false, {1, 1, 1}};
    const GemmTrial faster{true, {7, 8, 99}};
    const GemmTrial lucky_once{true, {1, 12, 12}};
    const GemmTrial hardly{true, {9.9, 9.9, 9.9}};
    EXPECT_EQ(fastest(std::array{first, other_bits, lucky_once, faster}), 3U);
    EXPECT_EQ(fastest(std::array{first, hardly, other_bits}), 0U) << "1 % is noise";
    EXPECT_EQ(fastest(std::array{first}), 0U);
}

TEST(GemmChoices, AreFoundAgainByAnotherProcess) {
    const TemporaryFolder folder;
    GemmChoices made(folder.path() / "not yet there", platform);
    EXPECT_FALSE(made.find(key(1)));
    made.put(key(1), algorithm(1));
    made.put(key(2), algorithm(2));
    const GemmChoices again(folder.path() / "not yet there", platform);
    EXPECT_EQ(again.find(key(1)), algorithm(1));
    EXPECT_EQ(again.find(key(2)), algorithm(2));
    EXPECT_FALSE(again.find(key(3)));
    GemmKey added = key(1);
    added.add = true;
    EXPECT_FALSE(again.find(added)) << "every field counts";
}

TEST(GemmChoices, AreOfOnePlatform) {
    const TemporaryFolder folder;
    GemmChoices made(folder.path(), platform);
    made.put(key(1), algorithm(1));
    EXPECT_FALSE(GemmChoices(folder.path(), "NVIDIA H100 80GB HBM3, cuBLASLt 130200").find(key(1)));
    // A file that says another platform than its name does.
    const GemmChoices other(folder.path(), "NVIDIA H200, cuBLASLt 130100");
    std::filesystem::copy_file(made.path(), other.path());
    EXPECT_FALSE(GemmChoices(folder.path(), "NVIDIA H200, cuBLASLt 130100").find(key(1)));
}

// Whatever happens to the file, what is read from it is a choice that was made.
TEST(GemmChoices, SurviveDamage) {
    const TemporaryFolder folder;
    GemmChoices made(folder.path(), platform);
    for (Index out = 1; out <= 3; ++out)
        made.put(key(out), algorithm(static_cast<std::uint64_t>(out)));
    const std::string whole = read_text(made.path());
    for (std::size_t at = 0; at < whole.size(); at += 7) {
        std::string damaged = whole;
        damaged[at] = damaged[at] == '7' ? '8' : '7';
        for (const std::string& text : {damaged, whole.substr(0, at)}) {
            write_atomically(made.path(), text);
            const GemmChoices read(folder.path(), platform);
            for (Index out = 1; out <= 3; ++out)
                if (const auto found = read.find(key(out))) {
                    EXPECT_EQ(*found, algorithm(static_cast<std::uint64_t>(out))) << at;
                }
        }
    }
    // The next choice mends it.
    write_atomically(made.path(), "nonsense");
    made.put(key(4), algorithm(4));
    EXPECT_EQ(GemmChoices(folder.path(), platform).find(key(1)), algorithm(1));
}

TEST(GemmChoices, OfSeveralProcessesAddUp) {
    const TemporaryFolder folder;
    GemmChoices one(folder.path(), platform);
    GemmChoices two(folder.path(), platform);
    one.put(key(1), algorithm(1));
    two.put(key(2), algorithm(2));
    EXPECT_EQ(two.find(key(1)), algorithm(1)) << "not timed again";
    EXPECT_EQ(GemmChoices(folder.path(), platform).find(key(1)), algorithm(1));
    // At the same time, none reads half a file.
    std::vector<std::jthread> writers;
    for (Index writer = 0; writer < 4; ++writer)
        writers.emplace_back([&, writer] {
            GemmChoices own(folder.path(), platform);
            for (Index i = 0; i < 20; ++i) own.put(key(100 * (writer + 1) + i), algorithm(5));
        });
    writers.clear();
    EXPECT_EQ(GemmChoices(folder.path(), platform).find(key(1)), algorithm(1));
}

TEST(GemmChoices, NeedNoFolder) {
    GemmChoices made("", platform);
    made.put(key(1), algorithm(1));
    EXPECT_EQ(made.find(key(1)), algorithm(1));
    EXPECT_TRUE(made.path().empty());
    const TemporaryFolder folder;
    write_atomically(folder.path() / "file", "x");
    GemmChoices in_a_file(folder.path() / "file", platform);
    in_a_file.put(key(1), algorithm(1));
    EXPECT_EQ(in_a_file.find(key(1)), algorithm(1)) << "only said, not thrown";
}

}  // namespace
}  // namespace gallop
