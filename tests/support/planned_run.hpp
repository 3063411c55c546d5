#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/files.hpp"
#include "farm/plan.hpp"
#include "farm/run_directory.hpp"
#include "support/temporary_folder.hpp"

namespace gallop::test {

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
    Plan plan(const std::string& items, const std::vector<std::string>& set = {}) const {
        return make_plan(parse_manifest("version: 1\nname: test\nmodel: {path: model}\n"
                                        "defaults: {resolution: 64x32, frames: 5}\n"
                                        "outputs: {video: {preset: ultrafast}}\n" +
                                            items,
                                        folder_ / "m.yaml", set),
                         "");
    }
    /// The plan frozen in the run directory `name`.
    std::filesystem::path freeze(const Plan& plan, const std::string& name = "run") const {
        std::filesystem::create_directories(folder_ / name);
        prepare_run_directory(plan, folder_ / name);
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
};

}  // namespace gallop::test
