// Whole runs as real processes, whose engine is a fake: this program, started with "renderer" as its
// first argument, is a renderer that misbehaves as an item's prompt says.

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file_errors.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/attach.hpp"
#include "farm/history.hpp"
#include "farm/journal.hpp"
#include "farm/retry.hpp"
#include "farm/run_directory.hpp"
#include "farm/serve.hpp"
#include "media/store.hpp"
#include "support/planned_run.hpp"
#include "tests/farm/fake_renderer.hpp"

/// Nothing more that this process writes reaches the disk; its renderers' disk is another one.
static std::atomic<bool> disk_full{false};

extern "C" int fsync(int descriptor) {
    if (!disk_full) return static_cast<int>(::syscall(SYS_fsync, descriptor));
    errno = ENOSPC;
    return -1;
}

namespace gallop {
namespace {

namespace fs = std::filesystem;
using test::quick_agent;
using test::rest;
using testing::HasSubstr;
using Json = nlohmann::json;

ServeResult run_here(const fs::path& directory, std::size_t slots) {
    static const StopSignals signals;
    const RunLock lock(directory);
    const auto link = make_solo_link();
    sweep(directory);
    return serve(directory, lock, {quick_agent(directory, slots), "", false}, *link, signals);
}

class ServeTest : public testing::Test {
protected:
    ServeTest() { set_log_level(LogLevel::error); }
    ~ServeTest() override { set_log_level(LogLevel::info); }

    void take(const std::string& items, const std::vector<std::string>& set = {},
              const std::string& name = "run") {
        plan_ = run_.plan(items, set);
        directory_ = run_.freeze(plan_, name);
    }
    ServeResult run(std::size_t slots = 2) { return run_here(directory_, slots); }
    std::vector<Json> events(const std::string& kind) const {
        std::vector<Json> found;
        for (const Json& event : read_journal(read_text(directory_ / "journal.jsonl")).events)
            if (event.value("event", "") == kind) found.push_back(event);
        return found;
    }
    Json status() const { return Json::parse(read_text(directory_ / "status.json")); }
    std::map<std::string, std::string> files() const { return test::PlannedRun::files(directory_); }

    test::PlannedRun run_;
    test::FrozenPlan plan_;
    fs::path directory_;
};

constexpr const char* five =
    "items: [{name: a, prompt: p}, {name: b, prompt: q}, {name: c, prompt: r, seconds: 0.4}, "
    "{name: d, prompt: s}, {name: e, prompt: t}, {name: again, prompt: p}]";

TEST_F(ServeTest, DecodesInTilesAfterMemoryRanOut) {
    take("items: [{name: a, prompt: fits-in-tiles}, {name: b, prompt: q}]");
    EXPECT_EQ(run(1).outcome, coordinator::Outcome::complete);
    const auto failed = events("failed");
    ASSERT_EQ(failed.size(), 1U);
    EXPECT_EQ(failed[0]["kind"], "out_of_memory");
    EXPECT_EQ(events("done").size(), 2U);
}

TEST_F(ServeTest, RendersEveryItemOnceAndSaysSo) {
    take(five);
    const ServeResult result = run();
    EXPECT_EQ(result.outcome, coordinator::Outcome::complete);
    EXPECT_TRUE(result.all_well);
    EXPECT_EQ(files().size(), 10U);
    EXPECT_THAT(read_text(directory_ / "COMPLETE"), testing::StartsWith("complete "));
    EXPECT_EQ(read_text(directory_ / "ATTEMPT_END"), "complete\n");
    EXPECT_GE(fs::last_write_time(directory_ / "ATTEMPT_END"),
              fs::last_write_time(directory_ / "report" / "index.html"))
        << "what is not written by then is cut off";
    EXPECT_EQ(events("attempt").size(), 1U);
    EXPECT_EQ(events("joined").size(), 1U);
    ASSERT_EQ(events("done").size(), 5U);
    const Json done = events("done")[0];
    EXPECT_EQ(done["device"], "fake");
    EXPECT_EQ(done["seconds"]["base"], 0.5);
    EXPECT_EQ(done["clip"]["sha256"].get<std::string>().size(), 64U);
    EXPECT_EQ(done["latents"]["bytes"],
              fs::file_size(directory_ / done["latents"]["path"].get<std::string>()));
    EXPECT_EQ(events("ended").at(0)["outcome"], "complete");
    EXPECT_EQ(status()["state"], "finished");
    const std::string index = read_text(directory_ / "index.jsonl");
    EXPECT_EQ(std::count(index.begin(), index.end(), '\n'), 5);
    EXPECT_TRUE(fs::exists(directory_ / "HEARTBEAT"));
}

TEST_F(ServeTest, HasNothingToDoTheSecondTime) {
    take(five);
    run();
    const auto before = files();
    EXPECT_EQ(run().outcome, coordinator::Outcome::complete);
    EXPECT_EQ(events("done").size(), 5U);
    EXPECT_EQ(events("leased").size(), 5U);
    EXPECT_EQ(files(), before);
}

TEST_F(ServeTest, RendersAgainWhenAFileIsGoneOrChanged) {
    take(five);
    run();
    const auto before = files();
    fs::remove(clip_path(directory_, plan_.items[0].item.id));
    std::ofstream(latents_path(directory_, plan_.items[1].item.id)) << "cut";
    EXPECT_EQ(run().outcome, coordinator::Outcome::complete);
    EXPECT_EQ(events("done").size(), 7U);
    EXPECT_EQ(files(), before);
}

TEST_F(ServeTest, GivesUpAnItemWhoseFileIsGoneAndThatFailsNow) {
    take("items: [{name: a, prompt: bad-luck}]");
    const std::string id = plan_.items[0].item.id;
    std::ofstream(directory_ / "journal.jsonl")
        << journal_line({{"event", "done"},
                         {"id", id},
                         {"clip", {{"path", clip_path("", id).string()}, {"bytes", 1000}}}});
    EXPECT_EQ(run(1).outcome, coordinator::Outcome::quarantined);
    EXPECT_EQ(events("reopened").size(), 1U);
    EXPECT_EQ(status()["quarantined"], 1);
    RunHistory history(directory_);
    history.update();
    EXPECT_EQ(history[0].state, ItemHistory::State::quarantined);
    EXPECT_EQ(read_text(directory_ / "index.jsonl"), "");
    EXPECT_EQ(retry_items(directory_, {}).size(), 1U);
}

// Whatever prefix of the journal there is, wherever it is cut: the run completes, and what is whole
// on disk is taken as it is.
TEST_F(ServeTest, GoesOnFromAnyPrefixOfItsJournal) {
    take(five);
    run();
    const auto before = files();
    const std::string journal = read_text(directory_ / "journal.jsonl");
    for (const std::size_t part : {0U, 1U, 2U, 3U}) {
        std::ofstream(directory_ / "journal.jsonl") << journal.substr(0, journal.size() * part / 4);
        EXPECT_EQ(run().outcome, coordinator::Outcome::complete);
        EXPECT_EQ(files(), before);
        std::size_t adopted = 0;
        std::set<std::string> done;
        for (const Json& event : events("done")) {
            done.insert(event["id"]);
            adopted += event.value("adopted", false) ? 1 : 0;
        }
        EXPECT_EQ(done.size(), 5U);
        EXPECT_TRUE(part > 0 || adopted == 5) << adopted;
    }
}

TEST_F(ServeTest, GivesUpAnItemThatKeepsFailingAndFinishesTheOthers) {
    take("items: [{name: bad, prompt: bad-luck}, {name: good, prompt: p}]");
    EXPECT_EQ(run(1).outcome, coordinator::Outcome::quarantined);
    EXPECT_THAT(read_text(directory_ / "COMPLETE"), testing::StartsWith("quarantined "));
    ASSERT_EQ(events("quarantined").size(), 1U);
    EXPECT_EQ(events("quarantined")[0]["error"], "bad luck");
    EXPECT_GE(events("failed").size(), 2U);
    EXPECT_EQ(events("failed")[0]["kind"], "error");
    EXPECT_EQ(events("failed")[0]["log"], "logs/renderer-test-0-0.log");
    EXPECT_EQ(events("done").size(), 1U);
    EXPECT_EQ(status()["quarantined"], 1);
    // It stays given up.
    const std::size_t tries = events("failed").size();
    EXPECT_EQ(run(1).outcome, coordinator::Outcome::quarantined);
    EXPECT_EQ(events("failed").size(), tries);
}

TEST_F(ServeTest, NeverTriesAWrongRequestTwice) {
    std::ofstream(run_ / "photo.png") << "no picture";
    take("items: [{name: a, prompt: p, image: photo.png}, {name: b, prompt: p}]");
    EXPECT_EQ(run().outcome, coordinator::Outcome::quarantined);
    ASSERT_EQ(events("failed").size(), 1U);
    EXPECT_EQ(events("failed")[0]["kind"], "input");
    EXPECT_THAT(events("quarantined")[0]["error"].get<std::string>(), HasSubstr("photo.png"));
    EXPECT_EQ(events("done").size(), 1U);
}

TEST_F(ServeTest, SurvivesRenderersThatCrashHangAndTalkNonsense) {
    take(
        "items: [{prompt: once segfault}, {prompt: once hang}, {prompt: once nonsense}, "
        "{prompt: once freeze}, {prompt: once exit}, {prompt: once nan}, "
        "{prompt: once no-memory}]");
    EXPECT_EQ(run().outcome, coordinator::Outcome::complete);
    EXPECT_EQ(files().size(), 14U);
    EXPECT_EQ(events("failed").size(), 7U);
    EXPECT_EQ(events("done").size(), 7U);
}

TEST_F(ServeTest, SaysThatItHasStoppedWhenTheDiskStaysFull) {
    take(five);
    std::ofstream(directory_ / "journal.jsonl") << journal_line({{"event", "attempt"}, {"n", 1}});
    disk_full = true;
    EXPECT_EQ(run().outcome, coordinator::Outcome::stopped);
    EXPECT_EQ(read_text(directory_ / "ATTEMPT_END"), "stopped\n");
    // So does an attempt that cannot even begin a journal.
    fs::remove(directory_ / "ATTEMPT_END");
    fs::remove(directory_ / "journal.jsonl");
    EXPECT_THROW(run(), DiskError);
    disk_full = false;
    EXPECT_EQ(read_text(directory_ / "ATTEMPT_END"), "stopped\n");
    EXPECT_EQ(run().outcome, coordinator::Outcome::complete);
}

TEST_F(ServeTest, SaysThatTheModelIsWrong) {
    take("items: [{prompt: p}]", {"name=no-engine"});
    const ServeResult result = run();
    EXPECT_EQ(result.outcome, coordinator::Outcome::stopped);
    ASSERT_TRUE(result.trouble);
    EXPECT_EQ(result.trouble->kind, FailureKind::input);
    EXPECT_EQ(result.trouble->error, "there is no such model");
    EXPECT_FALSE(fs::exists(directory_ / "COMPLETE"));
}

// A run in a process of its own, which is then killed or asked to stop.
class RunProcess : public ServeTest {
protected:
    ::pid_t start() {
        const ::pid_t child = ::fork();
        if (child == 0) {
            ::execl("/proc/self/exe", "processes_test", "run", directory_.c_str(), nullptr);
            ::_exit(127);
        }
        return child;
    }
};

TEST_F(RunProcess, LosesNothingWhenItIsKilled) {
    take(five, {}, "whole");
    run();
    const auto expected = files();
    std::mt19937 random(1);
    for (int round = 0; round < 6; ++round) {
        take(five, {}, "killed" + std::to_string(round));
        for (int kill = 0; kill < 2; ++kill) {
            const ::pid_t child = start();
            rest(static_cast<int>(random() % 400));
            ::kill(child, SIGKILL);
            ::waitpid(child, nullptr, 0);
            for (const auto& [name, content] : files()) {
                if (name.ends_with(".tmp")) continue;
                ASSERT_TRUE(expected.contains(name)) << name;
                EXPECT_EQ(content, expected.at(name)) << name;
            }
        }
        EXPECT_EQ(run().outcome, coordinator::Outcome::complete);
        EXPECT_EQ(files(), expected);
    }
}

TEST_F(RunProcess, StopsWhenAskedAndGoesOnLater) {
    take("items: [{prompt: slow a}, {prompt: slow b}, {prompt: slow c}]");
    const ::pid_t child = start();
    int status_code = 0;
    while (!fs::exists(directory_ / "journal.jsonl") || events("leased").empty()) {
        ASSERT_EQ(::waitpid(child, &status_code, WNOHANG), 0) << "it ended before it began";
        rest(10);
    }
    rest(200);
    ::kill(child, SIGTERM);
    ::waitpid(child, &status_code, 0);
    EXPECT_EQ(WEXITSTATUS(status_code), static_cast<int>(coordinator::Outcome::stopped));
    EXPECT_FALSE(fs::exists(directory_ / "COMPLETE"));
    EXPECT_EQ(read_text(directory_ / "ATTEMPT_END"), "stopped\n");
    EXPECT_EQ(events("ended").at(0)["outcome"], "stopped");
    EXPECT_EQ(status()["state"], "stopped");
    for (const auto& [name, content] : files()) EXPECT_FALSE(name.ends_with(".tmp")) << name;
    EXPECT_EQ(run(3).outcome, coordinator::Outcome::complete);
    EXPECT_EQ(events("attempt").size(), 2U);
    EXPECT_EQ(events("attempt")[1]["n"], 2);
}

}  // namespace
}  // namespace gallop

int main(int argc, char** argv) {
    if (argc > 1 && std::string(argv[1]) == "renderer")
        return gallop::test::be_a_renderer({argv + 2, argv + argc});
    if (argc > 2 && std::string(argv[1]) == "run") {
        gallop::set_log_level(gallop::LogLevel::error);
        return static_cast<int>(gallop::run_here(argv[2], 2).outcome);
    }
    if (argc > 2 && std::string(argv[1]) == "attach") {
        gallop::set_log_level(gallop::LogLevel::error);
        static gallop::StopSignals signals;
        const std::size_t slots = argc > 3 ? std::stoul(argv[3]) : 2;
        const auto agent = gallop::test::quick_agent(argv[2], slots);
        return static_cast<int>(gallop::attach(argv[2], {agent, "", false}, signals).outcome);
    }
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
