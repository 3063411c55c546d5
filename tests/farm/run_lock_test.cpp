#include "farm/run_lock.hpp"

#include <atomic>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/log.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class RunLockTest : public testing::Test {
protected:
    RunLockTest() { set_log_level(LogLevel::error); }
    ~RunLockTest() override { set_log_level(LogLevel::info); }

    std::string refusal(double stale) {
        try {
            const RunLock lock(run_, stale);
        } catch (const InputError& wrong) {
            return wrong.what();
        }
        return "";
    }
    /// A holder on another machine whose heart beat so many seconds ago.
    void somebody_elsewhere(double seconds_ago) {
        fs::create_directories(run_);
        std::ofstream(run_ / "LOCK") << "host elsewhere process 7\n";
        std::ofstream(run_ / "HEARTBEAT");
        timespec times[2];
        ::clock_gettime(CLOCK_REALTIME, &times[0]);
        times[0].tv_sec -= static_cast<long>(seconds_ago);
        times[1] = times[0];
        ::utimensat(AT_FDCWD, (run_ / "HEARTBEAT").c_str(), times, 0);
    }

    test::TemporaryFolder folder_;
    fs::path run_ = folder_ / "run";
};

TEST_F(RunLockTest, NamesWhoHoldsTheDirectory) {
    const RunLock held(run_);
    EXPECT_THAT(refusal(1),
                HasSubstr("host " + host_name() + " process " + std::to_string(::getpid())));
}

TEST_F(RunLockTest, IsFreeAfterItsHolderEndedHoweverItEnded) {
    { const RunLock held(run_); }
    EXPECT_EQ(fs::file_size(run_ / "LOCK"), 0U);  // signed off
    EXPECT_EQ(refusal(1), "");
    const ::pid_t child = ::fork();
    if (child == 0) {
        new RunLock(run_);
        ::raise(SIGKILL);
    }
    ::waitpid(child, nullptr, 0);
    EXPECT_GT(fs::file_size(run_ / "LOCK"), 0U);
    EXPECT_EQ(refusal(1), "");
}

TEST_F(RunLockTest, IsNotToBeHadBesideAttachedProcessesNorTheReverse) {
    fs::create_directories(run_);
    {
        const RunShare one(run_);
        const RunShare another(run_);
        EXPECT_THAT(refusal(1), HasSubstr("run"));
    }
    EXPECT_EQ(refusal(1), "");
    const RunLock lock(run_);
    EXPECT_THROW(RunShare{run_}, InputError);
}

TEST_F(RunLockTest, TakesOverFromAnotherMachineWhoseHeartHasStopped) {
    somebody_elsewhere(100);
    EXPECT_EQ(refusal(30), "");
}

TEST_F(RunLockTest, WaitsWhetherAnotherMachinesHeartStillBeats) {
    somebody_elsewhere(0);
    std::atomic<bool> over{false};
    std::thread heart([&] {
        while (!over) {
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
            const int file = ::open((run_ / "HEARTBEAT").c_str(), O_WRONLY);
            ::futimens(file, nullptr);
            ::close(file);
        }
    });
    EXPECT_THAT(refusal(30), HasSubstr("host elsewhere process 7"));
    over = true;
    heart.join();
    EXPECT_EQ(refusal(0.5), "");  // it stops, and half a second later it is dead
}

TEST_F(RunLockTest, SeesAttachedProcessesOfAnotherMachineAndTheyIt) {
    // As where locks are local to a machine: the other's are free.
    const auto while_it_beats = [&](const auto& check) {
        std::atomic<bool> over{false};
        std::thread heart([&] {
            while (!over) {
                std::ofstream(run_ / "HEARTBEAT") << "x";
                std::this_thread::sleep_for(std::chrono::milliseconds(100));
            }
        });
        check();
        over = true;
        heart.join();
    };
    const auto attach = [&](double stale) -> std::string {
        try {
            RunShare(run_, stale).confirm();
        } catch (const InputError& wrong) {
            return wrong.what();
        }
        return "";
    };
    somebody_elsewhere(0);
    while_it_beats([&] { EXPECT_THAT(attach(30), HasSubstr("host elsewhere process 7")); });
    EXPECT_EQ(attach(0.5), "");
    EXPECT_EQ(fs::file_size(run_ / "LOCK"), 0U) << "the heart beats for who has attached";

    const fs::path sign =
        run_ / "leases" / ("clock-" + host_name() + "-2-77-0");  // HOST-2, not HOST
    fs::create_directories(run_ / "leases");
    std::ofstream(sign) << "";
    while_it_beats(
        [&] { EXPECT_THAT(refusal(30), HasSubstr("--attach on " + host_name() + "-2")); });
    EXPECT_EQ(attach(1), "") << "who was refused has signed off";
    EXPECT_EQ(refusal(0.5), "");
    EXPECT_FALSE(fs::exists(sign));
    // Those of this machine are dead when the lock is free.
    std::ofstream(run_ / "leases" / ("clock-" + host_name() + "-77-0")) << "";
    std::ofstream(run_ / "HEARTBEAT") << "x";
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(refusal(30), "");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));

    // One that comes between the lock and the sign of another is seen in time.
    const RunShare share(run_);
    std::ofstream(run_ / "LOCK") << "host elsewhere process 8\n";
    EXPECT_THROW(share.confirm(), InputError);
}

TEST_F(RunLockTest, TellsAgesByTheFilesOwnClock) {
    somebody_elsewhere(50);
    const int clock = ::open((run_ / "LOCK").c_str(), O_RDWR);
    EXPECT_NEAR(age_of(run_ / "HEARTBEAT", clock), 50, 2);
    EXPECT_GT(age_of(run_ / "nothing", clock), 1e9);
    ::close(clock);
}

}  // namespace
}  // namespace gallop
