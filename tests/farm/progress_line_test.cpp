#include "farm/progress_line.hpp"

#include <gtest/gtest.h>

#include "farm/terminal.hpp"

namespace gallop {
namespace {

TEST(ProgressText, SaysItemsPaceTimeLeftAndFailures) {
    RunStatus status;
    status.items = 200;
    status.done = 137;
    EXPECT_EQ(progress_text(status), "[137/200]");
    status.clips_per_hour = 411.7;
    status.seconds_left = 552;
    status.failed_tries = 3;
    status.quarantined = 1;
    status.slots = {{0, 0, "ab", "rain", "base", 5, 8, 1, 2}};
    EXPECT_EQ(progress_text(status),
              "[137/200] 412 clips/h, eta 9:12, 3 failed tries, 1 quarantined | rain base 5/8");
    status.slots.push_back({});
    status.clips_per_hour = 3.14;
    EXPECT_EQ(progress_text(status),
              "[137/200] 3.1 clips/h, eta 9:12, 3 failed tries, 1 quarantined | 1/2 busy | rain "
              "base 5/8");
}

TEST(ProgressText, SaysWhyNothingHappens) {
    RunStatus status;
    status.items = 2;
    status.state = RunState::paused;
    status.reason = "3 GB free";
    status.seconds_left = 5;
    EXPECT_EQ(progress_text(status), "[0/2] paused (3 GB free)");
}

TEST(Terminal, CutsALineAtItsColumns) {
    EXPECT_EQ(fit("abcdef", 6), "abcdef");
    EXPECT_EQ(fit("abcdef", 5), "abcd…");
    EXPECT_EQ(fit("abcdef", 1), "…");
    EXPECT_EQ(fit("abcdef", 0), "");
    EXPECT_EQ(fit("äöü", 3), "äöü");
    EXPECT_EQ(fit("äöü", 2), "ä…");
    EXPECT_EQ(fit("日本語", 6), "日本語");
    EXPECT_EQ(fit("日本語", 5), "日本…");
    EXPECT_EQ(fit("日本語", 4), "日…");
    EXPECT_EQ(fit("e\u0301e", 2), "e\u0301e");
}

TEST(Terminal, LetsNoNameMoveTheCursor) {
    EXPECT_EQ(fit("a\x1b[2Jb\nc\td\x7f", 80), "a?[2Jb?c?d?");
    EXPECT_EQ(fit("\xff\xc3(\xe2\x80", 80), "?\?(?\?");
    EXPECT_EQ(fit("a\u202eb", 80), "a?b");  // right-to-left override
}

TEST(Terminal, WritesTimesAsClocksDo) {
    EXPECT_EQ(clock_text(0), "0:00");
    EXPECT_EQ(clock_text(59.6), "1:00");
    EXPECT_EQ(clock_text(3599), "59:59");
    EXPECT_EQ(clock_text(11045), "3:04:05");
    EXPECT_EQ(clock_text(183840), "2d 03:04");
}

TEST(Terminal, WritesBytesInDecimalUnits) {
    EXPECT_EQ(bytes_text(0), "0 B");
    EXPECT_EQ(bytes_text(999), "999 B");
    EXPECT_EQ(bytes_text(1500), "1.5 kB");
    EXPECT_EQ(bytes_text(999999), "1.0 MB");
    EXPECT_EQ(bytes_text(25e9), "25 GB");
}

}  // namespace
}  // namespace gallop
