#include "farm/status.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

RunStatus example() {
    RunStatus status;
    status.state = RunState::paused;
    status.reason = "disk";
    status.name = "a \"b\"\\\nc";
    status.attempt = 3;
    status.items = 10;
    status.done = 4;
    status.quarantined = 1;
    status.leased = 2;
    status.open = 3;
    status.retried = 1;
    status.failed_tries = 5;
    status.rendered_here = 2;
    status.clips_per_hour = 7.5;
    status.seconds_left = 90;
    status.cost_done = 40;
    status.cost_total = 100;
    status.disk_free = 1ULL << 40;
    status.agents = {{0, "n1", "cpu", 2, "working", 3, 1, 0.5},
                     {1, "n2", "cpu", 2, "lost", 0, 0, 31}};
    status.slots = {{0, 1, "abcd", "rain", "base", 5, 8, 12.5, 30}};
    status.failures = {
        {"abcd", "rain", "crash", "signal 9", "failed on two hosts", "n1", "logs/x.log", "then"}};
    status.updated = "2026-01-02T03:04:05Z";
    return status;
}

TEST(RunStatus, ComesBackFromItsFile) {
    const test::TemporaryFolder folder;
    const RunStatus status = example();
    ASSERT_TRUE(write_status(folder.path(), status));
    const auto read = read_status(folder.path());
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(to_json(*read), to_json(status));
    EXPECT_EQ(read->state, RunState::paused);
    EXPECT_EQ(read->slots.at(0).name, "rain");
    EXPECT_EQ(read->agents.at(1).state, "lost");
    EXPECT_EQ(read->failures.at(0).error, "signal 9");
    EXPECT_EQ(*read->seconds_left, 90);
    EXPECT_EQ(read_text(folder / "metrics.prom"), metrics_text(status));
}

TEST(RunStatus, IsNothingWhenTheFileIsMissingOrDamaged) {
    const test::TemporaryFolder folder;
    EXPECT_FALSE(read_status(folder.path()).has_value());
    for (const char* text : {"", "{", "[]", "{\"state\":\"odd\"}", "{\"state\":\"running\"}"}) {
        std::ofstream(folder / "status.json") << text;
        EXPECT_FALSE(read_status(folder.path()).has_value()) << text;
    }
}

TEST(RunStatus, IsNoErrorWhenTheDiskRefusesIt) {
    const test::TemporaryFolder folder;
    std::ofstream(folder / "file") << "x";
    set_log_level(LogLevel::error);
    EXPECT_FALSE(write_status(folder / "file", example()));
    set_log_level(LogLevel::info);
}

TEST(Metrics, GiveEachMetricItsHelpAndTypeOnce) {
    const std::string text = metrics_text(example());
    EXPECT_TRUE(text.ends_with("\n"));
    EXPECT_THAT(text,
                HasSubstr("# HELP gallop_items Distinct items of the run by what has become of "
                          "them.\n# TYPE gallop_items gauge\n"
                          "gallop_items{run=\"a \\\"b\\\"\\\\\\nc\",state=\"done\"} 4\n"));
    EXPECT_THAT(text, HasSubstr("# TYPE gallop_failed_tries_total counter\n"));
    EXPECT_THAT(text, HasSubstr(",state=\"paused\"} 1\n"));
    EXPECT_THAT(text, HasSubstr(",state=\"running\"} 0\n"));
    EXPECT_THAT(text, HasSubstr(",agent=\"1\",host=\"n2\"} 0\n"));
    // Every sample belongs to the metric that was announced last; none is announced twice.
    std::istringstream lines(text);
    std::string announced;
    std::vector<std::string> seen;
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("# TYPE ")) {
            announced = line.substr(7, line.find(' ', 7) - 7);
            EXPECT_THAT(seen, testing::Not(testing::Contains(announced)));
            seen.push_back(announced);
        } else if (!line.starts_with("# HELP ")) {
            EXPECT_EQ(line.substr(0, line.find('{')), announced);
        }
    }
    EXPECT_GE(seen.size(), 12U);
}

TEST(Metrics, LeaveOutATimeThatNobodyKnows) {
    RunStatus status = example();
    status.seconds_left.reset();
    EXPECT_THAT(metrics_text(status), testing::Not(HasSubstr("left_seconds")));
}

}  // namespace
}  // namespace gallop
