#include "farm/run_lock.hpp"

#include <atomic>
#include <cstdio>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/log.hpp"
#include "support/temporary_folder.hpp"

/// The machine that a thread stands for; null: this one.
static thread_local const char* machine = nullptr;

// As where locks are local to a machine: another one's are always free.
extern "C" int flock(int descriptor, int operation) noexcept {
    return machine != nullptr ? 0 : static_cast<int>(::syscall(SYS_flock, descriptor, operation));
}

extern "C" int gethostname(char* name, std::size_t size) noexcept {
    utsname system{};
    ::uname(&system);
    std::snprintf(name, size, "%s", machine != nullptr ? machine : system.nodename);
    return 0;
}

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
        for (const fs::path& old : claims()) fs::remove(old);
        for (const char* file : {"LOCK.7", "HEARTBEAT"}) {
            std::ofstream(run_ / file) << "host elsewhere process 7\n";
            age(run_ / file, seconds_ago);
        }
    }
    static void age(const fs::path& file, double seconds) {
        timespec times[2];
        ::clock_gettime(CLOCK_REALTIME, &times[0]);
        const auto nanoseconds =
            times[0].tv_sec * 1'000'000'000 + times[0].tv_nsec - static_cast<long>(seconds * 1e9);
        times[0] = times[1] = {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
        ::utimensat(AT_FDCWD, file.c_str(), times, 0);
    }
    std::vector<fs::path> claims() const {
        std::vector<fs::path> found;
        for (const auto& entry : fs::directory_iterator(run_))
            if (entry.path().filename().string().starts_with("LOCK."))
                found.push_back(entry.path());
        return found;
    }
    /// Runs `check` while the files are touched.
    void while_beating(const std::vector<const char*>& files, const std::function<void()>& check) {
        std::atomic<bool> over{false};
        std::thread heart([&] {
            while (!over) {
                for (const char* file : files) age(run_ / file, 0);
                std::this_thread::sleep_for(std::chrono::milliseconds(100));
            }
        });
        check();
        over = true;
        heart.join();
    }
    /// What `act` says where it is refused, on another machine.
    static std::string on(const char* name, const std::function<void()>& act) {
        std::string said;
        std::thread([&] {
            machine = name;
            try {
                act();
            } catch (const InputError& wrong) {
                said = wrong.what();
            }
        }).join();
        return said;
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
    EXPECT_EQ(lock_holder(run_), "");  // signed off
    EXPECT_EQ(refusal(1), "");
    const ::pid_t child = ::fork();
    if (child == 0) {
        new RunLock(run_);
        ::raise(SIGKILL);
    }
    ::waitpid(child, nullptr, 0);
    EXPECT_THAT(lock_holder(run_), HasSubstr(fmt::format("process {}", child)));
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
    while_beating({"LOCK.7"},
                  [&] { EXPECT_THAT(refusal(30), HasSubstr("host elsewhere process 7")); });
    EXPECT_EQ(refusal(0.5), "");  // it stops, and half a second later it is dead
}

// Whatever the locks of the file system do.
TEST_F(RunLockTest, IsTakenOverByOneOfTwoMachinesThatWaitForTheSameDeath) {
    for (int round = 0; round < 5; ++round) {
        somebody_elsewhere(29.7);
        std::atomic<int> held{0}, refused{0};
        std::atomic<bool> over{false};
        const auto take = [&](const char* name) {
            machine = name;
            try {
                const RunLock lock(run_, 30);
                ++held;
                while (!over) {
                    lock.beat();
                    std::this_thread::sleep_for(std::chrono::milliseconds(50));
                }
            } catch (const InputError& wrong) {
                EXPECT_THAT(wrong.what(), HasSubstr("another run holds this directory (host "));
                ++refused;
            }
        };
        std::thread a(take, "a"), b(take, "b");
        for (int tries = 0; tries < 200 && held + refused < 2; ++tries)
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        over = true;
        a.join();
        b.join();
        EXPECT_EQ(held, 1);
        EXPECT_EQ(refused, 1);
        EXPECT_EQ(claims().size(), 1U) << "older ones are removed";
    }
}

TEST_F(RunLockTest, BelongsToTheLatestClaim) {
    fs::create_directories(run_);
    {
        const RunLock first(run_);
        std::ofstream(run_ / "LOCK.9") << "host elsewhere process 8\n";  // took over and goes on
        EXPECT_EQ(lock_holder(run_), "host elsewhere process 8");
    }
    while_beating({"LOCK.9"},
                  [&] { EXPECT_THAT(refusal(30), HasSubstr("host elsewhere process 8")); });
    EXPECT_EQ(refusal(0.5), "");
    EXPECT_EQ(claims().front().filename(), "LOCK.10");
}

TEST_F(RunLockTest, SeesAttachedProcessesOfAnotherMachineAndTheyIt) {
    const auto attach = [&](double stale) {
        return on("there", [&] { RunShare(run_, stale).confirm(); });
    };
    somebody_elsewhere(0);
    while_beating({"LOCK.7"},
                  [&] { EXPECT_THAT(attach(30), HasSubstr("host elsewhere process 7")); });
    EXPECT_EQ(attach(0.5), "");
    age(run_ / "HEARTBEAT", 0);
    EXPECT_EQ(attach(0.5), "") << "the heart beats for who has attached";

    const fs::path sign =
        run_ / "leases" / ("clock-" + host_name() + "-2-77-0");  // HOST-2, not HOST
    fs::create_directories(run_ / "leases");
    std::ofstream(sign) << "";
    age(run_ / "LOCK.7", 100);
    while_beating({"HEARTBEAT"}, [&] {
        EXPECT_THAT(refusal(30), HasSubstr("--attach on " + host_name() + "-2"));
    });
    EXPECT_EQ(attach(1), "") << "who was refused has signed off";
    EXPECT_EQ(refusal(0.5), "");
    EXPECT_FALSE(fs::exists(sign));
    // Those of this machine are dead when the lock is free.
    std::ofstream(run_ / "leases" / ("clock-" + host_name() + "-77-0")) << "";
    age(run_ / "HEARTBEAT", 0);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(refusal(30), "");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST_F(RunLockTest, IsNotTakenFromItsHolderByAProcessThatAttaches) {
    for (int round = 0; round < 5; ++round) {
        somebody_elsewhere(29.7);
        std::atomic<bool> held{false}, over{false};
        std::thread holder([&] {
            EXPECT_EQ(on("a",
                         [&] {
                             const RunLock lock(run_, 30);
                             held = true;
                             while (!over)
                                 std::this_thread::sleep_for(std::chrono::milliseconds(20));
                         }),
                      "");
        });
        EXPECT_THAT(on("b",
                       [&] {
                           const RunShare share(run_, 30);
                           while (!held) std::this_thread::sleep_for(std::chrono::milliseconds(20));
                           share.confirm();
                       }),
                    HasSubstr("host a process"));
        EXPECT_THAT(lock_holder(run_), HasSubstr("host a process"));
        over = true;
        holder.join();
    }
}

TEST_F(RunLockTest, BeatsWhileItWaitsForAttachedProcesses) {
    somebody_elsewhere(100);
    fs::create_directories(run_ / "leases");
    std::ofstream(run_ / "leases" / "clock-gone-77-0") << "";
    age(run_ / "HEARTBEAT", 0);
    std::string refused;
    std::thread waits([&] { EXPECT_EQ(on("a", [&] { const RunLock lock(run_, 1.5); }), ""); });
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_THAT(on("b", [&] { const RunLock lock(run_, 1.5); }), HasSubstr("host a process"));
    waits.join();
}

TEST_F(RunLockTest, TellsAgesByTheFilesOwnClock) {
    somebody_elsewhere(50);
    const int clock = ::open((run_ / "LOCK.7").c_str(), O_RDWR);
    EXPECT_NEAR(age_of(run_ / "HEARTBEAT", clock), 50, 2);
    EXPECT_GT(age_of(run_ / "nothing", clock), 1e9);
    ::close(clock);
}

}  // namespace
}  // namespace gallop
