// An agent alone, with renderers that are real processes.

#include "farm/agent.hpp"

#include <chrono>
#include <map>
#include <optional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/time_text.hpp"
#include "media/store.hpp"
#include "support/planned_run.hpp"
#include "support/temporary_folder.hpp"
#include "tests/farm/fake_renderer.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using test::quick_agent;
using test::rest;
using testing::Contains;
using testing::HasSubstr;

class AgentTest : public testing::Test {
protected:
    AgentTest() { set_log_level(LogLevel::error); }
    ~AgentTest() override {
        agent_.reset();
        set_log_level(LogLevel::info);
    }

    void begin(const std::string& items, std::size_t devices = 1, int gpus_per_slot = 1,
               const std::vector<std::string>& set = {}) {
        plan_ = run_.plan(items, set);
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

TEST_F(AgentTest, BeginsTheNextItemWhileTheFilesOfOneAreFinished) {
    begin("items: [{prompt: p}, {prompt: q}]");
    lease({task(0), task(1)});
    EXPECT_EQ(wait_for<message::Begun>().item, 0U);
    const auto done = wait_for<message::Done>([&](const message::Done&) {
        EXPECT_THAT(said_, Contains(testing::VariantWith<message::Begun>(
                               testing::Field(&message::Begun::item, 1U))));
        return true;
    });
    EXPECT_EQ(done.item, 0U);
    EXPECT_EQ(wait_for<message::Done>().item, 1U);
}

TEST_F(AgentTest, FailsOverFilesAlone) {
    begin("items: [{prompt: p}, {prompt: q}]");
    write_atomically(directory_ / "latents", "no folder");
    lease({task(0), task(1)});
    for (const std::uint32_t item : {0U, 1U}) {
        const auto failed = wait_for<message::Failed>();
        EXPECT_EQ(failed.item, item);
        EXPECT_THAT(failed.error, HasSubstr("latents"));
    }
    fs::remove(directory_ / "latents");
    lease({task(0, 2), task(1, 2)});
    EXPECT_EQ(wait_for<message::Done>().item, 0U);
    EXPECT_EQ(wait_for<message::Done>().item, 1U);
    for (const message::Message& said : said_)
        EXPECT_FALSE(std::holds_alternative<message::Gone>(said));
}

TEST_F(AgentTest, GivesBackTheItemThatIsNotToBlame) {
    struct Case {
        const char* then;
        std::set<std::uint32_t> failed, returned;
        FailureKind why;
    };
    for (const Case& one : {Case{"exit", {1}, {0}, FailureKind::crash},
                            Case{"run out of memory", {1}, {0}, FailureKind::out_of_memory},
                            Case{"hang", {0}, {1}, FailureKind::hung},
                            Case{"be restarted", {1}, {0}, FailureKind::hung},
                            Case{"finish that, too", {1}, {0}, FailureKind::crash}}) {
        SCOPED_TRACE(one.then);
        begin("items: [{prompt: p}, {prompt: q}]", 1, 1,
              {std::string("name=never finish, then ") + one.then});
        lease({task(0), task(1)});
        wait_for<message::Begun>([](const message::Begun& begun) { return begun.item == 1; });
        if (one.then == std::string("be restarted"))
            agent_->handle(message::Restart{0, 1, "far beyond its time"}, seconds_now());
        std::set<std::uint32_t> failed, returned;
        const auto gone = wait_for<message::Gone>([&](const message::Gone&) {
            for (const message::Message& said : said_) {
                if (const auto* lost = std::get_if<message::Failed>(&said)) {
                    failed.insert(lost->item);
                    EXPECT_EQ(lost->why, one.why);
                }
                if (const auto* back = std::get_if<message::Returned>(&said); back && back->lost)
                    returned.insert(back->items.begin(), back->items.end());
            }
            return true;
        });
        EXPECT_EQ(gone.why, one.why);
        EXPECT_EQ(failed, one.failed);
        EXPECT_EQ(returned, one.returned);
        agent_.reset();
        said_.clear();
        rounds_.clear();
    }
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
    lease({task(0, 2)});
    EXPECT_EQ(wait_for<message::Done>().attempt, 2);
    lease({task(1)});
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

TEST_F(AgentTest, StartsARendererAgainWhoseModelIsAwayForAMoment) {
    plan_ = run_.plan("items: [{prompt: once exit}]", {"name=engine-away"});
    directory_ = run_.freeze(plan_);
    index_ = read_plan_index(directory_);
    agent_.emplace(quick_agent(directory_, 1),
                   [this](const message::Message& said) { hear(said); });
    agent_->begin(seconds_now());
    lease({task(0)});
    EXPECT_FALSE(wait_for<message::Gone>().for_good);
    lease({task(0)});
    EXPECT_EQ(wait_for<message::Done>().item, 0U);
}

TEST_F(AgentTest, CallsNoRequestWrongWhoseModelWasThereBefore) {
    plan_ = run_.plan("items: [{prompt: once exit}]", {"name=engine-lost"});
    directory_ = run_.freeze(plan_);
    index_ = read_plan_index(directory_);
    AgentOptions options = quick_agent(directory_, 1);
    options.renderers.bad_starts = 2;
    agent_.emplace(options, [this](const message::Message& said) { hear(said); });
    agent_->begin(seconds_now());
    lease({task(0)});
    EXPECT_THAT(wait_for<message::Leaving>().why, HasSubstr("there is no such model"));
    EXPECT_EQ(agent_->trouble().kind, FailureKind::crash);
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

TEST_F(AgentTest, TakesNoPauseOfItsOwnForTheCoordinatorsSilence) {
    plan_ = run_.plan("items: [{prompt: p}]");
    directory_ = run_.freeze(plan_);
    AgentOptions options = quick_agent(directory_, 1);
    options.renderers.silent_seconds = options.renderers.start_seconds = 1e6;
    options.lonely_seconds = 60;
    agent_.emplace(options, [this](const message::Message& said) { hear(said); });
    const auto left = [&] {
        return std::any_of(said_.begin(), said_.end(), [](const message::Message& said) {
            return std::holds_alternative<message::Leaving>(said);
        });
    };
    agent_->begin(1000);
    agent_->step(1000);
    double now = 1100;  // the machine slept, or its disk
    for (; now <= 1160; ++now) agent_->step(now);
    EXPECT_FALSE(left());
    for (; now <= 1170; ++now) agent_->step(now);
    EXPECT_TRUE(left());
}

TEST_F(AgentTest, GroupsRenderTogetherAndFallTogether) {
    begin("items: [{prompt: p}, {prompt: once member-dies}, {prompt: bad-luck}]", 4, 2);
    EXPECT_EQ(wait_for<message::Join>().slots, 2);
    lease({task(0)});
    EXPECT_EQ(wait_for<message::Done>().item, 0U);
    lease({task(1)});
    const auto failed = wait_for<message::Failed>();
    EXPECT_THAT(failed.error, HasSubstr("member 1 of the group"));
    EXPECT_EQ(failed.why, FailureKind::crash);
    wait_for<message::Gone>();
    lease({task(1, 2)});
    EXPECT_EQ(wait_for<message::Done>().item, 1U);
    lease({task(2)});
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
    EXPECT_THAT(seen, Contains(testing::AnyOf("GPU-a,GPU-b Ring", "GPU-b,GPU-a Ring")));
    EXPECT_THAT(seen, Contains(testing::AnyOf("3,5 Ring", "5,3 Ring")));
}

// In a container it may be any of the machine's, and CUDA counts from 0.
TEST(Devices, AreCountedWhateverTheirNumbers) {
    const test::TemporaryFolder folder;
    EXPECT_THAT(devices_in(folder.path()), testing::IsEmpty());
    for (const char* name : {"nvidia3", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia", "null"})
        write_atomically(folder / name, "");
    EXPECT_THAT(devices_in(folder.path()), testing::ElementsAre("0", "1"));
    EXPECT_THAT(devices_in(folder / "none"), testing::IsEmpty());
}

}  // namespace
}  // namespace gallop
