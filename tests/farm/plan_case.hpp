#pragma once

#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "farm/plan.hpp"
#include "support/sound_file.hpp"
#include "support/temporary_folder.hpp"

namespace gallop::test {

/// A folder with a model's files and inputs, in which plans are made.
class PlanCase : public testing::Test {
protected:
    PlanCase() {
        for (const char* network : {"distill", "base", "540p_sr"})
            write(std::string("model/") + network + "/model.safetensors", network);
        write("model/vae/w.pth", "vae");
        write("photo.png", "one");
    }
    void write(const std::string& name, const std::string& text) {
        std::filesystem::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name) << text;
    }
    void write_sound(const std::string& name, int samples) {
        test::write_sound(folder_ / name, samples);
    }

    Manifest manifest(const std::string& items, const ManifestOptions& options = {}) {
        return parse_manifest("version: 1\nname: test\nmodel: {path: model}\n" + items,
                              folder_ / "m.yaml", options);
    }
    PlanResult plan(const std::string& items, const ManifestOptions& options = {},
                    bool extend = false) {
        PlanOptions how;
        how.directory = run_;
        how.digest_cache = folder_ / "cache";
        how.calibration = find_calibration("h100", "bf16", "");
        how.extend = extend;
        return make_plan(manifest(items, options), how);
    }
    /// A plan in a folder of its own, and its items.
    std::vector<PlannedItem> planned(const std::string& items,
                                     const ManifestOptions& options = {}) {
        run_ = folder_ / ("run" + std::to_string(++runs_));
        plan(items, options);
        return read();
    }
    /// The items of the run directory.
    std::vector<PlannedItem> read() {
        const RunConfig config = read_run_config(run_);
        std::vector<PlannedItem> items;
        for (const PlanRow& row : read_plan_index(run_, config).rows)
            items.push_back(read_planned_item(run_, config, row.offset, row.bytes));
        return items;
    }

    TemporaryFolder folder_;
    std::filesystem::path run_ = folder_ / "run";
    int runs_ = 0;
};

}  // namespace gallop::test
