#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/files.hpp"
#include "farm/plan.hpp"
#include "support/temporary_folder.hpp"

namespace gallop::test {

/// A plan, and all its items in memory.
struct FrozenPlan {
    std::filesystem::path directory;
    RunConfig config;
    std::vector<PlannedItem> items;
};

/// A folder with a model that only has names, and run directories of tiny items in it.
class PlannedRun {
public:
    PlannedRun() {
        for (const char* network : {"distill", "540p_sr"}) {
            std::filesystem::create_directories(folder_ / "model" / network);
            std::ofstream(folder_ / "model" / network / "model.safetensors") << network;
        }
    }

    /// The plan of `items` ("items: [...]" and other top-level keys).
    FrozenPlan plan(const std::string& items, const std::vector<std::string>& set = {}) {
        PlanOptions how;
        how.directory = folder_ / ("plan" + std::to_string(++plans_));
        how.calibration = find_calibration("cpu", "bf16", "");
        make_plan(parse_manifest("version: 1\nname: test\nmodel: {path: model}\n"
                                 "defaults: {resolution: 64x32, frames: 5}\n"
                                 "outputs: {video: {preset: ultrafast}}\n" +
                                     items,
                                 folder_ / "m.yaml", {set, {}}),
                  how);
        FrozenPlan made{how.directory, read_run_config(how.directory), {}};
        for (const PlanRow& row : read_plan_index(how.directory, made.config).rows)
            made.items.push_back(
                read_planned_item(how.directory, made.config, row.offset, row.bytes));
        return made;
    }
    /// The plan frozen in the run directory `name`.
    std::filesystem::path freeze(const FrozenPlan& plan, const std::string& name = "run") const {
        std::filesystem::create_directories(folder_ / name);
        std::filesystem::copy(plan.directory, folder_ / name,
                              std::filesystem::copy_options::recursive |
                                  std::filesystem::copy_options::overwrite_existing);
        return folder_ / name;
    }
    /// All clips and latents of a run by path, and whatever temporary is left.
    static std::map<std::string, std::string> files(const std::filesystem::path& run) {
        std::map<std::string, std::string> found;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(run)) {
            const std::string name = entry.path().lexically_relative(run).string();
            if (name.ends_with(".mp4") || name.ends_with(".h5") || name.ends_with(".tmp"))
                found[name] = read_text(entry.path());
        }
        return found;
    }
    std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

private:
    TemporaryFolder folder_;
    int plans_ = 0;
};

}  // namespace gallop::test
