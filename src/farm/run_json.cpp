#include "farm/run_json.hpp"

#include "core/check.hpp"
#include "core/files.hpp"
#include "farm/plan_index.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

constexpr int format_version = 2;  // 1 had no buckets, no texts and whole items in a line

Json request_json(const RunRequest& request) {
    const OutputRequest& out = request.outputs;
    Json keep = Json::array();
    if (out.keep_base) keep.push_back("base");
    if (out.keep_final) keep.push_back("final");
    const Limits& limits = request.limits;
    const Retry& retry = request.retry;
    const SlurmRequest& slurm = request.slurm;
    static const char* const orders[] = {"longest_first", "manifest", "preview"};
    return {{"model",
             {{"path", request.model.path},
              {"variant", request.model.variant},
              {"arch", request.model.arch},
              {"precision", name_of(request.model.precision)}}},
            {"outputs",
             {{"root", out.root},
              {"video",
               {{"codec", out.codec},
                {"crf", out.crf},
                {"preset", out.preset},
                {"pix_fmt", out.pix_fmt}}},
              {"audio", {{"codec", out.audio_codec}, {"bitrate", out.audio_bitrate}}},
              {"latents", {{"keep", keep}, {"dtype", std::string(name_of(out.latents))}}}}},
            {"seeds",
             {{"base", request.seeds.base},
              {"samples", request.seeds.samples},
              {"by_item", request.seeds.by_item},
              {"by_sample", request.seeds.by_sample}}},
            {"resources", {{"gpus_per_item", request.resources.gpus_per_item}}},
            {"schedule",
             {{"order", orders[static_cast<int>(request.schedule.order)]},
              {"chunk", request.schedule.chunk_seconds},
              {"silent", request.schedule.silent_seconds}}},
            {"retry",
             {{"attempts", retry.attempts},
              {"other_host", retry.other_host},
              {"on_oom", retry.on_oom},
              {"stop_after_failed", retry.stop_after_failed},
              {"stop_after_failed_share", retry.stop_after_failed_share}}},
            {"limits",
             {{"gpu_hours", limits.gpu_hours},
              {"walltime_reserve", limits.walltime_reserve_seconds},
              {"disk_free",
               {{"pause_below", limits.disk_pause_below},
                {"resume_above", limits.disk_resume_above}}}}},
            {"slurm",
             {{"nodes", slurm.nodes},
              {"time", slurm.time},
              {"partition", slurm.partition},
              {"account", slurm.account},
              {"qos", slurm.qos},
              {"constraint", slurm.constraint},
              {"reservation", slurm.reservation},
              {"gpus_per_node", slurm.gpus_per_node},
              {"cpus_per_task", slurm.cpus_per_task},
              {"memory", slurm.memory},
              {"requeue", slurm.requeue},
              {"options", slurm.options}}}};
}

void read_request(const Json& json, RunRequest& request) {
    const Json& model = json.at("model");
    request.model.path = model.at("path");
    request.model.variant = model.at("variant");
    request.model.arch = model.at("arch");
    for (const Precision one : {Precision::fp32, Precision::bf16, Precision::fp8})
        if (model.at("precision") == name_of(one)) request.model.precision = one;
    OutputRequest& out = request.outputs;
    const Json& outputs = json.at("outputs");
    out.root = outputs.at("root");
    const Json& video = outputs.at("video");
    out.codec = video.at("codec");
    out.crf = video.at("crf");
    out.preset = video.at("preset");
    out.pix_fmt = video.at("pix_fmt");
    out.audio_codec = outputs.at("audio").at("codec");
    out.audio_bitrate = outputs.at("audio").at("bitrate");
    out.keep_base = out.keep_final = false;
    for (const Json& word : outputs.at("latents").at("keep"))
        (word == "base" ? out.keep_base : out.keep_final) = true;
    out.latents = outputs.at("latents").at("dtype") == "bf16" ? DType::bf16 : DType::f32;
    const Json& seeds = json.at("seeds");
    request.seeds = {seeds.at("base"), seeds.at("samples"), seeds.at("by_item"),
                     seeds.at("by_sample"), true};
    request.resources.gpus_per_item = json.at("resources").at("gpus_per_item");
    const Json& schedule = json.at("schedule");
    request.schedule.order = schedule.at("order") == "manifest"  ? Schedule::Order::manifest
                             : schedule.at("order") == "preview" ? Schedule::Order::preview
                                                                 : Schedule::Order::longest_first;
    request.schedule.chunk_seconds = schedule.at("chunk");
    request.schedule.silent_seconds = schedule.at("silent");
    const Json& retry = json.at("retry");
    request.retry = {retry.at("attempts"), retry.at("other_host"), retry.at("on_oom"),
                     retry.at("stop_after_failed"), retry.at("stop_after_failed_share")};
    const Json& limits = json.at("limits");
    request.limits = {limits.at("gpu_hours"), limits.at("walltime_reserve"),
                      limits.at("disk_free").at("pause_below"),
                      limits.at("disk_free").at("resume_above")};
    const Json& slurm = json.at("slurm");
    request.slurm = {slurm.at("nodes"),       slurm.at("time"),          slurm.at("partition"),
                     slurm.at("account"),     slurm.at("qos"),           slurm.at("constraint"),
                     slurm.at("reservation"), slurm.at("gpus_per_node"), slurm.at("cpus_per_task"),
                     slurm.at("memory"),      slurm.at("requeue"),       slurm.at("options")};
}

}  // namespace

Json run_json(const RunConfig& config) {
    Json buckets = Json::array();
    for (const Bucket& bucket : config.buckets)
        buckets.push_back({{"name", bucket.name},
                           {"items", bucket.items},
                           {"seconds", bucket.seconds},
                           {"stages", bucket.stages},
                           {"memory_bytes", bucket.memory_bytes},
                           {"clip_bytes", bucket.clip_bytes},
                           {"latents_bytes", bucket.latents_bytes},
                           {"gpus", bucket.gpus}});
    return {{"format", format_version},
            {"name", config.name},
            {"manifest", config.manifest},
            {"config", request_json(config)},
            {"numerics", config.numerics},
            {"digests", {{"weights", config.weights}, {"arch", config.arch_digest}}},
            {"device", config.device},
            {"sweep", config.sweep},
            {"buckets", buckets},
            {"texts", config.texts},
            {"items", config.items},
            {"duplicates", config.duplicates},
            {"lock", {{"bytes", config.lock_bytes}, {"sha256", config.lock_sha256}}}};
}

RunConfig run_config_of(const Json& json) {
    if (json.at("format") != format_version)
        throw_input_error("format is {} (this program reads {}); plan into a new folder",
                          json.at("format").dump(), format_version);
    RunConfig config;
    config.name = json.at("name");
    config.manifest = json.at("manifest");
    read_request(json.at("config"), config);
    config.numerics = json.at("numerics");
    config.weights = json.at("digests").at("weights").get<WeightsDigests>();
    config.arch_digest = json.at("digests").at("arch");
    config.device = json.at("device");
    config.sweep = json.at("sweep");
    for (const Json& row : json.at("buckets")) {
        Bucket bucket;
        bucket.name = row.at("name");
        bucket.items = row.at("items");
        bucket.seconds = row.at("seconds");
        bucket.stages = row.at("stages").get<std::map<std::string, double>>();
        bucket.memory_bytes = row.at("memory_bytes");
        bucket.clip_bytes = row.at("clip_bytes");
        bucket.latents_bytes = row.at("latents_bytes");
        bucket.gpus = row.at("gpus");
        config.buckets.push_back(std::move(bucket));
    }
    config.texts = json.at("texts").get<std::map<std::string, std::string>>();
    config.items = json.at("items");
    config.duplicates = json.at("duplicates");
    config.lock_bytes = json.at("lock").at("bytes");
    config.lock_sha256 = json.at("lock").at("sha256");
    return config;
}

RunConfig read_run_config(const std::filesystem::path& run) {
    const std::filesystem::path path = run / "run.json";
    const Json json = Json::parse(read_text(path), nullptr, false);
    try {
        return run_config_of(json);
    } catch (const Json::exception& wrong) {
        throw_input_error("{}: not a run of this program ({})", path.string(), wrong.what());
    } catch (const InputError& wrong) {
        throw_input_error("{}: {}", path.string(), wrong.what());
    }
}

}  // namespace gallop
