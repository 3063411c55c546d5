#include "farm/link.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

#include "farm/stop_signals.hpp"

namespace gallop {
namespace {

class Environment {
public:
    explicit Environment(const char* name, const char* value) : name_(name) {
        ::setenv(name, value, 1);
    }
    ~Environment() { ::unsetenv(name_); }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

private:
    const char* name_;
};

TEST(SoloLink, BringsTextsBackInTheirOrder) {
    const auto link = make_solo_link();
    EXPECT_EQ(link->rank(), 0);
    EXPECT_EQ(link->size(), 1);
    EXPECT_FALSE(link->receive());
    link->send(0, "one");
    link->send(0, "two");
    EXPECT_EQ(link->receive().value().text, "one");
    EXPECT_EQ(link->receive().value().text, "two");
    EXPECT_FALSE(link->receive());
    EXPECT_TRUE(link->quiet());
}

TEST(LocalPlace, IsAloneWithoutALauncher) {
    EXPECT_FALSE(launched_by_mpi());
    EXPECT_EQ(local_place().size, 1);
}

TEST(LocalPlace, IsWhatOpenMpiOrSlurmSays) {
    const Environment rank("PMIX_RANK", "3");
    EXPECT_TRUE(launched_by_mpi());
    const Environment id("SLURM_LOCALID", "1");
    const Environment tasks("SLURM_STEP_TASKS_PER_NODE", "2(x3),1");
    EXPECT_EQ(local_place().rank, 1);
    EXPECT_EQ(local_place().size, 2);
    const Environment size("OMPI_COMM_WORLD_LOCAL_SIZE", "4");
    const Environment local("OMPI_COMM_WORLD_LOCAL_RANK", "2");
    EXPECT_EQ(local_place().rank, 2);
    EXPECT_EQ(local_place().size, 4);
}

TEST(JobTime, IsReadAsSlurmWritesIt) {
    EXPECT_EQ(slurm_seconds("1-02:03:04\n"), 93784);
    EXPECT_EQ(slurm_seconds("02:03:04"), 7384);
    EXPECT_EQ(slurm_seconds("3:04"), 184);
    EXPECT_EQ(slurm_seconds("0:09"), 9);
    EXPECT_GT(slurm_seconds("UNLIMITED"), 1e18);
    EXPECT_GT(slurm_seconds("INVALID"), 1e18);
    EXPECT_GT(slurm_seconds(""), 1e18);
}

TEST(JobTime, IsUnlimitedOutsideOfAJobAndKnownFromTheEnvironmentInside) {
    EXPECT_GT(job_seconds_left(), 1e18);
    const Environment end("SLURM_JOB_END_TIME", "1000");
    EXPECT_EQ(job_seconds_left(), 0);
}

}  // namespace
}  // namespace gallop
