// Agents, renderers and whole runs as real processes, whose engine is a fake: this program, started
// with "renderer" as its first argument, is a renderer that misbehaves as an item's prompt says.

#include <chrono>
#include <csignal>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/agent.hpp"
#include "farm/history.hpp"
#include "farm/journal.hpp"
#include "farm/renderer.hpp"
#include "farm/run_directory.hpp"
#include "farm/serve.hpp"
#include "media/store.hpp"
#include "support/fake_stages.hpp"
#include "support/planned_run.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using Json = nlohmann::json;

void rest(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// The renderer.

/// True the first time that it is asked in a run directory.
bool first_time(const fs::path& run, const std::string& what) {
    std::error_code failed;
    return fs::create_directory(run / ("did-" + what), failed);
}

void misbehave(const std::string& prompt, const fs::path& run, const GroupSeat& seat,
               const ProgressSink& progress) {
    const auto wants = [&](const char* what) {
        if (prompt.find(what) == std::string::npos) return false;
        return prompt.find("once") == std::string::npos || first_time(run, what);
    };
    if (wants("segfault")) ::raise(SIGSEGV);
    if (seat.rank == 1 && wants("member-dies")) ::_exit(9);
    if (wants("exit")) ::_exit(3);
    if (wants("hang")) rest(600'000);
    if (wants("freeze")) ::raise(SIGSTOP);
    if (wants("nonsense")) ::send(3, "hello", 5, 0);
    if (wants("no-memory")) throw OutOfMemoryError("no memory for 3 tensors");
    if (wants("nan")) throw BadOutputError("the base latent is not finite");
    if (wants("bad-luck")) throw Error("bad luck");
    if (wants("slow"))
        for (int step = 0; step < 100; ++step) {
            progress({"base", step, 100});
            rest(20);
        }
}

int be_a_renderer(const std::vector<std::string>& arguments) {
    RendererOptions options;
    options.beat_seconds = 0.05;
    for (std::size_t i = 0; i + 1 < arguments.size(); i += 2) {
        const std::string& value = arguments[i + 1];
        if (arguments[i] == "--run") options.directory = value;
        if (arguments[i] == "--slot") options.slot = std::stoi(value);
        if (arguments[i] == "--rank") options.seat.rank = std::stoi(value);
        if (arguments[i] == "--size") options.seat.size = std::stoi(value);
        if (arguments[i] == "--rendezvous") options.seat.rendezvous = value;
    }
    return run_renderer(options, [&](const RunConfig& config, const GroupSeat& seat) {
        if (config.name == "no-engine") throw InputError("there is no such model");
        if (seat.size > 1 && !fs::is_directory(seat.rendezvous)) throw Error("no rendezvous");
        Stages stages = test::fake_stages();
        stages.denoise = [denoise = stages.denoise, run = options.directory, seat](
                             const Item& item, const Conditioning& inputs,
                             const ProgressSink& progress) {
            misbehave(item.prompt, run, seat, progress);
            return denoise(item, inputs, progress);
        };
        const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
        return Engine{std::move(stages), visible == nullptr ? "fake" : visible};
    });
}

AgentOptions quick_agent(const fs::path& run, std::size_t devices) {
    AgentOptions options;
    options.renderers.directory = run;
    options.renderers.log_name = "renderer-test-0";
    options.renderers.arguments = {"renderer"};
    options.renderers.devices.resize(devices);
    options.renderers.silent_seconds = 2;
    options.renderers.stalled_seconds = 4;
    options.renderers.abandon_seconds = 1;
    options.beat_seconds = 0.05;
    return options;
}

// An agent alone.

class AgentTest : public testing::Test {
protected:
    AgentTest() { set_log_level(LogLevel::error); }
    ~AgentTest() override {
        agent_.reset();
        set_log_level(LogLevel::info);
    }

    void begin(const std::string& items, std::size_t devices = 1, int gpus_per_slot = 1) {
        plan_ = run_.plan(items);
        directory_ = run_.freeze(plan_);
        index_ = read_plan_index(directory_);
        AgentOptions options = quick_agent(directory_, devices);
        options.gpus_per_slot = gpus_per_slot;
        agent_.emplace(options, [this](const message::Message& said) { hear(said); });
        agent_->begin(seconds_now());
    }
    message::Task task(std::uint32_t item, int attempt = 1) const {
        const PlanRow& row = index_.rows[item];
        return {item, row.offset, row.bytes, id_text(row.id), attempt, 0.1};
    }
    /// Waits until the slot is ready.
    void lease(std::vector<message::Task> tasks, int slot = 0) {
        for (const double last = seconds_now() + 20; !rounds_.contains(slot); rest(1)) {
            ASSERT_LT(seconds_now(), last) << "slot " << slot << " is never ready";
            agent_->step(seconds_now());
        }
        agent_->handle(message::Lease{slot, rounds_[slot], std::move(tasks)}, seconds_now());
    }
    void hear(const message::Message& said) {
        said_.push_back(said);
        if (const auto* ready = std::get_if<message::Ready>(&said))
            rounds_[ready->slot] = ready->round;
        if (const auto* gone = std::get_if<message::Gone>(&said)) rounds_.erase(gone->slot);
        if (std::holds_alternative<message::Join>(said)) rounds_.clear();
    }
    /// Lets the agent work until it says such a message, and forgets what it said up to there.
    template <class M, class Is>
    M wait_for(const Is& is) {
        for (const double last = seconds_now() + 20; seconds_now() < last; rest(1)) {
            agent_->step(seconds_now());
            for (auto one = said_.begin(); one != said_.end(); ++one) {
                const M* message = std::get_if<M>(&*one);
                if (message == nullptr || !is(*message)) continue;
                const M found = *message;
                said_.erase(said_.begin(), one + 1);
                return found;
            }
        }
        ADD_FAILURE() << "the agent never said \"" << M::kind << "\"";
        throw Error("no such message");
    }
    template <class M>
    M wait_for() {
        return wait_for<M>([](const M&) { return true; });
    }
    fs::path clip(std::size_t item) const {
        return clip_path(directory_, plan_.items[item].item.id);
    }

    test::PlannedRun run_;
    test::FrozenPlan plan_;
    PlanIndex index_;
    fs::path directory_;
    std::optional<Agent> agent_;
    std::vector<message::Message> said_;
    std::map<int, int> rounds_;  ///< of ready slots
};

TEST_F(AgentTest, JoinsAndRendersWhatItIsLeased) {
    begin("items: [{prompt: p}, {prompt: q}]", 2);
    const auto join = wait_for<message::Join>();
    EXPECT_EQ(join.slots, 2);
    EXPECT_EQ(join.pid, ::getpid());
    lease({task(0), task(1)});
    EXPECT_EQ(wait_for<message::Begun>().item, 0U);
    const auto done = wait_for<message::Done>();
    EXPECT_EQ(done.id, plan_.items[0].item.id);
    EXPECT_TRUE(fs::exists(clip(0)));
    EXPECT_FALSE(done.adopted);
    EXPECT_EQ(wait_for<message::Done>().item, 1U);
    lease({task(0, 2)}, 1);
    const auto again = wait_for<message::Done>();
    EXPECT_TRUE(again.adopted);
    EXPECT_EQ(again.attempt, 2);
    EXPECT_EQ(again.clip.sha256, done.clip.sha256);
}

TEST_F(AgentTest, BeatsAndTellsHowFarItIs) {
    begin("items: [{prompt: slow}]");
    lease({task(0)});
    const auto beat = wait_for<message::Beat>(
        [](const message::Beat& b) { return !b.slots.empty() && b.slots[0].step > 5; });
    EXPECT_EQ(beat.slots[0].item, 0U);
    EXPECT_EQ(beat.slots[0].stage, "base");
    EXPECT_EQ(beat.slots[0].steps, 100);
}

TEST_F(AgentTest, LeavesWhenAskedAndItsRenderersGoWithIt) {
    begin("items: [{prompt: slow}]", 2);
    lease({task(0)});
    wait_for<message::Begun>();
    agent_->handle(message::Stop{}, seconds_now());
    wait_for<message::Leaving>();
    EXPECT_TRUE(agent_->finished());
    EXPECT_FALSE(fs::exists(clip(0)));
    EXPECT_TRUE(test::PlannedRun::files(directory_).empty());
}

TEST_F(AgentTest, GivesBackWhatItHasNotBegunAndOnDemandWhatItHas) {
    begin("items: [{prompt: slow}, {prompt: q}, {prompt: r}]");
    lease({task(0), task(1), task(2)});
    wait_for<message::Begun>();
    agent_->handle(message::Revoke{0, {0, 2}, false}, seconds_now());
    EXPECT_THAT(wait_for<message::Returned>().items, testing::ElementsAre(2U));
    agent_->handle(message::Revoke{0, {0}, true}, seconds_now());
    EXPECT_THAT(wait_for<message::Returned>().items, testing::ElementsAre(0U));
    EXPECT_EQ(wait_for<message::Done>().item, 1U);
    EXPECT_FALSE(fs::exists(clip(0)));
}

TEST_F(AgentTest, ReportsFailuresOfEachKindAndGoesOn) {
    begin("items: [{prompt: nan}, {prompt: bad-luck}, {prompt: no-memory}, {prompt: p}]");
    lease({task(0), task(1), task(2)});
    const auto nan = wait_for<message::Failed>();
    EXPECT_EQ(nan.why, FailureKind::bad_output);
    EXPECT_EQ(nan.error, "the base latent is not finite");
    EXPECT_EQ(nan.log, "logs/renderer-test-0-0.log");
    EXPECT_THAT(read_text(directory_ / nan.log), HasSubstr("not finite"));
    EXPECT_EQ(wait_for<message::Failed>().why, FailureKind::error);
    EXPECT_EQ(wait_for<message::Failed>().why, FailureKind::out_of_memory);
    wait_for<message::Gone>();  // its memory is in pieces
    lease({task(3)});
    EXPECT_EQ(wait_for<message::Done>().item, 3U);
}

TEST_F(AgentTest, ReplacesARendererThatCrashes) {
    begin("items: [{prompt: once segfault}, {prompt: once exit}]");
    lease({task(0)});
    const auto crash = wait_for<message::Failed>();
    EXPECT_EQ(crash.why, FailureKind::crash);
    EXPECT_THAT(crash.error, HasSubstr("signal 11"));
    EXPECT_FALSE(wait_for<message::Gone>().for_good);
    lease({task(0, 2), task(1)});
    EXPECT_EQ(wait_for<message::Done>().attempt, 2);
    EXPECT_THAT(wait_for<message::Failed>().error, HasSubstr("exit code 3"));
}

TEST_F(AgentTest, EndsARendererThatHangsIsSilentOrTalksNonsense) {
    begin("items: [{prompt: once hang}, {prompt: once freeze}, {prompt: once nonsense}]");
    const std::vector<std::pair<FailureKind, std::string>> wanted = {
        {FailureKind::hung, "no progress"},
        {FailureKind::hung, "no heartbeat"},
        {FailureKind::crash, "nonsense"}};
    for (std::uint32_t item = 0; item < 3; ++item) {
        lease({task(item)});
        const auto failed = wait_for<message::Failed>();
        EXPECT_EQ(failed.why, wanted[item].first);
        EXPECT_THAT(failed.error, HasSubstr(wanted[item].second));
        wait_for<message::Gone>();
        lease({task(item, 2)});
        EXPECT_EQ(wait_for<message::Done>().item, item);
        said_.clear();
        agent_->handle(message::Reset{}, seconds_now());
    }
}

TEST_F(AgentTest, EndsARendererOnDemand) {
    begin("items: [{prompt: once slow}]");
    lease({task(0)});
    wait_for<message::Begun>();
    agent_->handle(message::Restart{0, 7, "another item"}, seconds_now());  // crossed: nothing
    agent_->handle(message::Restart{0, 0, "far beyond its time"}, seconds_now());
    const auto failed = wait_for<message::Failed>();
    EXPECT_EQ(failed.why, FailureKind::hung);
    EXPECT_EQ(failed.error, "far beyond its time");
    wait_for<message::Gone>();
    wait_for<message::Ready>();
}

TEST_F(AgentTest, IgnoresALeaseToARendererThatIsNoMore) {
    begin("items: [{prompt: once exit}, {prompt: q}]");
    const auto first = wait_for<message::Ready>();
    agent_->handle(message::Lease{0, first.round, {task(0)}}, seconds_now());
    wait_for<message::Failed>();
    const auto second = wait_for<message::Ready>();
    EXPECT_GT(second.round, first.round);
    agent_->handle(message::Lease{0, first.round, {task(0, 2)}}, seconds_now());
    agent_->handle(message::Lease{0, second.round, {task(1)}}, seconds_now());
    EXPECT_EQ(wait_for<message::Begun>().item, 1U);
}

TEST_F(AgentTest, LeavesWhenNoRendererCanBegin) {
    plan_ = run_.plan("items: [{prompt: p}]", {"name=no-engine"});
    directory_ = run_.freeze(plan_);
    agent_.emplace(quick_agent(directory_, 2),
                   [this](const message::Message& said) { hear(said); });
    agent_->begin(seconds_now());
    EXPECT_TRUE(wait_for<message::Gone>().for_good);
    EXPECT_THAT(wait_for<message::Leaving>().why, HasSubstr("there is no such model"));
    EXPECT_EQ(agent_->trouble().kind, FailureKind::input);
}

TEST_F(AgentTest, LeavesWhenTheCoordinatorIsSilent) {
    plan_ = run_.plan("items: [{prompt: p}]");
    directory_ = run_.freeze(plan_);
    AgentOptions options = quick_agent(directory_, 1);
    options.lonely_seconds = 0.3;
    agent_.emplace(options, [this](const message::Message& said) { hear(said); });
    agent_->begin(seconds_now());
    EXPECT_THAT(wait_for<message::Leaving>().why, HasSubstr("no word of the coordinator"));
}

TEST_F(AgentTest, GroupsRenderTogetherAndFallTogether) {
    begin("items: [{prompt: p}, {prompt: once member-dies}, {prompt: bad-luck}]", 4, 2);
    EXPECT_EQ(wait_for<message::Join>().slots, 2);
    lease({task(0), task(1)});
    EXPECT_EQ(wait_for<message::Done>().item, 0U);
    const auto failed = wait_for<message::Failed>();
    EXPECT_THAT(failed.error, HasSubstr("member 1 of the group"));
    EXPECT_EQ(failed.why, FailureKind::crash);
    wait_for<message::Gone>();
    lease({task(1, 2), task(2)});
    EXPECT_EQ(wait_for<message::Done>().item, 1U);
    EXPECT_EQ(wait_for<message::Failed>().why, FailureKind::error);
    EXPECT_FALSE(wait_for<message::Gone>().for_good);  // they no longer agree on where they are
}

TEST_F(AgentTest, FormsOtherGroupsOnDemand) {
    begin("items: [{prompt: p}]", 3);
    for (int slot = 0; slot < 3; ++slot) wait_for<message::Ready>();
    agent_->handle(message::Regroup{{0, 1, 2}, 2}, seconds_now());
    for (int slot = 0; slot < 3; ++slot) wait_for<message::Gone>();
    std::vector<int> sizes = {wait_for<message::Ready>().gpus, wait_for<message::Ready>().gpus};
    EXPECT_THAT(sizes, testing::UnorderedElementsAre(1, 2));
}

TEST_F(AgentTest, GivesEachRendererItsOwnDeviceFirst) {
    plan_ = run_.plan("items: [{prompt: p}]");
    directory_ = run_.freeze(plan_);
    AgentOptions options = quick_agent(directory_, 0);
    options.renderers.devices = {"GPU-a", "GPU-b", "3", "5"};
    options.gpus_per_slot = 2;
    agent_.emplace(options, [this](const message::Message& said) { hear(said); });
    agent_->begin(seconds_now());
    std::vector<std::string> seen;
    for (int slot = 0; slot < 2; ++slot) seen.push_back(wait_for<message::Ready>().device);
    // Of the member that was ready last.
    EXPECT_THAT(seen, Contains(testing::AnyOf("GPU-a,GPU-b", "GPU-b,GPU-a")));
    EXPECT_THAT(seen, Contains(testing::AnyOf("3,5", "5,3")));
}

// Whole runs of one rank.

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

TEST_F(ServeTest, RendersEveryItemOnceAndSaysSo) {
    take(five);
    const ServeResult result = run();
    EXPECT_EQ(result.outcome, coordinator::Outcome::complete);
    EXPECT_TRUE(result.all_well);
    EXPECT_EQ(files().size(), 10U);
    EXPECT_TRUE(fs::exists(directory_ / "COMPLETE"));
    EXPECT_EQ(read_text(directory_ / "ATTEMPT_END"), "complete\n");
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
    EXPECT_TRUE(fs::exists(directory_ / "COMPLETE"));
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
        return gallop::be_a_renderer({argv + 2, argv + argc});
    if (argc > 2 && std::string(argv[1]) == "run") {
        gallop::set_log_level(gallop::LogLevel::error);
        return static_cast<int>(gallop::run_here(argv[2], 2).outcome);
    }
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
