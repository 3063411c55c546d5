#include "farm/probe.hpp"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/journal.hpp"
#include "farm/render_item.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A new folder, removed with all that is in it.
class ScratchFolder {
public:
    ScratchFolder() {
        std::string name = (fs::temp_directory_path() / "gallop-probe-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw_file_error(name, "cannot make", errno);
        path_ = name;
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    ~ScratchFolder() {
        std::error_code failed;
        fs::remove_all(path_, failed);
    }
    const fs::path& path() const { return path_; }

private:
    fs::path path_;
};

/// One item of each bucket, then others from all over the plan.
std::vector<PlanRow> chosen(const PlanResult& plan, const fs::path& directory, std::size_t count) {
    std::vector<PlanRow> rows = plan.sample;
    if (rows.size() < count) {
        std::set<std::uint64_t> taken;
        for (const PlanRow& row : rows) taken.insert(row.offset);
        const std::vector<PlanRow> all = read_plan_index(directory, plan.config).rows;
        const std::size_t stride = std::max<std::size_t>(all.size() / count, 1);
        for (std::size_t first = 0; first < stride && rows.size() < count; ++first)
            for (std::size_t i = first; i < all.size() && rows.size() < count; i += stride)
                if (taken.insert(all[i].offset).second) rows.push_back(all[i]);
    }
    rows.resize(std::min(rows.size(), count));
    return rows;
}

}  // namespace

Calibration probe_rates(const Manifest& manifest, const PlanOptions& options, Backend& backend,
                        std::size_t count) {
    const ScratchFolder scratch;
    const fs::path& run = scratch.path();
    PlanOptions how = options;
    how.directory = run;
    how.extend = false;
    const PlanResult plan = make_plan(manifest, how);
    const ModelRequest& model = manifest.model;
    Renderer renderer(model.choice(), backend);
    const Stages stages = stages_of(renderer);
    const std::vector<PlanRow> rows = chosen(plan, run, count);
    Journal journal(run / "journal.jsonl");
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const PlannedItem planned =
            read_planned_item(run, plan.config, rows[i].offset, rows[i].bytes);
        log_info("probe {} of {} bucket={} name={}", i + 1, rows.size(),
                 plan.config.buckets.at(rows[i].bucket).name, planned.item.name);
        const RenderedItem made = render_item(
            {planned.item, planned.resolved, plan.config.model, plan.config.outputs, run}, stages,
            {});
        Json seconds = Json::object();
        for (const auto& [stage, spent] : made.seconds.stages) seconds[stage] = spent;
        journal.append({{"event", "done"}, {"id", planned.item.id}, {"seconds", seconds}});
    }
    journal.flush();
    return calibrated(options.calibration, measured_clips(run));
}

}  // namespace gallop
