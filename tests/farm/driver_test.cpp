#include "farm/driver.hpp"

#include <gtest/gtest.h>

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

TEST(Driver, KeepsARankThatJoinsTwice) {
    test::PlannedRun run;
    const auto directory = run.freeze(run.plan("items: [{prompt: p}]"));
    test::RecordingLink link(2);
    Journal journal(directory / "journal.jsonl");
    RunStart start = load_run(directory);
    const int numerics = start.config.numerics;
    Driver driver(std::move(start), link, journal, false, 0);
    for (int i = 0; i < 2; ++i) {
        driver.handle(1, message::Join{"b", 4711, "cpu", 1, 1, numerics}, 1);
        EXPECT_FALSE(driver.lost(1));
    }
    driver.step(2);
    EXPECT_EQ(link.sent_to(1, "ping"), 1);
}

TEST(Driver, ShowsTheItemThatTheDeviceIsAtWhileFilesOfAnotherAreFinished) {
    test::PlannedRun run;
    const auto directory = run.freeze(run.plan("seeds: {samples: 20}\nitems: [{prompt: p}]"));
    test::RecordingLink link(2);
    Journal journal(directory / "journal.jsonl");
    RunStart start = load_run(directory);
    const int numerics = start.config.numerics;
    Driver driver(std::move(start), link, journal, false, 0);
    driver.handle(1, message::Join{"b", 4711, "cpu", 1, 1, numerics}, 1);
    driver.handle(1, message::Ready{0, 1, 1, "cpu"}, 1);
    for (const std::size_t i : {0U, 1U}) {
        const std::uint32_t item = link.leased_to(1).at(i).item;
        driver.handle(1, message::Begun{0, item}, 2);
        driver.handle(1, message::Beat{{{0, item, "base", 3, 8, 0.5}}}, 2);
    }
    const std::vector<message::Task> tasks = link.leased_to(1);
    const auto expect_the_second = [&] {
        driver.sign_off(3);
        const SlotStatus shown = read_status(directory).value().slots.at(0);
        EXPECT_EQ(shown.step, 3);
        EXPECT_EQ(shown.id, tasks[1].id);
    };
    expect_the_second();
    driver.handle(1, message::Done{0, tasks[0].item, tasks[0].id, 1, {"a", 1, "b"}, {}, {}, false},
                  3);
    expect_the_second();
}

}  // namespace
}  // namespace gallop
