// Attached processes, which share a run without a coordinator; their engine is a fake. This program,
// started with "attach" as its first argument, is such a process.

#include <csignal>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/files.hpp"
#include "farm/coordinator.hpp"
#include "farm/history.hpp"
#include "farm/journal.hpp"
#include "farm/status.hpp"
#include "support/planned_run.hpp"
#include "tests/farm/fake_renderer.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using coordinator::Outcome;
using State = ItemHistory::State;
using Json = nlohmann::json;

class Attached : public testing::Test {
protected:
    void take(const std::string& items,
              const std::vector<std::string>& set = {"retry.other_host=false"}) {
        directory_ = run_.freeze(run_.plan(items, set), "run");
    }
    ::pid_t start(int slots = 2) const {
        const std::string count = std::to_string(slots);
        const ::pid_t child = ::fork();
        if (child == 0) {
            ::execl("/proc/self/exe", "processes_test", "attach", directory_.c_str(), count.c_str(),
                    nullptr);
            ::_exit(127);
        }
        return child;
    }
    static Outcome end_of(::pid_t child) {
        int code = 0;
        ::waitpid(child, &code, 0);
        EXPECT_TRUE(WIFEXITED(code));
        return static_cast<Outcome>(WEXITSTATUS(code));
    }
    std::vector<Json> events(const std::string& kind) const {
        std::vector<Json> found;
        RunHistory history(directory_);
        history.update([&](const Json& event, std::optional<std::size_t>) {
            if (event.value("event", "") == kind) found.push_back(event);
        });
        return found;
    }
    std::string id(std::size_t item) const {
        return id_text(RunHistory(directory_).plan().rows[item].id);
    }
    /// What another host's process has written.
    void others_wrote(const std::vector<Json>& events) const {
        std::string lines;
        for (Json event : events) {
            event["host"] = "other";
            lines += journal_line(event);
        }
        write_atomically(directory_ / "journal-other-1-1.jsonl", lines);
    }
    RunStatus status() const { return read_status(directory_).value_or(RunStatus{}); }

    test::PlannedRun run_;
    fs::path directory_;
};

TEST_F(Attached, ShareARunAndLeaveWhatACoordinatorWould) {
    take(
        "items: [{name: a, prompt: p}, {name: b, prompt: q}, {name: c, prompt: r}, {name: d, "
        "prompt: s}, {name: e, prompt: t}, {name: f, prompt: bad-luck once}]");
    const ::pid_t one = start();
    const ::pid_t other = start();
    EXPECT_EQ(end_of(one), Outcome::complete);
    EXPECT_EQ(end_of(other), Outcome::complete);
    std::set<std::string> done;
    for (const Json& event : events("done")) EXPECT_TRUE(done.insert(event["id"]).second);
    EXPECT_EQ(done.size(), 6U);
    EXPECT_EQ(events("failed").size(), 1U);
    EXPECT_THAT(read_text(directory_ / "COMPLETE"), testing::StartsWith("complete "));
    EXPECT_TRUE(fs::exists(directory_ / "index.jsonl"));
    EXPECT_TRUE(fs::exists(directory_ / "report" / "index.html"));
    EXPECT_FALSE(fs::exists(directory_ / "leases"));
    EXPECT_EQ(status().state, RunState::finished);
    EXPECT_EQ(status().done, 6U);
    EXPECT_EQ(status().failed_tries, 1U);
    EXPECT_EQ(status().agents.size(), 2U);
    EXPECT_THAT(read_text(directory_ / "metrics.prom"), testing::HasSubstr("gallop_"));
}

TEST_F(Attached, ShowTheRunWhileTheyWorkAndThatTheyLeft) {
    take("items: [{prompt: slow a}, {prompt: slow b}, {prompt: slow c}]");
    const ::pid_t child = start();
    for (int tries = 0; tries < 1000 && status().items == 0; ++tries) test::rest(10);
    EXPECT_EQ(status().state, RunState::running);
    EXPECT_EQ(status().items, 3U);
    EXPECT_EQ(status().done, 0U);
    for (int tries = 0; tries < 1000 && events("leased").empty(); ++tries) test::rest(10);
    ::kill(child, SIGTERM);
    EXPECT_EQ(end_of(child), Outcome::stopped);
    EXPECT_EQ(status().state, RunState::stopped);
    EXPECT_EQ(status().leased, 0U);
    EXPECT_EQ(status().open, 3U);
}

TEST_F(Attached, DecodeInTilesAfterMemoryRanOut) {
    take("items: [{name: a, prompt: fits-in-tiles}, {name: b, prompt: q}]");
    EXPECT_EQ(end_of(start()), Outcome::complete);
    const auto failed = events("failed");
    ASSERT_EQ(failed.size(), 1U);
    EXPECT_EQ(failed[0]["kind"], "out_of_memory");
    ASSERT_EQ(events("done").size(), 2U);
    for (const Json& done : events("done"))
        EXPECT_EQ(done.value("tiled", false), done["id"] == failed[0]["id"]);
}

TEST_F(Attached, DoNotTakeARequestForWrongWhileAnotherProcessCouldRenderIt) {
    take("items: [{name: a, prompt: once not-here}]", {"schedule.silent=0.3"});
    fs::create_directories(directory_ / "leases");
    write_atomically(directory_ / "leases" / "clock-other-1-1",
                     "");  // as one that is there makes it
    EXPECT_EQ(end_of(start()), Outcome::complete);
    ASSERT_EQ(events("failed").size(), 1U);
    EXPECT_EQ(events("failed")[0]["kind"], "input");
}

TEST_F(Attached, TryForThemselvesWhatOnlyAnotherHostCalledWrong) {
    take("items: [{name: a, prompt: bad-luck once}]");
    others_wrote({{{"event", "failed"}, {"id", id(0)}, {"kind", "input"}}});
    EXPECT_EQ(end_of(start()), Outcome::complete);
    EXPECT_EQ(events("failed").size(), 2U);
}

TEST_F(Attached, GiveUpWhatIsLostWithItsRendererTooOften) {
    take("items: [{name: a, prompt: p}, {name: b, prompt: q}]",
         {"name=never finish, then exit", "schedule.order=manifest", "retry.attempts=1"});
    others_wrote({{{"event", "released"}, {"id", id(0)}, {"kind", "lost"}}});
    EXPECT_EQ(end_of(start(1)), Outcome::quarantined);
    EXPECT_EQ(events("released").size(), 2U);
    std::map<std::string, std::string> reasons;
    for (const Json& event : events("quarantined")) reasons[event["id"]] = event["reason"];
    EXPECT_THAT(reasons[id(0)], testing::HasSubstr("was lost 2 times"));
    EXPECT_THAT(reasons[id(1)], testing::HasSubstr("failed 1 times"));
}

TEST_F(Attached, StayWhenTheOthersAreBlamedAsMuch) {
    take(
        "items: [{prompt: once not-here}, {prompt: p}, {prompt: not-here b}, {prompt: q}, "
        "{prompt: not-here c}, {prompt: r}, {prompt: not-here d}, {prompt: s}, {prompt: t}, "
        "{prompt: u}]",
        {"schedule.order=manifest", "schedule.silent=0.5"});
    fs::create_directories(directory_ / "leases");
    write_atomically(directory_ / "leases" / "clock-other-1-1", "");
    std::vector<Json> wrote;
    for (const std::size_t item : {1U, 3U, 5U, 7U, 8U, 9U})
        wrote.push_back({{"event", "failed"}, {"id", id(item)}, {"kind", "error"}, {"agent", 1}});
    others_wrote(wrote);
    const ::pid_t child = start(1);
    const auto decided = [&] {
        return events("done").size() >= 6 && events("failed").size() >= 10;
    };
    for (int tries = 0; tries < 1000 && !decided(); ++tries) test::rest(10);
    for (const std::size_t item : {2U, 4U, 6U})
        wrote.push_back({{"event", "done"}, {"id", id(item)}, {"agent", 1}});
    others_wrote(wrote);
    EXPECT_EQ(end_of(child), Outcome::complete);
}

TEST_F(Attached, LeaveWhenWhatFailedHereIsDoneElsewhere) {
    take(
        "items: [{prompt: not-here a}, {prompt: not-here b}, {prompt: not-here c}, "
        "{prompt: not-here d}]");
    fs::create_directories(directory_ / "leases");
    write_atomically(directory_ / "leases" / "clock-other-1-1", "");
    const ::pid_t child = start();
    for (int tries = 0; tries < 1000 && events("failed").size() < 3; ++tries) test::rest(10);
    std::string lines;
    const std::vector<Json> failed = events("failed");
    ASSERT_GE(failed.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i)  // one stays open, or there is nothing to leave
        lines += journal_line({{"event", "done"}, {"id", failed[i]["id"]}, {"host", "other"}});
    write_atomically(directory_ / "journal-other-1-1.jsonl", lines);
    EXPECT_EQ(end_of(child), Outcome::stopped);
    EXPECT_TRUE(events("quarantined").empty());
}

TEST_F(Attached, GiveUpWhatWasDoneOnceWhenItsFileIsGone) {
    take("items: [{prompt: bad-luck}]");
    RunHistory history(directory_);
    const std::string id = id_text(history.plan().rows[0].id);
    std::ofstream(directory_ / "journal-zz-7-1.jsonl")
        << journal_line({{"event", "done"}, {"id", id}, {"clip", {{"path", "x"}, {"bytes", 9}}}});
    EXPECT_EQ(end_of(start()), Outcome::quarantined);
    history.update();
    EXPECT_EQ(history[0].state, State::quarantined);
}

TEST_F(Attached, StopAtTheBudgetAndBeginNothingBeyondIt) {
    take("items: [{prompt: a}, {prompt: b}, {prompt: c}, {prompt: d}, {prompt: e}, {prompt: f}]",
         {"limits.gpu_hours=1e-9", "retry.other_host=false"});
    EXPECT_EQ(end_of(start()), Outcome::stopped);
    const std::size_t begun = events("leased").size();
    EXPECT_LT(begun, 6U);
    EXPECT_EQ(events("done").size(), begun);
    EXPECT_EQ(end_of(start()), Outcome::stopped);
    EXPECT_EQ(events("leased").size(), begun);
}

TEST_F(Attached, GiveUpWhatFailsAgainAndAgain) {
    take("items: [{name: a, prompt: bad-luck}, {name: b, prompt: q}]");
    EXPECT_EQ(end_of(start()), Outcome::quarantined);
    EXPECT_EQ(status().state, RunState::finished);
    EXPECT_EQ(status().quarantined, 1U);
    EXPECT_EQ(status().done, 1U);
    ASSERT_FALSE(status().failures.empty());
    EXPECT_THAT(status().failures.back().error, testing::HasSubstr("bad luck"));
}

}  // namespace
}  // namespace gallop
