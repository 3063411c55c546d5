#include "farm/launch.hpp"

#include <gmock/gmock.h>

#include "core/error.hpp"

namespace gallop {
namespace {

const std::vector<std::string> program = {"gallop", "run", "jobs/cafe.yaml"};

LaunchSite debian() {
    LaunchSite site;
    site.mpirun = "mpirun (Open MPI) 4.1.4";
    return site;
}

LaunchSite three_nodes() {
    LaunchSite site = debian();
    site.nodes = {"a1", "a2", "a3"};
    site.srun_pmix = true;
    return site;
}

LaunchRequest ranks(int n) {
    LaunchRequest request;
    request.ranks = n;
    request.program = program;
    return request;
}

std::string text(const LaunchRequest& request, const LaunchSite& site) {
    return shell_text(command_of(request, site));
}

std::string complaint(const LaunchRequest& request, const LaunchSite& site) {
    try {
        command_of(request, site);
    } catch (const InputError& wrong) {
        return wrong.what();
    }
    return "";
}

TEST(Launch, NeedsNoMpiForOneRank) {
    EXPECT_EQ(text(ranks(0), LaunchSite{}), "gallop run jobs/cafe.yaml");
    EXPECT_EQ(text(ranks(1), debian()), "gallop run jobs/cafe.yaml");
}

TEST(Launch, NeedsNoMpiForTheBatchScriptsOwnNode) {
    LaunchSite alone = three_nodes();
    alone.nodes = {"a1"};
    EXPECT_THAT(text(ranks(0), alone),
                testing::StartsWith("srun "));  // salloc's shell is elsewhere
    alone.here = "a1";
    EXPECT_EQ(text(ranks(0), alone), "gallop run jobs/cafe.yaml");
    LaunchRequest last_left = ranks(0);
    last_left.nodes = {"a2"};
    LaunchSite site = three_nodes();
    site.here = "a1";
    EXPECT_THAT(text(last_left, site), testing::HasSubstr("--nodelist=a2 "));
    last_left.nodes = {"a1"};
    EXPECT_EQ(text(last_left, site), "gallop run jobs/cafe.yaml");
}

TEST(Launch, GivesEachMpiItsOwnSurvivalOption) {
    EXPECT_EQ(text(ranks(4), debian()),
              "mpirun --enable-recovery -n 4 --oversubscribe --bind-to none "
              "gallop run jobs/cafe.yaml");
    LaunchSite five;
    five.mpirun = "mpirun (Open MPI) 5.0.9";
    EXPECT_THAT(text(ranks(4), five), testing::Not(testing::HasSubstr("--with-ft")));
    five.ulfm = true;
    EXPECT_THAT(text(ranks(4), five), testing::StartsWith("mpirun --with-ft ulfm -n 4 "));
    LaunchSite other;
    other.mpirun = "HYDRA build details:";
    EXPECT_EQ(text(ranks(4), other), "mpirun -n 4 gallop run jobs/cafe.yaml");
}

TEST(Launch, StartsOneRankANodeInsideSlurm) {
    EXPECT_EQ(text(ranks(0), three_nodes()),
              "srun --mpi=pmix --kill-on-bad-exit=0 --no-kill --overlap --cpu-bind=none "
              "--nodelist=a1,a2,a3 --nodes=3 --ntasks=3 --ntasks-per-node=1 "
              "gallop run jobs/cafe.yaml");
}

TEST(Launch, LeavesOutTheNodesThatAreNotNamed) {
    LaunchRequest request = ranks(0);
    request.nodes = {"a1", "a3"};
    EXPECT_THAT(text(request, three_nodes()),
                testing::HasSubstr("--nodelist=a1,a3 --nodes=2 --ntasks=2 "));
    request.with = Launcher::mpirun;
    EXPECT_EQ(text(request, three_nodes()),
              "mpirun --enable-recovery -n 2 --host a1,a3 --map-by node --bind-to none "
              "gallop run jobs/cafe.yaml");
}

TEST(Launch, NeverLetsRanksShareANodeUnderSrun) {
    // One task's death would end the whole step.
    EXPECT_THAT(text(ranks(6), three_nodes()),
                testing::StartsWith("mpirun --enable-recovery -n 6 --host a1,a2,a3 "));
    LaunchRequest request = ranks(6);
    request.with = Launcher::srun;
    EXPECT_THAT(complaint(request, three_nodes()), testing::HasSubstr("6 ranks on 3 nodes"));
}

TEST(Launch, TakesMpirunWhereSrunCannotServe) {
    LaunchSite five = three_nodes();
    five.mpirun = "mpirun (Open MPI) 5.0.9";
    EXPECT_THAT(text(ranks(0), five), testing::StartsWith("mpirun "));
    LaunchSite without = three_nodes();
    without.srun_pmix = false;
    EXPECT_THAT(text(ranks(0), without), testing::StartsWith("mpirun "));
    LaunchRequest request = ranks(0);
    request.with = Launcher::srun;
    EXPECT_THAT(complaint(request, without), testing::HasSubstr("does not name pmix"));
}

TEST(Launch, SaysWhatIsMissing) {
    EXPECT_THAT(complaint(ranks(2), LaunchSite{}), testing::HasSubstr("no mpirun on the PATH"));
    LaunchRequest request = ranks(2);
    request.with = Launcher::srun;
    EXPECT_THAT(complaint(request, debian()), testing::HasSubstr("needs a Slurm job"));
}

TEST(Launch, QuotesWhatAShellWouldTakeApart) {
    EXPECT_EQ(shell_text({"echo", "a b", "it's", "", "--x={y}"}),
              "echo 'a b' 'it'\\''s' '' '--x={y}'");
}

}  // namespace
}  // namespace gallop
