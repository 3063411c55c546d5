#include "farm/driver.hpp"

#include <gtest/gtest.h>

#include "farm/history.hpp"
#include "farm/journal.hpp"
#include "farm/resume.hpp"
#include "farm/status.hpp"
#include "support/planned_run.hpp"
#include "tests/farm/recording_link.hpp"

namespace gallop {
namespace {

TEST(CoordinatorOptions, KeepTheMarksOfADiskInOrder) {
    const test::TemporaryFolder folder;
    RunConfig config;
    config.limits.disk_resume_above = 1;  // of a disk whose 1 % is more
    const coordinator::CoordinatorOptions options = coordinator_options(config, folder.path());
    EXPECT_GT(options.pause_below, 1U);
    EXPECT_EQ(options.resume_above, options.pause_below);
    EXPECT_NO_THROW(coordinator::Coordinator(options, coordinator::Ledger({})));
}

/// Rank 0's driver of a run of twenty items, and what it tells rank 1.
class DriverTest : public testing::Test {
protected:
    void join() { driver_.handle(1, message::Join{"b", 4711, "cpu", 1, 1, numerics_version}, 1); }

    test::PlannedRun run_;
    std::filesystem::path directory_ =
        run_.freeze(run_.plan("seeds: {samples: 20}\nitems: [{prompt: p}]"));
    test::RecordingLink link_{2};
    Journal journal_{directory_ / "journal.jsonl"};
    Driver driver_{load_run(directory_), link_, journal_, false, 0};
};

TEST_F(DriverTest, KeepsARankThatJoinsTwice) {
    for (int i = 0; i < 2; ++i) {
        join();
        EXPECT_FALSE(driver_.lost(1));
    }
    driver_.step(2);
    EXPECT_EQ(link_.sent_to(1, "ping"), 1);
}

TEST_F(DriverTest, ShowsTheItemThatTheDeviceIsAtWhileFilesOfAnotherAreFinished) {
    join();
    driver_.handle(1, message::Ready{0, 1, 1, "cpu"}, 1);
    for (const std::size_t i : {0U, 1U}) {
        const std::uint32_t item = link_.leased_to(1).at(i).item;
        driver_.handle(1, message::Begun{0, item}, 2);
        driver_.handle(1, message::Beat{{{0, item, "base", 3, 8, 0.5}}}, 2);
    }
    const std::vector<message::Task> tasks = link_.leased_to(1);
    const auto expect_the_second = [&] {
        driver_.sign_off(3);
        const SlotStatus shown = read_status(directory_).value().slots.at(0);
        EXPECT_EQ(shown.step, 3);
        EXPECT_EQ(shown.id, tasks[1].id);
    };
    expect_the_second();
    driver_.handle(1, message::Done{0, tasks[0].item, tasks[0].id, 1, {"a", 1, "b"}, {}, {}, false},
                   3);
    expect_the_second();
}

// The coordinator's journal is read first: what it takes back stands in another.
TEST(DriverOfARunThatWasAttached, TakesBackWhatItHasReadInOtherJournals) {
    test::PlannedRun run;
    const std::filesystem::path directory =
        run.freeze(run.plan("items: [{prompt: p}, {prompt: q}]"));
    const PlanIndex plan = RunHistory(directory).plan();
    const std::string missing = id_text(plan.rows[0].id);
    const std::string given_up = id_text(plan.rows[1].id);
    std::ofstream(directory / "journal-other-1-1.jsonl")
        << journal_line({{"event", "done"}, {"id", missing}, {"clip", {{"bytes", 9}}}})
        << journal_line({{"event", "failed"}, {"id", given_up}, {"kind", "error"}})
        << journal_line({{"event", "quarantined"}, {"id", given_up}});
    {
        Journal journal(directory / "journal.jsonl");
        test::RecordingLink link(1);
        const Driver driver(load_run(directory), link, journal, false, 0);
        coordinator::Record retry;  // as when the host that failed is drained
        retry.what = coordinator::Record::What::retry;
        journal.append(journal_event(retry, given_up));
    }
    RunHistory history(directory);
    history.update();
    EXPECT_EQ(history[0].state, ItemHistory::State::open);
    EXPECT_EQ(history[1].state, ItemHistory::State::open);
    EXPECT_EQ(history[1].tries, 0);
}

}  // namespace
}  // namespace gallop
