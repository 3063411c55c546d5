#include "farm/plan_report.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "farm/terminal.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

constexpr std::size_t buckets_shown = 20;

Json bucket_json(const Bucket& bucket) {
    return {{"name", bucket.name},       {"items", bucket.items},
            {"seconds", bucket.seconds}, {"stages", bucket.stages},
            {"gpus", bucket.gpus},       {"memory_bytes", bucket.memory_bytes}};
}

}  // namespace

Json plan_report(PlanResult& plan, const Calibration& calibration, std::size_t workers) {
    const RunConfig& config = plan.config;
    // Items that share GPUs need as many workers at once; the estimate takes the most that any
    // bucket needs for all.
    int gpus = 1;
    Json buckets = Json::array();
    for (const Bucket& bucket : config.buckets) {
        gpus = std::max(gpus, bucket.gpus);
        buckets.push_back(bucket_json(bucket));
    }
    std::stable_sort(buckets.begin(), buckets.end(), [](const Json& a, const Json& b) {
        return a["items"].get<double>() * a["seconds"].get<double>() >
               b["items"].get<double>() * b["seconds"].get<double>();
    });
    Json stages = Json::object();
    bool measured = true;
    for (std::size_t i = 0; i < stage_count; ++i) {
        if (plan.stages[i] <= 0) continue;
        stages[name_of(static_cast<Stage>(i))] = plan.stages[i];
        measured = measured && calibration.rates[i].measured;
    }
    const double end = makespan(plan.seconds, std::max<std::size_t>(workers / gpus, 1));
    std::uint64_t memory = 0;
    for (const Bucket& bucket : config.buckets) memory = std::max(memory, bucket.memory_bytes);
    return {{"name", config.name},
            {"items", config.items},
            {"added", plan.added},
            {"duplicates", config.duplicates},
            {"sweep", config.sweep},
            {"buckets", buckets},
            {"device", calibration.device},
            {"precision", calibration.precision},
            {"measured", measured},
            {"stage_seconds", stages},
            {"gpu_hours", plan.gpu_seconds / 3600},
            {"gpu_hours_limit", config.limits.gpu_hours},
            {"memory_bytes", memory},
            {"memory_of_device", calibration.memory_bytes},
            {"clip_bytes", plan.clip_bytes},
            {"latents_bytes", plan.latents_bytes},
            {"files", plan.files},
            {"workers", workers},
            {"seconds_to_end", end},
            {"slurm_time", suggested_time(end, config.limits.walltime_reserve_seconds)}};
}

std::string plan_text(const Json& report) {
    std::string text;
    const auto line = [&](std::string_view name, const std::string& value) {
        text += fmt::format("{:<12}{}\n", name, value);
    };
    const auto number = [&](const char* key) { return report[key].get<double>(); };
    line("run", report["name"].get<std::string>());
    const auto duplicates = report["duplicates"].get<std::uint64_t>();
    line("items", fmt::format("{}{}", report["items"].get<std::uint64_t>(),
                              duplicates > 0
                                  ? fmt::format(" distinct; {} more names for the same", duplicates)
                                  : ""));
    if (report["added"] != report["items"])
        line("added", fmt::format("{}", report["added"].get<std::uint64_t>()));
    for (const auto& [axis, values] : report["sweep"].items())
        line("sweep", fmt::format("{}: {}", axis, values.dump()));
    line("device", fmt::format("{} {}{}", report["device"].get<std::string>(),
                               report["precision"].get<std::string>(),
                               report["measured"] ? "" : " (rates are guesses: not measured yet)"));
    double total = 0;
    for (const auto& [stage, seconds] : report["stage_seconds"].items())
        total += seconds.get<double>();
    std::vector<std::string> shares;
    for (const auto& [stage, seconds] : report["stage_seconds"].items())
        shares.push_back(
            fmt::format("{} {:.0f} %", stage, 100 * seconds.get<double>() / std::max(total, 1e-9)));
    line("work", fmt::format("{:.3g} GPU-hours: {}", number("gpu_hours"), fmt::join(shares, ", ")));
    const double limit = number("gpu_hours_limit");
    if (limit > 0 && number("gpu_hours") > limit)
        line("", fmt::format("more than limits.gpu_hours, {:g}", limit));
    line("memory", fmt::format("{}{}", bytes_text(number("memory_bytes")),
                               number("memory_of_device") > 0
                                   ? fmt::format(" of {}", bytes_text(number("memory_of_device")))
                                   : ""));
    line("disk", fmt::format("{} in {} files: clips {}, latents {}",
                             bytes_text(number("clip_bytes") + number("latents_bytes")),
                             report["files"].get<std::uint64_t>(), bytes_text(number("clip_bytes")),
                             bytes_text(number("latents_bytes"))));
    line("end",
         fmt::format("after {} on {} worker{}", clock_text(number("seconds_to_end")),
                     report["workers"].get<std::uint64_t>(), report["workers"] == 1 ? "" : "s"));
    line("Slurm time", report["slurm_time"].get<std::string>());
    text += fmt::format("\n{:>9} {:>9} {:>5} {:>9}  bucket\n", "items", "s each", "GPUs", "memory");
    const Json& buckets = report["buckets"];
    for (std::size_t i = 0; i < std::min(buckets.size(), buckets_shown); ++i) {
        const Json& one = buckets[i];
        text += fmt::format("{:>9} {:>9.3g} {:>5} {:>9}  {}\n", one["items"].get<std::uint64_t>(),
                            one["seconds"].get<double>(), one["gpus"].get<int>(),
                            bytes_text(one["memory_bytes"].get<double>()),
                            one["name"].get<std::string>());
    }
    if (buckets.size() > buckets_shown)
        text += fmt::format("… and {} more\n", buckets.size() - buckets_shown);
    return text;
}

}  // namespace gallop
