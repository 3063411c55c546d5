#include "farm/survey.hpp"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "farm/retry.hpp"
#include "farm/run_lock.hpp"
#include "farm/status_page.hpp"
#include "support/test_run.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using test::history_of;
using test::TestRun;
using testing::ElementsAre;
using testing::HasSubstr;

Survey survey_of(const TestRun& run) { return survey(history_of(run)); }

std::string page_of(const TestRun& run, std::size_t columns = 100, std::size_t rows = 0) {
    std::string text;
    for (const std::string& line : status_page(survey_of(run), columns, rows)) text += line + "\n";
    return text;
}

TEST(Survey, WorksFromTheJournalAloneWhenThereIsNoStatus) {
    TestRun run(4);
    run.attempt(2, 2);
    run.done(0, 1);
    run.failed(1, "crash", "signal 9");
    run.failed(2, "error", "not finite");
    run.quarantined(2, "failed on two hosts", "not finite");
    run.leased(3);
    const Survey found = survey_of(run);
    const RunStatus& status = found.status;
    EXPECT_EQ(status.state, RunState::dead);  // begun, not ended, and nobody is there
    EXPECT_EQ(status.attempt, 2);
    EXPECT_EQ(status.items, 4U);
    EXPECT_EQ(status.done, 1U);
    EXPECT_EQ(status.quarantined, 1U);
    EXPECT_EQ(status.leased, 0U);  // the lease died with the run
    EXPECT_EQ(status.open, 2U);
    EXPECT_EQ(status.retried, 1U);
    EXPECT_EQ(status.failed_tries, 2U);
    EXPECT_DOUBLE_EQ(status.cost_done, 10);
    EXPECT_DOUBLE_EQ(status.cost_total, 100);
    EXPECT_GT(status.disk_free, 0U);
    ASSERT_EQ(status.agents.size(), 2U);
    EXPECT_EQ(status.agents[1].host, "n1");
    EXPECT_EQ(status.agents[1].done, 1U);
    ASSERT_EQ(found.quarantined.size(), 1U);
    EXPECT_EQ(found.quarantined[0].name, "item2");
    EXPECT_EQ(found.quarantined[0].error, "not finite");
    EXPECT_EQ(found.quarantined[0].reason, "failed on two hosts");
    EXPECT_EQ(found.quarantined[0].host, "n0");
    EXPECT_EQ(found.quarantined[0].log, "logs/renderer-n0-0-0.log");
    ASSERT_EQ(found.failing.size(), 1U);
    EXPECT_EQ(found.failing[0].kind, "crash");
}

TEST(Survey, SeesALiveRunByItsLock) {
    TestRun run(2);
    run.attempt(1);
    run.leased(0);
    {
        const RunLock lock(run.path());
        Survey found = survey_of(run);
        EXPECT_TRUE(found.pulse.locked);
        EXPECT_EQ(found.status.state, RunState::running);
        EXPECT_EQ(found.status.leased, 1U);
        // A fresh status.json of a live run knows more than the journal.
        RunStatus told;
        told.state = RunState::stopping;
        told.slots = {{0, 0, run.id(0), "item0", "base", 1, 2, 3, 4}};
        write_status(run.path(), told);
        found = survey_of(run);
        EXPECT_EQ(found.status.state, RunState::stopping);
        EXPECT_EQ(found.status.slots.at(0).name, "item0");
    }
    EXPECT_FALSE(survey_of(run).pulse.locked);
    EXPECT_EQ(survey_of(run).status.state, RunState::dead);  // whatever status.json still says
}

TEST(Survey, TrustsTheHeartbeatOfAnotherMachine) {
    TestRun run(1);
    run.attempt(1);
    std::ofstream(run.path() / "LOCK.1") << "host elsewhere process 1\n";
    std::ofstream(run.path() / "HEARTBEAT") << "";
    EXPECT_EQ(survey_of(run).status.state, RunState::running);
    const auto past = fs::file_time_type::clock::now() - std::chrono::seconds(45);
    fs::last_write_time(run.path() / "HEARTBEAT", past);
    const Survey found = survey_of(run);
    EXPECT_EQ(found.status.state, RunState::dead);
    EXPECT_THAT(found.status.reason, HasSubstr("no heartbeat for 4"));
    // On this machine, a fresh heart without a lock is a process that was killed just now.
    fs::last_write_time(run.path() / "HEARTBEAT", fs::file_time_type::clock::now());
    std::ofstream(run.path() / "LOCK.1") << "host " << host_name() << " process 1\n";
    EXPECT_EQ(survey_of(run).status.state, RunState::dead);
}

TEST(Survey, SeesProcessesWithoutACoordinatorByTheirLeases) {
    TestRun run(1);
    run.attempt(1);
    const fs::path lease = run.path() / "leases" / "ab" / (run.id(0) + ".1");
    fs::create_directories(lease.parent_path());
    std::ofstream(lease) << "x";
    EXPECT_EQ(survey_of(run).status.state, RunState::running);
    const auto past = fs::file_time_type::clock::now() - std::chrono::minutes(5);
    for (const fs::path& path : {lease, lease.parent_path()}) fs::last_write_time(path, past);
    EXPECT_EQ(survey_of(run).status.state, RunState::dead);
}

TEST(Survey, TellsFinishedStoppedAndNotBegunApart) {
    TestRun run(1);
    EXPECT_EQ(survey_of(run).status.state, RunState::stopped);
    EXPECT_EQ(survey_of(run).status.reason, "not begun");
    run.attempt(1);
    run.ended("stopped");
    EXPECT_EQ(survey_of(run).status.state, RunState::stopped);
    EXPECT_EQ(survey_of(run).status.reason, "");
    run.attempt(2);
    run.done(0);
    run.ended("complete");
    EXPECT_EQ(survey_of(run).status.state, RunState::finished);
}

TEST(Survey, KnowsAttachedProcessesThatHaveLeftOrFinished) {
    TestRun run(2);
    run.append({{"event", "joined"}, {"agent", 7}, {"host", "n1"}, {"slots", 1}},
               "journal-n1-7.jsonl");
    run.append({{"event", "done"}, {"id", run.id(0)}, {"agent", 7}}, "journal-n1-7.jsonl");
    EXPECT_EQ(survey_of(run).status.state, RunState::stopped);
    EXPECT_EQ(survey_of(run).status.reason, "no attached process is left");
    std::ofstream(run.path() / "HEARTBEAT") << "";  // the last one has just beaten
    run.append({{"event", "done"}, {"id", run.id(1)}, {"agent", 7}}, "journal-n1-7.jsonl");
    EXPECT_EQ(survey_of(run).status.state, RunState::running);
    std::ofstream(run.path() / "COMPLETE") << "now";
    EXPECT_EQ(survey_of(run).status.state, RunState::finished);
}

/// A squeue of our own, first on the path.
class WithSqueue {
public:
    WithSqueue(const fs::path& folder, const std::string& script) : before_(std::getenv("PATH")) {
        fs::create_directories(folder);
        std::ofstream(folder / "squeue") << "#!/bin/sh\n" << script << "\n";
        fs::permissions(folder / "squeue", fs::perms::owner_all);
        ::setenv("PATH", (folder.string() + ":" + before_).c_str(), 1);
    }
    WithSqueue(const WithSqueue&) = delete;
    WithSqueue& operator=(const WithSqueue&) = delete;
    ~WithSqueue() { ::setenv("PATH", before_.c_str(), 1); }

private:
    std::string before_;
};

TEST(SlurmJob, IsAskedForWhenTheRunKnowsOne) {
    TestRun run(1);
    EXPECT_FALSE(slurm_job(run.path()).has_value());
    std::ofstream(run.path() / "slurm.json") << R"({"job_id": 4711})";
    {
        const WithSqueue squeue(run.folder() / "bin",
                                "[ \"$4\" = 4711 ] && echo 'PENDING|(Priority)|4:00:00'");
        const auto job = slurm_job(run.path());
        ASSERT_TRUE(job.has_value());
        EXPECT_EQ(job->id, "4711");
        EXPECT_EQ(job->state, "PENDING");
        EXPECT_EQ(job->note, "(Priority)");
        EXPECT_EQ(job->left, "4:00:00");
        EXPECT_TRUE(job->waits_or_runs());
        EXPECT_THAT(page_of(run), HasSubstr("Slurm job 4711: PENDING (Priority), 4:00:00 of"));
        EXPECT_EQ(to_json(survey_of(run))["slurm"]["state"], "PENDING");
    }
    {
        const WithSqueue array(run.folder() / "bin",
                               "echo 'PENDING|(Resources)|4:00:00'; echo 'RUNNING|n1|3:00:00'; "
                               "echo 'RUNNING|n2|2:59:00'");
        EXPECT_EQ(slurm_job(run.path())->state, "1 PENDING, 2 RUNNING");
        EXPECT_TRUE(slurm_job(run.path())->waits_or_runs());
    }
    {
        const WithSqueue squeue(run.folder() / "bin", "echo 'Invalid job id' >&2; exit 1");
        EXPECT_EQ(slurm_job(run.path())->state, "gone");
        EXPECT_FALSE(slurm_job(run.path())->waits_or_runs());
    }
    // What is no job id never reaches a shell.
    std::ofstream(run.path() / "slurm.json") << R"({"job_id": "1; touch evil"})";
    EXPECT_EQ(slurm_job(run.path())->state, "unknown");
}

TEST(StatusPage, ShowsTheFirstLineOfAnErrorWithReasonAndHost) {
    TestRun run(2);
    run.attempt(1);
    const std::string error = "model/distill: tensors are missing:\n  a\n  b";
    run.failed(1, "input", error);
    run.quarantined(1, "the request is wrong", error);
    const std::string page = page_of(run, 200);
    EXPECT_THAT(page,
                HasSubstr("item1 input: model/distill: tensors are missing: (and 2 more lines)\n"
                          "      the request is wrong, on n0, log logs/renderer-n0-0-0.log\n"
                          "  (--json has the errors whole)\n"));
    EXPECT_EQ(to_json(survey_of(run))["quarantined_items"][0]["error"], error);
    EXPECT_EQ(to_json(survey_of(run))["quarantined_items"][0]["reason"], "the request is wrong");
}

TEST(StatusPage, ShowsWhatMattersInANarrowTerminal) {
    TestRun run(4);
    run.attempt(1);
    run.done(0);
    run.failed(2, "error", "latents are not finite");
    run.quarantined(2, "failed on two hosts", "latents are not finite");
    const std::string page = page_of(run);
    EXPECT_THAT(page, HasSubstr("test: dead"));
    EXPECT_THAT(page, HasSubstr("10.0 % of the work"));
    EXPECT_THAT(page, HasSubstr("4 items: 1 done, 2 open, 1 quarantined"));
    EXPECT_THAT(page,
                HasSubstr("QUARANTINED (1)\n  " + run.id(2).substr(0, 12) +
                          " item2 error: latents are not finite\n"
                          "      failed on two hosts, on n0, log logs/renderer-n0-0-0.log\n"));
    EXPECT_THAT(page, HasSubstr("AGENTS\n   0 n0 cpu ×1 ended: 1 clips, 1 failed tries\n"));
    for (const std::size_t columns : {1U, 7U, 20U, 40U})
        for (const std::string& line : status_page(survey_of(run), columns, 0)) {
            std::size_t points = 0;  // every character here is one column wide
            for (const char c : line) points += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
            EXPECT_LE(points, columns) << line;
        }
    EXPECT_EQ(status_page(survey_of(run), 80, 3).size(), 3U);
}

TEST(StatusPage, ListsTwentyFailuresAndCountsTheOthers) {
    TestRun run(25);
    run.attempt(1);
    for (std::size_t item = 0; item < 25; ++item) run.quarantined(item, "r", "e");
    const std::string page = page_of(run);
    EXPECT_THAT(page, HasSubstr("QUARANTINED (25)"));
    EXPECT_THAT(page, HasSubstr(" item19 "));
    EXPECT_THAT(page, testing::Not(HasSubstr(" item20 ")));
    EXPECT_THAT(page, HasSubstr("and 5 more (--json lists all)"));
    RunHistory history(run.path());
    history.update();
    EXPECT_EQ(survey(history, 7).quarantined.size(), 7U);
    EXPECT_EQ(survey(history).quarantined.size(), 25U);
}

TEST(Retry, OpensQuarantinedItemsAgain) {
    TestRun run(4);
    run.attempt(1);
    run.done(0);
    for (const std::size_t item : {1U, 2U}) run.quarantined(item, "r", "e");
    run.failed(3, "crash", "x");
    std::ofstream(run.path() / "COMPLETE") << "x";
    EXPECT_THAT(retry_items(run.path(), {}), ElementsAre(run.id(1), run.id(2)));
    EXPECT_FALSE(fs::exists(run.path() / "COMPLETE"));
    EXPECT_EQ(survey_of(run).status.quarantined, 0U);
    EXPECT_TRUE(retry_items(run.path(), {}).empty());
    EXPECT_THAT(retry_items(run.path(), {"item3"}), ElementsAre(run.id(3)));
    EXPECT_EQ(survey_of(run).status.open, 3U);
}

TEST(Retry, OpensWhatAHostWhoseClockIsAheadGaveUp) {
    TestRun run(1);
    run.append({{"event", "quarantined"}, {"id", run.id(0)}, {"time", "2999-01-01T00:00:00Z"}},
               "journal-n1-7.jsonl");
    EXPECT_THAT(retry_items(run.path(), {}), ElementsAre(run.id(0)));
    EXPECT_TRUE(retry_items(run.path(), {}).empty());
    EXPECT_EQ(survey_of(run).status.quarantined, 0U);
}

TEST(Retry, RefusesWhatHasNotFailedAndALiveRun) {
    TestRun run(3);
    run.attempt(1);
    run.done(0);
    run.quarantined(1, "r", "e");
    EXPECT_THROW(retry_items(run.path(), {"item0"}), InputError);
    EXPECT_THROW(retry_items(run.path(), {"item2"}), InputError);
    try {
        retry_items(run.path(), {"item0", "item1", "nobody"});
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("item \"item0\" is done"));
        EXPECT_THAT(wrong.what(), HasSubstr("no item \"nobody\""));
    }
    EXPECT_EQ(survey_of(run).status.quarantined, 1U);  // all or nothing
    const RunLock lock(run.path());
    try {
        retry_items(run.path(), {});
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("the run is live (host " + host_name()));
    }
}

TEST(FindRun, LooksUpwardsFromTheWorkingDirectory) {
    TestRun run(1);
    EXPECT_EQ(find_run(run.path().string()), run.path());
    EXPECT_THROW(find_run(run.folder().path().string()), InputError);
    const fs::path before = fs::current_path();
    fs::create_directories(run.path() / "clips" / "ab");
    fs::current_path(run.path() / "clips" / "ab");
    EXPECT_TRUE(fs::equivalent(find_run(""), run.path()));
    fs::current_path(run.folder().path());
    EXPECT_THROW(find_run(""), InputError);
    fs::current_path(before);
}

}  // namespace
}  // namespace gallop
