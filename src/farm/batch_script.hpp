#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "farm/run_config.hpp"

namespace gallop {

/// Where the shipped batch scripts live: `slurm` beside the program's sources.
std::filesystem::path shipped_scripts();

/// What to change in a batch script.
struct BatchSettings {
    std::vector<std::pair<std::string, std::string>> options;  ///< long name of sbatch's, value
    std::vector<std::string> drop;                             ///< options to leave out
    std::vector<std::string> lines;                            ///< of further options, as they are
    std::vector<std::pair<std::string, std::string>> variables;
};

/// What a run's `slurm:` block asks for. `array`: one node a task, as many tasks as nodes are asked
/// for; otherwise one job of 1 to that many nodes, so that it can go on with fewer. `time`: for
/// want of one in the block; "" leaves the script's. `reserve`: seconds before the job's end at
/// which it must be asked to stop.
BatchSettings batch_settings(const SlurmRequest& slurm, const std::string& time, double reserve,
                             bool array);

/// Fills a batch script: an option that it has gets the new value, others are added behind its
/// last one; the value of `NAME=${NAME:-…}` becomes the given one, quoted for the shell, while the
/// environment still wins. Throws Error when the script has no such variable.
std::string fill_script(std::string_view script, const BatchSettings& settings);

}  // namespace gallop
