#include "core/files.hpp"

#include <algorithm>
#include <array>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/file_errors.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;

std::size_t files_in(const fs::path& folder) {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(InputFile, ReadsAnyPartAndNoFurther) {
    const TemporaryFolder folder;
    write_atomically(folder / "a", "0123456789");
    const InputFile file(folder / "a");
    EXPECT_EQ(file.size(), 10U);
    std::array<std::byte, 4> part{};
    file.read(3, part);
    EXPECT_EQ(static_cast<char>(part[0]), '3');
    EXPECT_EQ(static_cast<char>(part[3]), '6');
    EXPECT_THROW(file.read(7, part), Error);
    EXPECT_NO_THROW(file.read(10, std::span<std::byte>()));
}

TEST(InputFile, MissingFilesAndFoldersAreWrongRequests) {
    const TemporaryFolder folder;
    EXPECT_THROW(InputFile(folder / "none"), InputError);
    EXPECT_THROW(InputFile(folder.path()), InputError);
}

TEST(FileErrors, TellADiskThatRefusesFromAPathThatIsWrong) {
    EXPECT_THROW(throw_file_error("a", "cannot open", ENOSPC), DiskError);
    EXPECT_THROW(throw_file_error("a", "cannot open", EACCES), AccessError);
    EXPECT_THROW(throw_file_error("a", "cannot open", ENOTDIR), AccessError);
    const TemporaryFolder folder;
    write_atomically(folder / "a", "x");
    EXPECT_THROW(write_atomically(folder / "a" / "b", "x"), AccessError);
    try {
        throw_file_error("a", "cannot open", EMFILE);
        FAIL() << "no exception";
    } catch (const Error& failed) {
        EXPECT_STREQ(failed.what(), "a: cannot open: Too many open files");
        EXPECT_EQ(dynamic_cast<const AccessError*>(&failed), nullptr);
    }
}

TEST(InputFile, WhatCannotBeOpenedForAnotherReasonIsNoWrongRequest) {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "without descriptors the sanitizer cannot look at an exception's type";
#endif
    const TemporaryFolder folder;
    write_atomically(folder / "a", "whole");
    ::rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    const ::rlimit none{0, before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
    std::string kind;
    try {
        InputFile(folder / "a");
    } catch (const InputError&) {
        kind = "input";
    } catch (const Error&) {
        kind = "error";
    }
    ::setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_EQ(kind, "error");
    EXPECT_TRUE(is_disk_errno(ESTALE)) << "a file server that lost its mount";
}

TEST(ReadText, HoldsToItsLimit) {
    const TemporaryFolder folder;
    write_atomically(folder / "a", "12345");
    EXPECT_EQ(read_text(folder / "a", 5), "12345");
    EXPECT_THROW(read_text(folder / "a", 4), InputError);
}

TEST(AtomicFile, ShowsNothingBeforeCommit) {
    const TemporaryFolder folder;
    const fs::path target = folder / "deep/er/out";
    {
        AtomicFile file(target);
        std::ofstream(file.path()) << "whole";
        EXPECT_FALSE(fs::exists(target));
        EXPECT_EQ(file.path().parent_path(), target.parent_path());
        file.commit();
    }
    EXPECT_EQ(read_text(target), "whole");
    EXPECT_EQ(files_in(target.parent_path()), 1U);
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
    const TemporaryFolder folder;
    write_atomically(folder / "out", "old");
    {
        const AtomicFile file(folder / "out");
        std::ofstream(file.path()) << "half";
    }
    EXPECT_EQ(read_text(folder / "out"), "old");
    EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMeet) {
    const TemporaryFolder folder;
    AtomicFile first(folder / "out");
    AtomicFile second(folder / "out");
    EXPECT_NE(first.path(), second.path());
    std::ofstream(first.path()) << "first";
    std::ofstream(second.path()) << "second";
    second.commit();
    first.commit();
    EXPECT_EQ(read_text(folder / "out"), "first");
}

TEST(AtomicFile, AFolderThatCannotBeMadeIsAnError) {
    const TemporaryFolder folder;
    write_atomically(folder / "file", "");
    EXPECT_THROW(AtomicFile(folder / "file/out"), Error);
}

// A child writes one version after the other and is killed at some moment of it, again and again.
TEST(AtomicFile, AKillLeavesAWholeFile) {
    const TemporaryFolder folder;
    const fs::path target = folder / "out";
    constexpr std::size_t size = 1 << 20;
    int seen = 0;
    for (int round = 0; round < 12; ++round) {
        const ::pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            for (unsigned version = 0;; ++version)
                write_atomically(target, std::string(size, static_cast<char>('a' + version % 26)));
        }
        ::usleep(static_cast<::useconds_t>(2'000 + 3'700 * round));
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        if (!fs::exists(target)) continue;
        ++seen;
        const std::string text = read_text(target);
        ASSERT_EQ(text.size(), size);
        ASSERT_EQ(std::count(text.begin(), text.end(), text[0]), static_cast<std::ptrdiff_t>(size));
    }
    EXPECT_GT(seen, 0) << "no version was ever finished";
}

TEST(AtomicFile, ADiskThatFillsUpKeepsTheOldFile) {
    const TemporaryFolder folder;
    write_atomically(folder / "out", "old");
    const ::pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {  // a limit on file sizes stands in for the full disk
        ::signal(SIGXFSZ, SIG_IGN);
        const ::rlimit limit{4096, 4096};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        int code = 1;
        try {
            write_atomically(folder / "out", std::string(100'000, 'x'));
        } catch (const Error&) {
            code = 7;
        }
        ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    EXPECT_EQ(read_text(folder / "out"), "old");
    EXPECT_EQ(files_in(folder.path()), 1U);
}

}  // namespace
}  // namespace gallop
