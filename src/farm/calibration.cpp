#include "farm/calibration.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/reader.hpp"
#include "farm/journal.hpp"
#include "farm/manifest.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr Range<double> any_time{0.0, 1e9};
const std::vector<std::string> precisions = {"fp32", "bf16", "fp8"};

Stage stage_at(std::size_t index) { return static_cast<Stage>(index); }

/// Least squares of y = a + b·x with a, b ≥ 0. Relative errors count, so that short clips are as
/// well predicted as long ones.
Calibration::Rate fit(const std::vector<std::pair<double, double>>& points) {
    double n = 0;
    double x = 0;
    double xx = 0;
    double y = 0;
    double xy = 0;
    double ratio_x = 0;
    double ratio_y = 0;
    for (const auto& [amount, seconds] : points) {
        const double weight = 1 / std::max(seconds * seconds, 1e-12);
        n += weight;
        x += weight * amount;
        xx += weight * amount * amount;
        y += weight * seconds;
        xy += weight * amount * seconds;
        ratio_x += amount;
        ratio_y += seconds;
    }
    Calibration::Rate rate{ratio_y / ratio_x, 0, true};
    const double spread = n * xx - x * x;
    if (points.size() < 3 || spread <= 1e-9 * n * xx) return rate;
    const double slope = (n * xy - x * y) / spread;
    const double fixed = (y - slope * x) / n;
    if (slope >= 0 && fixed >= 0) return {slope, fixed, true};
    if (slope < 0) return {0, y / n, true};
    return {xy / xx, 0, true};
}

}  // namespace

PerStage Calibration::seconds(const ClipWork& work) const {
    PerStage spent{};
    for (std::size_t i = 0; i < stage_count; ++i)
        if (work.amount[i] > 0)
            spent[i] = rates[i].seconds + rates[i].seconds_per_unit * work.amount[i];
    return spent;
}

Calibration read_calibration(const fs::path& path, const std::string& precision) {
    const Node root = parse_json(read_text(path), path.string());
    Reader in(root);
    Calibration made;
    in.require("device");
    in.require("precisions");
    made.device = in.get("device", "");
    made.memory_bytes = in.get("memory_bytes", 0.0, Range{0.0, 1e15});
    in.get("about", "");
    Reader all = in.child("precisions");
    // The nearest precision that the file has: the same, else the next faster, else any.
    std::vector<std::string> order = {precision, "bf16", "fp32", "fp8"};
    for (const std::string& one : precisions) all.has(one);
    for (const std::string& one : order) {
        if (!all.has(one)) continue;
        made.precision = precision;
        Reader stages = all.child(one);
        for (std::size_t i = 0; i < stage_count; ++i) {
            const char* name = name_of(stage_at(i));
            stages.require(name);
            Reader rate = stages.child(name);
            made.rates[i] = {rate.get("seconds_per_unit", 0.0, any_time),
                             rate.get("seconds", 0.0, any_time),
                             rate.get("measured", false) && one == precision};
        }
        break;
    }
    if (made.precision.empty())
        in.problem("precisions", "precisions holds none of fp32, bf16, fp8");
    for (const std::string& one : precisions)
        if (all.has(one)) all.child(one).ignore_unknown();
    in.finish();
    return made;
}

Calibration find_calibration(const std::string& device, const std::string& precision,
                             const fs::path& cache) {
    std::error_code failed;
    const std::string name = device + ".json";
    if (!cache.empty() && fs::is_regular_file(cache / ("calibration-" + name), failed))
        return read_calibration(cache / ("calibration-" + name), precision);
    const fs::path shipped = shipped_configs() / "calibration";
    if (fs::is_regular_file(shipped / name, failed))
        return read_calibration(shipped / name, precision);
    std::vector<std::string> known;
    for (const auto& entry : fs::directory_iterator(shipped, failed))
        known.push_back(entry.path().stem().string());
    std::sort(known.begin(), known.end());
    throw_input_error("no calibration for device \"{}\" (known: {}); --calibration names a file",
                      device, fmt::join(known, ", "));
}

void write_calibration(const fs::path& path, const Calibration& calibration) {
    std::error_code failed;
    Json file = Json::object();
    if (fs::exists(path, failed)) file = Json::parse(read_text(path), nullptr, false);
    if (!file.is_object()) file = Json::object();
    file["device"] = calibration.device;
    file["memory_bytes"] = calibration.memory_bytes;
    Json stages = Json::object();
    for (std::size_t i = 0; i < stage_count; ++i) {
        const Calibration::Rate& rate = calibration.rates[i];
        stages[name_of(stage_at(i))] = {{"seconds_per_unit", rate.seconds_per_unit},
                                        {"seconds", rate.seconds},
                                        {"measured", rate.measured}};
    }
    file["precisions"][calibration.precision] = stages;
    write_atomically(path, file.dump(2) + "\n");
}

Calibration calibrated(Calibration from, const std::vector<Measured>& clips) {
    for (std::size_t i = 0; i < stage_count; ++i) {
        std::vector<std::pair<double, double>> points;
        for (const Measured& clip : clips)
            if (clip.work.amount[i] > 0 && clip.seconds[i] > 0)
                points.emplace_back(clip.work.amount[i], clip.seconds[i]);
        if (!points.empty()) from.rates[i] = fit(points);
    }
    return from;
}

std::vector<Measured> measured_clips(const fs::path& run, std::size_t most) {
    const RunConfig config = read_run_config(run);
    const WorkModel model(config.model.choice());
    std::unordered_map<std::string, Json> done;
    for (const Json& event :
         read_journal(read_text(run / "journal.jsonl", std::uint64_t{4} << 30)).events)
        if (event.value("event", "") == "done" && event.contains("seconds") && done.size() < most)
            done.insert_or_assign(event.value("id", ""), event["seconds"]);
    std::vector<Measured> clips;
    for (const PlanRow& row : read_plan_index(run, config).rows) {
        const auto found = done.find(id_text(row.id));
        if (found == done.end()) continue;
        const PlannedItem planned = read_planned_item(run, config, row.offset, row.bytes);
        Measured& clip = clips.emplace_back();
        clip.work = model.of(planned.item, planned.gpus);
        double known = found->second.value("load", 0.0);
        for (std::size_t i = 0; i + 1 < stage_count; ++i) {
            clip.seconds[i] = found->second.value(name_of(stage_at(i)), 0.0);
            known += clip.seconds[i];
        }
        // What was not spent in the networks was spent on encoding and writing.
        clip.seconds[stage_count - 1] = std::max(found->second.value("total", 0.0) - known, 0.0);
    }
    return clips;
}

}  // namespace gallop
