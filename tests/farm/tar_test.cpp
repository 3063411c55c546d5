#include "farm/tar.hpp"

#include <array>
#include <cstdio>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using testing::HasSubstr;

/// What a Python program prints.
std::string python(const std::string& program) {
    std::FILE* pipe = ::popen(("python3 -c '" + program + "' 2>&1").c_str(), "r");
    std::string output;
    std::array<char, 4096> part{};
    while (const std::size_t got = std::fread(part.data(), 1, part.size(), pipe))
        output.append(part.data(), got);
    ::pclose(pipe);
    return output;
}

TEST(TarHeader, IsOneUstarBlockWorkedByHand) {
    const std::string header = tar_header("a.txt", 5);
    ASSERT_EQ(header.size(), 512U);
    EXPECT_EQ(header.substr(0, 6), std::string("a.txt\0", 6));
    EXPECT_EQ(header.substr(124, 12), std::string("00000000005\0", 12));
    EXPECT_EQ(header.substr(257, 8), std::string("ustar\00000", 8));
    // The sum of all bytes, the sum's own eight counted as spaces: "a.txt" 97+46+116+120+116 = 495;
    // mode 7·48+6+4+4 = 350, owner and group 2·336, size 11·48+5 = 533, time 528, sum 256,
    // type 48, "ustar" 117+115+116+97+114 = 559, "00" 96, "root" 2·(114+111+111+116) = 904,
    // device numbers 2·336: 5113 = 11771 in octal.
    EXPECT_EQ(header.substr(148, 8), std::string("011771\0 ", 8));
}

TEST(TarHeader, AsksPaxForLongNamesAndHugeFiles) {
    EXPECT_EQ(tar_header(std::string(100, 'n'), (1ULL << 33) - 1).size(), 512U);
    EXPECT_THAT(tar_header(std::string(101, 'n'), 1), HasSubstr("\n"));
    const std::string huge = tar_header("x", 1ULL << 33);
    ASSERT_EQ(huge.size(), 3 * 512U);
    EXPECT_EQ(huge[156], 'x');
    EXPECT_EQ(huge.substr(512, 19), "19 size=8589934592\n");  // the length counts itself
    EXPECT_EQ(tar_member_bytes("x", 1ULL << 33), 3 * 512 + (1ULL << 33));
    EXPECT_EQ(tar_member_bytes("x", 1), 1024U);
    EXPECT_EQ(tar_member_bytes("x", 0), 512U);
}

TEST(TarWriter, WritesWhatPythonReads) {
    const test::TemporaryFolder folder;
    std::ofstream(folder / "file") << std::string(1500000, 'z');
    const std::string long_name = std::string(130, 'd') + "/ü.txt";
    TarWriter writer(folder / "out.tar", "what it is");
    writer.add("one.json", "{\"a\":1}");
    writer.add_file("two.bin", folder / "file");
    writer.add(long_name, "");
    const std::uint64_t bytes = writer.finish();
    EXPECT_EQ(bytes, std::filesystem::file_size(folder / "out.tar"));
    EXPECT_EQ(bytes, 1024 + tar_member_bytes("one.json", 7) + tar_member_bytes("two.bin", 1500000) +
                         tar_member_bytes(long_name, 0) + 1024);
    EXPECT_EQ(tar_comment(folder / "out.tar"), "what it is");
    const std::string told = python(
        "import tarfile\n"
        "t = tarfile.open(\"" +
        (folder / "out.tar").string() +
        "\", errorlevel=2)\n"
        "print(t.pax_headers)\n"
        "for m in t: print(len(m.name), m.size, m.mtime, oct(m.mode), m.isreg(), "
        "sum(t.extractfile(m).read()))\n");
    EXPECT_EQ(told,
              "{'comment': 'what it is'}\n"
              "8 7 0 0o644 True " +
                  std::to_string('{' + '"' * 2 + 'a' + ':' + '1' + '}') +
                  "\n7 1500000 0 0o644 True " + std::to_string(1500000 * 'z') +
                  "\n136 0 0 0o644 True 0\n");
}

TEST(TarWriter, LeavesNothingUnlessItIsFinished) {
    const test::TemporaryFolder folder;
    {
        TarWriter writer(folder / "out.tar", "c");
        writer.add("a", "b");
        EXPECT_THROW(writer.add_file("x", folder / "missing"), InputError);
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(TarComment, IsNothingForOtherFiles) {
    const test::TemporaryFolder folder;
    EXPECT_FALSE(tar_comment(folder / "missing").has_value());
    std::ofstream(folder / "short") << "x";
    EXPECT_FALSE(tar_comment(folder / "short").has_value());
    std::ofstream(folder / "other") << tar_header("a", 0) << std::string(1024, '\0');
    EXPECT_FALSE(tar_comment(folder / "other").has_value());
}

}  // namespace
}  // namespace gallop
