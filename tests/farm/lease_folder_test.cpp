#include "farm/lease_folder.hpp"

#include <fstream>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

using test::TemporaryFolder;

constexpr const char* item = "00112233445566778899aabbccddeeff";
constexpr const char* other = "ffeeddccbbaa99887766554433221100";

std::set<std::string> files_in(const fs::path& folder) {
    std::set<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
        if (entry.is_regular_file() && !entry.path().filename().string().starts_with("clock-"))
            names.insert(entry.path().lexically_relative(folder).string());
    return names;
}

/// A lease as a holder leaves it that has died so long ago.
void leave_lease(const fs::path& run, const std::string& name, double seconds_ago) {
    const fs::path path = run / "leases" / name.substr(0, 2) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path).flush();
    fs::last_write_time(path, fs::file_time_type::clock::now() -
                                  std::chrono::milliseconds(static_cast<int>(seconds_ago * 1e3)));
}

TEST(LeaseFolder, TellsOtherProcessesFromOtherMachines) {
    const TemporaryFolder run;
    LeaseFolder first(run.path(), 60);
    EXPECT_TRUE(first.alone());
    const LeaseFolder second(run.path(), 60);
    EXPECT_FALSE(first.alone());
    EXPECT_TRUE(first.only_host());
    std::ofstream(run / "leases" / "clock-other-1-1").flush();
    EXPECT_FALSE(first.only_host());
}

TEST(LeaseFolder, GivesAnItemToOneHolderAlone) {
    const TemporaryFolder run;
    LeaseFolder first(run.path(), 60);
    LeaseFolder second(run.path(), 60);
    EXPECT_TRUE(first.claim(item));
    EXPECT_TRUE(first.holds(item));
    EXPECT_FALSE(first.claim(item));
    EXPECT_FALSE(second.claim(item));
    EXPECT_TRUE(second.claim(other));
}

TEST(LeaseFolder, TakesOverAStaleLeaseByTheNextGeneration) {
    const TemporaryFolder run;
    leave_lease(run.path(), std::string(item) + ".0", 100);
    LeaseFolder leases(run.path(), 60);
    EXPECT_TRUE(leases.claim(item));
    EXPECT_EQ(files_in(run.path() / "leases"),
              (std::set<std::string>{std::string("00/") + item + ".0",
                                     std::string("00/") + item + ".1"}));
    LeaseFolder late(run.path(), 60);
    EXPECT_FALSE(late.claim(item));
}

TEST(LeaseFolder, WaitsForAHolderThatWasSilentForLessThanItsTime) {
    const TemporaryFolder run;
    leave_lease(run.path(), std::string(item) + ".0", 30);
    LeaseFolder leases(run.path(), 60);
    EXPECT_FALSE(leases.claim(item));
}

TEST(LeaseFolder, KeepsItsLeasesFresh) {
    const TemporaryFolder run;
    LeaseFolder holder(run.path(), 1.5);
    LeaseFolder waiting(run.path(), 1.5);
    ASSERT_TRUE(holder.claim(item));
    for (int i = 0; i < 14; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(150));
        ASSERT_FALSE(waiting.claim(item)) << "after " << (i + 1) * 0.15 << " s";
    }
}

TEST(LeaseFolder, LeavesNothingOfADecidedItem) {
    const TemporaryFolder run;
    leave_lease(run.path(), std::string(item) + ".0", 100);
    {
        LeaseFolder leases(run.path(), 60);
        ASSERT_TRUE(leases.claim(item));
        leases.finish(item);
        EXPECT_FALSE(leases.holds(item));
        EXPECT_TRUE(files_in(run.path() / "leases").empty());
    }
    for (const auto& entry : fs::recursive_directory_iterator(run.path() / "leases"))
        EXPECT_FALSE(entry.is_regular_file()) << entry.path();
}

TEST(LeaseFolder, LetsTheNextOneTakeWhatWasGivenBack) {
    const TemporaryFolder run;
    LeaseFolder first(run.path(), 60);
    LeaseFolder second(run.path(), 60);
    ASSERT_TRUE(first.claim(item));
    first.give_back(item);
    EXPECT_TRUE(second.claim(item));
    EXPECT_FALSE(first.claim(item));
}

TEST(LeaseFolder, ReadsTheServersClock) {
    const TemporaryFolder run;
    LeaseFolder leases(run.path(), 60);
    const double before = leases.server_time();
    const double local =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    EXPECT_NEAR(before, local, 5);
    EXPECT_GE(leases.server_time(), before);
}

TEST(LeaseFolder, NeverGivesAnItemTwiceToManyProcesses) {
    // Six processes grab at 40 items, each of which holds a stale lease of its dead first holder.
    const TemporaryFolder run;
    constexpr int processes = 6;
    constexpr int items = 40;
    const auto id = [](int i) { return fmt::format("{:032x}", i * 7919); };
    for (int i = 0; i < items; ++i) leave_lease(run.path(), id(i) + ".0", 1000);
    std::vector<pid_t> children;
    for (int p = 0; p < processes; ++p) {
        const pid_t child = ::fork();
        if (child == 0) {
            int taken = 0;
            try {
                LeaseFolder leases(run.path(), 60);
                for (int i = 0; i < items; ++i) taken += leases.claim(id((i + p * 5) % items));
                std::ofstream(run.path() / fmt::format("taken-{}", p)) << taken << std::flush;
                ::_exit(0);  // as if killed: nothing is given back
            } catch (...) {
                ::_exit(1);
            }
        }
        children.push_back(child);
    }
    for (const pid_t child : children) {
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    }
    int sum = 0;
    for (int p = 0; p < processes; ++p) {
        int taken = -1;
        std::ifstream(run.path() / fmt::format("taken-{}", p)) >> taken;
        sum += taken;
    }
    EXPECT_EQ(sum, items);
    EXPECT_EQ(files_in(run.path() / "leases").size(), 2U * items);
}

}  // namespace
}  // namespace gallop
