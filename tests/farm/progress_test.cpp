#include "farm/progress.hpp"

#include <gtest/gtest.h>

#include "core/log.hpp"

namespace gallop {
namespace {

TEST(ProgressReport, SaysStageStepAndTimeLeft) {
    set_log_level(LogLevel::error);
    ProgressReport report(3, false);
    report.begin_item("rain", 100);
    report.step({"base", 0, 8}, 101);
    EXPECT_EQ(report.text(101), "[1/3] rain base 0/8");
    report.step({"base", 1, 8}, 111);  // the first step loads models: it is not measured
    EXPECT_EQ(report.text(111), "[1/3] rain base 1/8");
    report.step({"base", 3, 8}, 115);
    EXPECT_EQ(report.text(115), "[1/3] rain base 3/8 stage eta 0:10");
    report.end_item(true, 160);
    report.begin_item("cafe", 160);
    report.step({"text", 0, 1}, 170);
    // A clip takes 60 s: one more after this one, of which 10 s are gone.
    EXPECT_EQ(report.text(170), "[2/3] cafe text 0/1 eta 1:50");
    set_log_level(LogLevel::info);
}

}  // namespace
}  // namespace gallop
