#include "farm/run_json.hpp"

#include "core/check.hpp"
#include "core/files.hpp"
#include "farm/config_fields.hpp"
#include "farm/plan_index.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

constexpr int format_version = 2;  // 1 had no buckets, no texts and whole items in a line

/// The text that was parsed is in no file: its lines and columns say nothing.
void forget_places(Node& node) {
    node.where.line = node.where.column = 0;
    for (Node& item : node.items) forget_places(item);
    for (auto& [key, value] : node.entries) {
        forget_places(key);
        forget_places(value);
    }
}

/// The request, through the same table that reads manifests.
void read_request(const Json& json, RunRequest& request) {
    Node node = parse_json(json.dump(), "config");
    forget_places(node);
    Problems problems;
    Origins origins;
    read_config(node, "run.json", {}, request, origins, problems);
    problems.raise();
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
            {"manifest_digest", config.manifest_digest},
            {"config", config_json(config)},
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
    config.manifest = json.at("manifest");
    config.manifest_digest = json.value("manifest_digest", "");
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
    const std::string text = read_text(path);
    try {
        return run_config_of(Json::parse(text));
    } catch (const Json::parse_error& wrong) {
        throw_input_error(
            "{}: byte {} is where it stops being JSON: a damaged file; take the "
            "manifest again, into a new folder",
            path.string(), wrong.byte);
    } catch (const Json::exception& wrong) {
        throw_input_error("{}: not a run of this program ({})", path.string(), wrong.what());
    } catch (const InputError& wrong) {
        throw_input_error("{}: {}", path.string(), wrong.what());
    }
}

}  // namespace gallop
