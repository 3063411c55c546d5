#include "farm/batch_script.hpp"

#include <gmock/gmock.h>

#include "core/error.hpp"
#include "core/files.hpp"

namespace gallop {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* script = R"(#!/bin/sh
# comment
#SBATCH --nodes=1-8            # with a remark
#SBATCH --requeue
set -u
RUN="${RUN:-runs/cafe}"   # the run
LAST="${LAST:-}"
echo "$RUN"
)";

BatchSettings with_option(const std::string& name, const std::string& value) {
    BatchSettings settings;
    settings.options.emplace_back(name, value);
    return settings;
}

BatchSettings with_variable(const std::string& name, const std::string& value) {
    BatchSettings settings;
    settings.variables.emplace_back(name, value);
    return settings;
}

TEST(BatchScript, ReplacesAnOptionInPlaceAndAddsOthersBehind) {
    EXPECT_THAT(fill_script(script, with_option("nodes", "2")),
                HasSubstr("# comment\n#SBATCH --nodes=2\n#SBATCH --requeue\n"));
    EXPECT_THAT(fill_script(script, with_option("partition", "gpu")),
                HasSubstr("#SBATCH --requeue\n#SBATCH --partition=gpu\nset -u\n"));
    EXPECT_THAT(fill_script(script, with_option("node", "x")), HasSubstr("--nodes=1-8"));
}

TEST(BatchScript, LeavesOutWhatIsDropped) {
    BatchSettings settings;
    settings.drop = {"requeue"};
    settings.lines = {"--gres=gpu:8 -p night"};
    EXPECT_THAT(fill_script(script, settings),
                testing::AllOf(Not(HasSubstr("requeue")),
                               HasSubstr("#SBATCH --gres=gpu:8 -p night\nset -u\n")));
}

TEST(BatchScript, QuotesValuesForTheShell) {
    EXPECT_THAT(fill_script(script, with_variable("RUN", "/data/a b")),
                HasSubstr("RUN=\"${RUN:-/data/a b}\"   # the run\n"));
    EXPECT_THAT(fill_script(script, with_variable("RUN", "a\"$`\\}")),
                HasSubstr("RUN=\"${RUN:-a\\\"\\$\\`\\\\\\}}\""));
    EXPECT_THROW(fill_script(script, with_variable("GONE", "x")), Error);
}

TEST(BatchScript, AsksForWhatTheManifestSays) {
    SlurmRequest slurm;
    slurm.nodes = 8;
    slurm.time = "04:00:00";
    slurm.partition = "h100";
    slurm.gpus_per_node = 4;
    slurm.options = {"--mail-type=END"};
    const std::string shipped = read_text(shipped_scripts() / "render.sbatch");
    const std::string text = fill_script(shipped, batch_settings(slurm, "1-00:00:00", 120, false));
    for (const char* line :
         {"#SBATCH --nodes=1-8\n", "#SBATCH --time=04:00:00\n", "#SBATCH --partition=h100\n",
          "#SBATCH --gpus-per-node=4\n", "#SBATCH --mail-type=END\n", "#SBATCH --requeue\n",
          "#SBATCH --signal=B:USR1@150\n", "STOP_SECONDS:-120}"})
        EXPECT_THAT(text, HasSubstr(line));
    slurm.time.clear();
    slurm.requeue = false;
    const std::string other = fill_script(shipped, batch_settings(slurm, "1-00:00:00", 120, false));
    EXPECT_THAT(other, HasSubstr("#SBATCH --time=1-00:00:00\n"));
    EXPECT_THAT(other, HasSubstr("#SBATCH --no-requeue\n"));
    EXPECT_THAT(other, Not(HasSubstr("#SBATCH --requeue")));
    EXPECT_THAT(other, HasSubstr("REQUEUE=\"${REQUEUE:-no}\""));
}

TEST(BatchScript, GivesEachTaskOfAnArrayOneNode) {
    SlurmRequest slurm;
    slurm.nodes = 8;
    const std::string text = fill_script(read_text(shipped_scripts() / "array.sbatch"),
                                         batch_settings(slurm, "", 120, true));
    EXPECT_THAT(text, HasSubstr("#SBATCH --array=0-7\n"));
    EXPECT_THAT(text, HasSubstr("#SBATCH --nodes=1\n"));
    EXPECT_THAT(text, HasSubstr("#SBATCH --time=04:00:00\n"));
}

}  // namespace
}  // namespace gallop
