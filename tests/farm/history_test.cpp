#include "farm/history.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/test_run.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;
using State = ItemHistory::State;
using test::TestRun;
using testing::HasSubstr;

TEST(RunHistory, FollowsEachItemThroughItsEvents) {
    TestRun run(5);
    run.attempt(1);
    for (std::size_t item = 0; item < 4; ++item) run.leased(item);
    run.done(0);
    run.failed(1, "error", "boom");
    run.failed(2, "disk", "full");
    run.append({{"event", "released"}, {"id", run.id(3)}, {"agent", 0}, {"reason", "stop"}});
    RunHistory history(run.path());
    EXPECT_EQ(history.update(), 10U);
    EXPECT_EQ(history[0].state, State::done);
    EXPECT_EQ(history[1].state, State::open);
    EXPECT_EQ(history[1].tries, 1);
    EXPECT_EQ(history.event(history[1].failed)["error"], "boom");
    EXPECT_EQ(history[2].tries, 0);  // a full disk is nobody's fault
    EXPECT_EQ(history[3].state, State::open);
    EXPECT_EQ(history[4].state, State::open);
    EXPECT_EQ(history.attempt(), 1);
    EXPECT_FALSE(history.ended());
    EXPECT_EQ(history.rendered_here(), 1U);
    EXPECT_EQ(history.agents().at(0).done, 1U);
    EXPECT_EQ(history.agents().at(0).failed, 2U);

    run.quarantined(1, "tries are used up", "boom");
    run.ended("quarantined");
    EXPECT_EQ(history.update(), 2U);
    EXPECT_EQ(history[1].state, State::quarantined);
    EXPECT_EQ(history.outcome(), "quarantined");
    run.append({{"event", "retry"}, {"id", run.id(1)}});
    run.attempt(2);
    history.update();
    EXPECT_EQ(history[1].state, State::open);
    EXPECT_EQ(history[1].tries, 0);
    EXPECT_EQ(history.rendered_here(), 0U);
    EXPECT_TRUE(history.event(history[1].failed).is_null());
}

TEST(RunHistory, TakesNothingFinishedBack) {
    TestRun run(1);
    run.attempt(1);
    run.done(0);
    run.failed(0, "error", "a second copy");
    run.leased(0);
    run.quarantined(0, "late", "late");
    RunHistory history(run.path());
    history.update();
    EXPECT_EQ(history[0].state, State::done);
    EXPECT_EQ(history.event(history[0].decided)["event"], "done");
}

TEST(RunHistory, ForgetsLeasesOfAnEarlierAttempt) {
    TestRun run(2);
    run.attempt(1);
    run.leased(0);
    RunHistory history(run.path());
    history.update();
    EXPECT_EQ(history[0].state, State::leased);
    run.attempt(2);
    history.update();
    EXPECT_EQ(history[0].state, State::open);
}

TEST(RunHistory, WaitsForTheEndOfALineAndPassesOverDamage) {
    TestRun run(2);
    const std::string done = journal_line({{"event", "done"}, {"id", run.id(0)}});
    std::string damaged = journal_line({{"event", "done"}, {"id", run.id(1)}});
    damaged[12] ^= 1;
    std::ofstream(run.path() / "journal.jsonl") << damaged << done.substr(0, 30);
    RunHistory history(run.path());
    EXPECT_EQ(history.update(), 0U);
    EXPECT_EQ(history.damaged_lines(), 1U);
    std::ofstream(run.path() / "journal.jsonl", std::ios::app) << done.substr(30);
    EXPECT_EQ(history.update(), 1U);
    EXPECT_EQ(history[0].state, State::done);
    EXPECT_EQ(history[1].state, State::open);
}

TEST(RunHistory, MergesTheJournalsOfAttachedProcesses) {
    TestRun run(2);
    run.append({{"event", "done"}, {"id", run.id(0)}}, "journal-n1-7.jsonl");
    run.append({{"event", "done"}, {"id", run.id(1)}}, "journal-n2-9.jsonl");
    RunHistory history(run.path());
    EXPECT_EQ(history.update(), 2U);
    EXPECT_EQ(history.count(State::done), 2U);
    EXPECT_EQ(history.event(history[1].decided)["id"], run.id(1));
}

TEST(RunHistory, ForgivesWhatARetryHadReadWhateverTheClocksSay) {
    TestRun run(3);
    const char* const attached = "journal-n1-7.jsonl";
    const auto append = [&](const char* kind, std::size_t item, const char* time) {
        run.append({{"event", kind}, {"id", run.id(item)}, {"kind", "error"}, {"time", time}},
                   attached);
    };
    // The host of the journal is an hour ahead.
    append("failed", 0, "2026-11-22T08:00:00Z");
    append("quarantined", 0, "2026-11-22T08:00:00Z");
    append("quarantined", 1, "2026-11-22T08:00:00Z");
    append("failed", 2, "2026-11-22T08:00:00Z");
    RunHistory follower = test::history_of(run);
    run.append(follower.read_event());
    for (std::size_t item = 0; item < 3; ++item)
        run.append({{"event", "retry"}, {"id", run.id(item)}, {"time", "2026-11-22T07:00:00Z"}});
    append("failed", 1, "2026-11-22T08:00:01Z");
    follower.update();
    for (const RunHistory& history : {test::history_of(run), std::move(follower)}) {
        EXPECT_EQ(history[0].state, State::open);
        EXPECT_EQ(history[0].tries, 0);
        EXPECT_EQ(history[1].state, State::open);
        EXPECT_EQ(history[1].tries, 1);
        EXPECT_EQ(history[2].tries, 0);
    }
}

TEST(RunHistory, TakesBackAClipThatAnAttachedProcessMissed) {
    TestRun run(2);
    for (std::size_t item = 0; item < 2; ++item) run.done(item);
    const auto append = [&](Json event, std::size_t item, const char* journal) {
        event["id"] = run.id(item);
        run.append(event, journal);
    };
    RunHistory follower = test::history_of(run);
    const Json read = follower.read_event();
    run.append(read, "journal-n2-8.jsonl");
    for (std::size_t item = 0; item < 2; ++item)
        append({{"event", "reopened"}}, item, "journal-n2-8.jsonl");
    append({{"event", "quarantined"}}, 0, "journal-n2-8.jsonl");
    // Another process missed it, too, and rendered it: read before the line above, but newer.
    append({{"event", "done"}}, 1, "journal-n1-7.jsonl");
    follower.update();
    for (const RunHistory& history : {test::history_of(run), std::move(follower)}) {
        EXPECT_EQ(history[0].state, State::quarantined);
        EXPECT_EQ(history[1].state, State::done);
        EXPECT_EQ(history.event(history[1].decided).value("time", "none"), "none");
    }
}

TEST(RunHistory, FindsItemsByIdStartAndName) {
    TestRun run(20);
    const RunHistory history(run.path());
    for (std::size_t item = 0; item < 20; ++item) {
        EXPECT_EQ(history.find(run.id(item)), item);
        EXPECT_EQ(history.resolve(run.id(item)), item);
        EXPECT_EQ(history.resolve(run.id(item).substr(0, 10)), item);
        EXPECT_EQ(history.resolve("item" + std::to_string(item)), item);
    }
    EXPECT_FALSE(history.find("abc").has_value());
    EXPECT_FALSE(history.find(std::string(32, '0')).has_value());
    EXPECT_THROW(history.resolve("item"), InputError);
    EXPECT_THROW(history.resolve("item99"), InputError);
}

TEST(UtcTime, IsCountedInSeconds) {
    EXPECT_EQ(seconds_of_utc("1970-01-01T00:01:00Z"), 60);
    EXPECT_EQ(seconds_of_utc("2026-11-22T06:48:01Z"), 1795330081);
    EXPECT_FALSE(seconds_of_utc("yesterday").has_value());
    EXPECT_FALSE(seconds_of_utc("").has_value());
}

}  // namespace
}  // namespace gallop
