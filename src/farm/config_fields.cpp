#include "farm/config_fields.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "core/scalar.hpp"

namespace gallop {
namespace {

using Kind = FieldType::Kind;
using Texts = std::vector<std::string>;

/// A row whose value is kept as it is; `member` gives the struct's place for it.
template <class Member>
ConfigField row(std::string path, FieldType type, std::string about, Member member) {
    using Held = std::decay_t<decltype(member(std::declval<RunRequest&>()))>;
    ConfigField made{{std::move(path), std::move(type), std::move(about)}, {}, {}};
    made.set = [member](RunRequest& request, const Value& value) {
        if constexpr (std::is_same_v<Held, int> || std::is_same_v<Held, std::uint64_t>)
            member(request) = static_cast<Held>(std::get<std::int64_t>(value));
        else
            member(request) = std::get<Held>(value);
    };
    made.get = [member](const RunRequest& request) -> Value {
        const Held& held = member(request);
        if constexpr (std::is_same_v<Held, int> || std::is_same_v<Held, std::uint64_t>)
            return static_cast<std::int64_t>(held);
        else
            return held;
    };
    return made;
}

/// A row of words that stand for something else.
ConfigField row(std::string path, FieldType type, std::string about,
                std::function<void(RunRequest&, const Value&)> set,
                std::function<Value(const RunRequest&)> get) {
    return {{std::move(path), std::move(type), std::move(about)}, std::move(set), std::move(get)};
}

FieldType words(Texts allowed) { return {Kind::choice, 0, 0, std::move(allowed)}; }

/// A choice whose words are an enumeration's values, in order.
template <class Member>
ConfigField enum_row(std::string path, const Texts& allowed, std::string about, Member member) {
    using Held = std::decay_t<decltype(member(std::declval<RunRequest&>()))>;
    return row(
        std::move(path), words(allowed), std::move(about),
        [=](RunRequest& request, const Value& value) {
            const auto at = std::find(allowed.begin(), allowed.end(), std::get<std::string>(value));
            member(request) = static_cast<Held>(at - allowed.begin());
        },
        [=](const RunRequest& request) -> Value {
            return allowed[static_cast<std::size_t>(member(request))];
        });
}

bool contains(const Value& list, std::string_view word) {
    const auto& words = std::get<Texts>(list);
    return std::find(words.begin(), words.end(), word) != words.end();
}

/// Two flags as a list of words.
template <class First, class Second>
ConfigField flags_row(std::string path, std::string first, std::string second, std::string about,
                      First first_of, Second second_of) {
    return row(
        std::move(path), FieldType{Kind::choices, 0, 0, {first, second}}, std::move(about),
        [=](RunRequest& request, const Value& value) {
            first_of(request) = contains(value, first);
            second_of(request) = contains(value, second);
        },
        [=](const RunRequest& request) -> Value {
            Texts set;
            if (first_of(request)) set.push_back(first);
            if (second_of(request)) set.push_back(second);
            return set;
        });
}

void add_model_and_outputs(std::vector<ConfigField>& rows) {
    const FieldType text{Kind::text};
    rows.push_back(row(
        "name", text, "The run's name", [](auto& r) -> auto& { return r.name; }));
    rows.push_back(row(
        "model.path", text, "The folder with the weights",
        [](auto& r) -> auto& { return r.model.path; }));
    rows.push_back(row(
        "model.variant", words({"base", "distill"}), "base: 32 guided steps; distill: 8 steps",
        [](auto& r) -> auto& { return r.model.variant; }));
    rows.push_back(row(
        "model.arch", text, "Architecture file, when not the model folder's own",
        [](auto& r) -> auto& { return r.model.arch; }));
    rows.push_back(enum_row(
        "model.precision", {"fp32", "bf16", "fp8"},
        "fp32 throughout, the published bf16 casts, or E4M3 products",
        [](auto& r) -> auto& { return r.model.precision; }));
    rows.push_back(row(
        "model.fp8.linears", FieldType{Kind::choices, 0, 0, fp8_linears()},
        "Which linears of a transformer's layers fp8 multiplies in E4M3",
        [](auto& r) -> auto& { return r.model.fp8.linears; }));
    rows.push_back(row(
        "model.fp8.layers", text,
        "In which layers: inner (all but the first and the last), all, or as 1-38 or 0,4-9",
        [](auto& r) -> auto& { return r.model.fp8.layers; }));
    rows.push_back(row(
        "model.fp8.qkv", text,
        "Layers of this linear alone, as in layers, or none; goes before linears and layers",
        [](auto& r) -> auto& { return r.model.fp8.qkv; }));
    rows.push_back(row(
        "model.fp8.proj", text, "As qkv, of the attention's output",
        [](auto& r) -> auto& { return r.model.fp8.proj; }));
    rows.push_back(row(
        "model.fp8.up", text, "As qkv, of the feed-forward layer's first linear",
        [](auto& r) -> auto& { return r.model.fp8.up; }));
    rows.push_back(row(
        "model.fp8.down", text, "As qkv, of the feed-forward layer's second linear",
        [](auto& r) -> auto& { return r.model.fp8.down; }));
    rows.push_back(row(
        "model.fp8.text_encoder", FieldType{Kind::flag},
        "Whether fp8 multiplies the text encoder's linears in E4M3, too",
        [](auto& r) -> auto& { return r.model.fp8.text_encoder; }));
    rows.push_back(row(
        "outputs.root", text, "The run directory; runs/NAME without it",
        [](auto& r) -> auto& { return r.outputs.root; }));
    rows.push_back(row(
        "outputs.video.codec", words({"h264"}), "Codec of the picture",
        [](auto& r) -> auto& { return r.outputs.codec; }));
    rows.push_back(row(
        "outputs.video.crf", {Kind::whole, 0, 51},
        "Quality of the picture, lower is better; 0 is lossless",
        [](auto& r) -> auto& { return r.outputs.crf; }));
    rows.push_back(row(
        "outputs.video.preset",
        words({"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
               "veryslow"}),
        "How long the encoder may take for the same quality in fewer bytes",
        [](auto& r) -> auto& { return r.outputs.preset; }));
    rows.push_back(row(
        "outputs.video.pix_fmt", words({"yuv420p", "yuv422p", "yuv444p"}),
        "Resolution of the colours", [](auto& r) -> auto& { return r.outputs.pix_fmt; }));
    rows.push_back(row(
        "outputs.audio.codec", words({"aac"}), "Codec of the sound",
        [](auto& r) -> auto& { return r.outputs.audio_codec; }));
    rows.push_back(row(
        "outputs.audio.bitrate", {Kind::bitrate, 32000, 512000}, "Bits a second of the sound",
        [](auto& r) -> auto& { return r.outputs.audio_bitrate; }));
    rows.push_back(flags_row(
        "outputs.latents.keep", "base", "final",
        "Which latents are written: of the base stage, and those decoded",
        [](auto& r) -> auto& { return r.outputs.keep_base; },
        [](auto& r) -> auto& { return r.outputs.keep_final; }));
    rows.push_back(row(
        "outputs.latents.dtype", words({"bf16", "f32"}), "How latents are stored",
        [](RunRequest& r, const Value& v) {
            r.outputs.latents = std::get<std::string>(v) == "bf16" ? DType::bf16 : DType::f32;
        },
        [](const RunRequest& r) -> Value { return std::string(name_of(r.outputs.latents)); }));
}

void add_seeds_and_resources(std::vector<ConfigField>& rows) {
    rows.push_back(row(
        "seeds.base", {Kind::whole, 0, 9007199254740991}, "Where seeds start from",
        [](auto& r) -> auto& { return r.seeds.base; }));
    rows.push_back(row(
        "seeds.samples", {Kind::whole, 1, 100000}, "Clips of each item",
        [](auto& r) -> auto& { return r.seeds.samples; }));
    rows.push_back(row(
        "seeds.vary_by", {Kind::choices, 0, 0, {"item", "cell", "sample"}},
        "What makes noise differ; what is not named shares it",
        [](RunRequest& r, const Value& v) {
            r.seeds.by_item = contains(v, "item");
            r.seeds.by_cell = contains(v, "cell");
            r.seeds.by_sample = contains(v, "sample");
        },
        [](const RunRequest& r) -> Value {
            Texts set;
            if (r.seeds.by_item) set.emplace_back("item");
            if (r.seeds.by_cell) set.emplace_back("cell");
            if (r.seeds.by_sample) set.emplace_back("sample");
            return set;
        }));
    rows.push_back(row(
        "resources.gpus_per_item", words({"auto", "1", "2", "4", "8"}),
        "GPUs that share an item; auto: one, unless it does not fit",
        [](RunRequest& r, const Value& v) {
            const auto& word = std::get<std::string>(v);
            r.resources.gpus_per_item = word == "auto" ? 0 : word[0] - '0';
        },
        [](const RunRequest& r) -> Value {
            const int gpus = r.resources.gpus_per_item;
            return gpus == 0 ? std::string("auto") : std::to_string(gpus);
        }));
    rows.push_back(enum_row(
        "schedule.order", {"longest_first", "manifest", "preview"},
        "preview renders the first, the last and the middle item first",
        [](auto& r) -> auto& { return r.schedule.order; }));
    rows.push_back(row(
        "schedule.chunk", {Kind::duration, 0.001, 86400},
        "Predicted work handed to a renderer at once",
        [](auto& r) -> auto& { return r.schedule.chunk_seconds; }));
    rows.push_back(row(
        "schedule.silent", {Kind::duration, 0.1, 3600},
        "A node that is not heard for so long is lost",
        [](auto& r) -> auto& { return r.schedule.silent_seconds; }));
}

void add_retry_and_limits(std::vector<ConfigField>& rows) {
    rows.push_back(row(
        "retry.attempts", {Kind::whole, 1, 100}, "Tries before an item is set aside",
        [](auto& r) -> auto& { return r.retry.attempts; }));
    rows.push_back(row(
        "retry.other_host", {Kind::flag}, "Try the next time on another node",
        [](auto& r) -> auto& { return r.retry.other_host; }));
    rows.push_back(row(
        "retry.on_oom", {Kind::choices, 0, 0, {"tiled_decode", "split", "quarantine"}},
        "What to try when memory ran out, in order",
        [](auto& r) -> auto& { return r.retry.on_oom; }));
    rows.push_back(row(
        "retry.stop_after_failed", {Kind::failures},
        "Ends the run when so many items, or such a share of all, have failed; 0: never",
        [](RunRequest& r, const Value& v) {
            const auto& text = std::get<std::string>(v);
            const bool share = text.ends_with('%');
            const double number = *parse_number(text.substr(0, text.size() - (share ? 1 : 0)));
            r.retry.stop_after_failed = share ? 0 : static_cast<int>(number);
            r.retry.stop_after_failed_share = share ? number / 100 : 0;
        },
        [](const RunRequest& r) -> Value {
            if (r.retry.stop_after_failed_share > 0)
                return fmt::format("{:g}%", r.retry.stop_after_failed_share * 100);
            return std::to_string(r.retry.stop_after_failed);
        }));
    rows.push_back(row(
        "limits.gpu_hours", {Kind::number, 0, 1e9}, "Most to spend; 0: no limit",
        [](auto& r) -> auto& { return r.limits.gpu_hours; }));
    rows.push_back(row(
        "limits.walltime_reserve", {Kind::duration, 0, 86400},
        "No new items when less than this is left of a job's time",
        [](auto& r) -> auto& { return r.limits.walltime_reserve_seconds; }));
    rows.push_back(row(
        "limits.disk_free.pause_below", {Kind::bytes, 0, 1e18},
        "No new items while less than this is free; 0: 1 % of the disk",
        [](auto& r) -> auto& { return r.limits.disk_pause_below; }));
    rows.push_back(row(
        "limits.disk_free.resume_above", {Kind::bytes, 0, 1e18},
        "Go on when more than this is free; 0: twice pause_below",
        [](auto& r) -> auto& { return r.limits.disk_resume_above; }));
}

void add_slurm(std::vector<ConfigField>& rows) {
    const FieldType text{Kind::text};
    rows.push_back(row(
        "slurm.nodes", {Kind::whole, 1, 100000}, "Nodes of the job",
        [](auto& r) -> auto& { return r.slurm.nodes; }));
    rows.push_back(row(
        "slurm.time", {Kind::time}, "Time limit; the plan's suggestion without it",
        [](auto& r) -> auto& { return r.slurm.time; }));
    rows.push_back(row(
        "slurm.partition", text, "Partition", [](auto& r) -> auto& { return r.slurm.partition; }));
    rows.push_back(row(
        "slurm.account", text, "Account", [](auto& r) -> auto& { return r.slurm.account; }));
    rows.push_back(row(
        "slurm.qos", text, "Quality of service", [](auto& r) -> auto& { return r.slurm.qos; }));
    rows.push_back(row(
        "slurm.constraint", text, "Features that a node must have",
        [](auto& r) -> auto& { return r.slurm.constraint; }));
    rows.push_back(row(
        "slurm.reservation", text, "Reservation",
        [](auto& r) -> auto& { return r.slurm.reservation; }));
    rows.push_back(row(
        "slurm.gpus_per_node", {Kind::whole, 0, 64}, "GPUs asked for of each node",
        [](auto& r) -> auto& { return r.slurm.gpus_per_node; }));
    rows.push_back(row(
        "slurm.cpus_per_task", {Kind::whole, 0, 4096}, "Cores asked for of each node",
        [](auto& r) -> auto& { return r.slurm.cpus_per_task; }));
    rows.push_back(row(
        "slurm.memory", text, "Memory of each node, as Slurm writes it: 200G",
        [](auto& r) -> auto& { return r.slurm.memory; }));
    rows.push_back(row(
        "slurm.requeue", {Kind::flag}, "Put the job back when it was cut off",
        [](auto& r) -> auto& { return r.slurm.requeue; }));
    rows.push_back(row(
        "slurm.options", {Kind::texts}, "Further #SBATCH options, as they are",
        [](auto& r) -> auto& { return r.slurm.options; }));
}

std::vector<ConfigField> config_table() {
    std::vector<ConfigField> rows;
    add_model_and_outputs(rows);
    add_seeds_and_resources(rows);
    add_retry_and_limits(rows);
    add_slurm(rows);
    return rows;
}

/// Names that may follow `prefix`.
std::vector<std::string> known_below(std::string_view prefix) {
    std::vector<std::string> names;
    for (const ConfigField& field : config_fields()) {
        if (!field.path.starts_with(prefix)) continue;
        const std::string rest = field.path.substr(prefix.size());
        const std::string name = rest.substr(0, rest.find('.'));
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    return names;
}

struct ConfigReader {
    const std::string& layer;
    const std::vector<std::string>& skip;
    RunRequest& request;
    Origins& origins;
    Problems& problems;

    void read(const Node& map, const std::string& prefix) {
        if (map.kind == Node::Kind::null) return;
        if (map.kind != Node::Kind::map) {
            problems.add(map.where,
                         prefix.empty()
                             ? fmt::format("{} (must be a map)", in_words(map))
                             : fmt::format("{} is {} (must be a map with {})",
                                           prefix.substr(0, prefix.size() - 1), in_words(map),
                                           fmt::join(known_below(prefix), ", ")));
            return;
        }
        for (const auto& [key, value] : map.entries) {
            if (prefix.empty() && std::find(skip.begin(), skip.end(), key.scalar) != skip.end())
                continue;
            entry(key, value, prefix + key.scalar, prefix);
        }
    }

    void entry(const Node& key, const Node& value, const std::string& path,
               const std::string& prefix) {
        for (const ConfigField& field : config_fields()) {
            if (field.path == path) {
                if (const auto read = read_value(field, value, problems)) {
                    field.set(request, *read);
                    origins.insert_or_assign(path, Origin{value.where, layer});
                }
                return;
            }
            if (field.path.starts_with(path + ".")) {
                origins.insert_or_assign(path, Origin{value.where, layer});
                return read(value, path + ".");
            }
        }
        std::vector<std::string> known = known_below(prefix);
        if (prefix.empty()) known.insert(known.end(), skip.begin(), skip.end());
        problems.add(key.where, unknown_key(key.scalar, known));
    }
};

}  // namespace

const std::vector<ConfigField>& config_fields() {
    static const std::vector<ConfigField> table = config_table();
    return table;
}

const std::vector<std::string>& config_blocks() {
    static const std::vector<std::string> blocks = known_below("");
    return blocks;
}

void read_config(const Node& map, const std::string& layer, const std::vector<std::string>& skip,
                 RunRequest& request, Origins& origins, Problems& problems) {
    ConfigReader{layer, skip, request, origins, problems}.read(map, "");
    if (map.kind == Node::Kind::map && map.find("seeds") != nullptr) request.seeds.given = true;
}

nlohmann::json config_json(const RunRequest& request) {
    nlohmann::json made = nlohmann::json::object();
    for (const ConfigField& field : config_fields()) {
        std::string pointer = "/" + field.path;
        std::replace(pointer.begin(), pointer.end(), '.', '/');
        made[nlohmann::json::json_pointer(pointer)] = to_json(field.get(request));
    }
    return made;
}

}  // namespace gallop
