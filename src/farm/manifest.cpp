#include "farm/manifest.hpp"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/random.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_items = 100'000;
const std::vector<std::string> top_keys = {"version",  "name",  "use",   "model",
                                           "defaults", "items", "seeds", "outputs"};
// Names of the manifest language that this version does not carry out; refused rather than unknown.
const std::vector<std::string> later_keys = {"params",   "sweep", "overrides", "resources",
                                             "schedule", "retry", "limits",    "slurm"};
const std::vector<std::string> later_item_keys = {"from", "fields", "limit"};

struct Seeds {
    std::uint64_t base = 42;
    int samples = 1;
    bool by_item = true;
    bool by_sample = true;
    bool given = false;
    Where where;
};

/// A manifest while its layers are read.
struct Draft {
    Manifest manifest;
    ItemFields defaults;
    Seeds seeds;
    std::map<std::string, Where, std::less<>> set_at;  ///< "model.path" and the like
    std::vector<std::string> lines;                    ///< problems found by readers
    std::vector<Remark> problems;

    void take(Reader& in) {
        for (std::string& line : in.problems()) lines.push_back(std::move(line));
    }
};

void refuse_later(Reader& in, const std::vector<std::string>& keys) {
    for (const std::string& key : keys)
        if (in.has(key)) in.problem(key, fmt::format("{} is not supported by this version", key));
}

void read_model(Reader in, Draft& draft) {
    ModelRequest& model = draft.manifest.model;
    for (const char* key : {"path", "variant", "arch"})
        if (in.has(key)) draft.set_at[fmt::format("model.{}", key)] = in.where(key);
    model.path = in.get("path", model.path);
    model.variant = in.choice("variant", model.variant, {"base", "distill"});
    model.arch = in.get("arch", model.arch);
    static const std::vector<std::string> precisions = {"fp32", "bf16", "fp8"};
    const auto index = static_cast<std::size_t>(model.precision);
    const std::string precision = in.choice("precision", precisions[index], precisions);
    model.precision = static_cast<Precision>(
        std::find(precisions.begin(), precisions.end(), precision) - precisions.begin());
}

void read_seeds(Reader in, Where where, Seeds& seeds) {
    seeds.given = true;
    seeds.where = std::move(where);
    constexpr std::int64_t largest = (std::int64_t{1} << 53) - 1;
    seeds.base = static_cast<std::uint64_t>(
        in.get("base", static_cast<std::int64_t>(seeds.base), Range{std::int64_t{0}, largest}));
    seeds.samples = in.get("samples", seeds.samples, Range{1, 100000});
    const Node* vary = in.node("vary_by");
    if (vary == nullptr) return;
    const auto words = vary->kind == Node::Kind::sequence
                           ? in.get_list("vary_by", std::vector<std::string>{})
                           : std::vector{in.get("vary_by", std::string())};
    seeds.by_item = seeds.by_sample = false;
    for (const std::string& word : words) {
        if (word == "item")
            seeds.by_item = true;
        else if (word == "sample")
            seeds.by_sample = true;
        else
            in.problem("vary_by", fmt::format("vary_by names \"{}\" (item, sample)", word));
    }
}

int read_bitrate(Reader& in, int fallback) {
    if (!in.has("bitrate")) return fallback;
    const std::string text = in.get("bitrate", std::string("192k"));
    int value = 0;
    const auto [stop, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    const std::string_view rest(stop, static_cast<std::size_t>(text.data() + text.size() - stop));
    const int bits = rest == "k" && value <= 512 ? value * 1000 : rest.empty() ? value : 0;
    if (failed != std::errc() || bits < 32000 || bits > 512000) {
        in.problem("bitrate",
                   fmt::format("bitrate is \"{}\" (bits a second, from 32k to 512k)", text));
        return fallback;
    }
    return bits;
}

void read_outputs(Reader in, Draft& draft) {
    OutputRequest& out = draft.manifest.outputs;
    if (in.has("root")) draft.set_at["outputs.root"] = in.where("root");
    out.root = in.get("root", out.root);
    if (in.has("video")) {
        Reader video = in.child("video");
        out.codec = video.choice("codec", out.codec, {"h264"});
        out.crf = video.get("crf", out.crf, Range{0, 51});
        out.preset = video.choice("preset", out.preset,
                                  {"ultrafast", "superfast", "veryfast", "faster", "fast", "medium",
                                   "slow", "slower", "veryslow"});
        out.pix_fmt = video.choice("pix_fmt", out.pix_fmt, {"yuv420p", "yuv422p", "yuv444p"});
    }
    if (in.has("audio")) {
        Reader audio = in.child("audio");
        out.audio_codec = audio.choice("codec", out.audio_codec, {"aac"});
        out.audio_bitrate = read_bitrate(audio, out.audio_bitrate);
    }
    if (in.has("latents")) {
        Reader latents = in.child("latents");
        if (latents.has("keep")) {
            out.keep_base = out.keep_final = false;
            for (const std::string& word : latents.get_list("keep", std::vector<std::string>{})) {
                if (word == "base")
                    out.keep_base = true;
                else if (word == "final")
                    out.keep_final = true;
                else
                    latents.problem("keep", fmt::format("keep names \"{}\" (base, final)", word));
            }
        }
        const std::string dtype =
            latents.choice("dtype", std::string(name_of(out.latents)), {"bf16", "f32"});
        out.latents = dtype == "bf16" ? DType::bf16 : DType::f32;
    }
}

/// Reads what every layer may hold: presets, the manifest, `--set`.
void read_layer(Reader& in, const fs::path& folder, Draft& draft) {
    const int version = in.get("version", 1, Range{1, 1000000});
    if (version != 1)
        in.problem("version", fmt::format("version is {} (this program reads version 1)", version));
    refuse_later(in, later_keys);
    draft.manifest.name = in.get("name", draft.manifest.name);
    if (in.has("name")) draft.set_at["name"] = in.where("name");
    if (in.has("model")) read_model(in.child("model"), draft);
    if (in.has("defaults")) {
        Reader defaults = in.child("defaults");
        if (defaults.has("name"))
            defaults.problem("name", "name belongs to an item, not to defaults");
        read_fields(defaults, folder, draft.defaults);
    }
    if (in.has("seeds")) read_seeds(in.child("seeds"), in.where("seeds"), draft.seeds);
    if (in.has("outputs")) read_outputs(in.child("outputs"), draft);
}

fs::path find_preset(const std::string& name, const fs::path& folder) {
    std::error_code failed;
    if (fs::path beside = folder / name; fs::is_regular_file(beside, failed)) return beside;
    return shipped_configs() / name;
}

std::vector<std::string> shipped_presets() {
    std::vector<std::string> names;
    std::error_code failed;
    for (const auto& entry : fs::directory_iterator(shipped_configs() / "presets", failed))
        names.push_back("presets/" + entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

void read_presets(Reader& in, const fs::path& folder, Draft& draft) {
    for (const std::string& name : in.get_list("use", std::vector<std::string>{})) {
        const fs::path path = find_preset(name, folder);
        std::error_code failed;
        if (!fs::is_regular_file(path, failed)) {
            const std::string near = nearest(name, shipped_presets());
            in.problem(
                "use",
                fmt::format(
                    "use names \"{}\", but there is no such file beside the manifest or in {}{}",
                    name, shipped_configs().string(),
                    near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
            continue;
        }
        try {
            const Node node = parse_yaml(read_text(path, 1U << 20), path.string());
            Reader preset(node);
            for (const char* key : {"use", "items"})
                if (preset.has(key))
                    preset.problem(
                        key, fmt::format("{} stands in a preset (it belongs in a manifest)", key));
            read_layer(preset, folder, draft);
            draft.take(preset);
        } catch (const InputError& wrong) {
            draft.lines.emplace_back(wrong.what());
        }
    }
}

/// The tree that `a.b=c` stands for, every node placed at the option itself.
Node node_of_setting(const std::string& setting) {
    const std::size_t equals = setting.find('=');
    const Where where{"--set " + setting, 0, 0};
    if (equals == std::string::npos || equals == 0)
        throw_input_error("--set {}: must be NAME=VALUE, e.g. steps.base=4", setting);
    Node node = parse_yaml(std::string_view(setting).substr(equals + 1), where.file);
    node.where = where;
    std::string_view keys = std::string_view(setting).substr(0, equals);
    for (;;) {
        const std::size_t dot = keys.rfind('.');
        Node key;
        key.kind = Node::Kind::scalar;
        key.scalar = keys.substr(dot == std::string_view::npos ? 0 : dot + 1);
        key.where = where;
        Node map;
        map.kind = Node::Kind::map;
        map.where = where;
        map.entries.push_back({std::move(key), std::move(node)});
        node = std::move(map);
        if (dot == std::string_view::npos) return node;
        keys = keys.substr(0, dot);
    }
}

/// The `--set` options, apart by whom they concern.
struct Settings {
    std::vector<Node> whole;
    std::vector<Node> items;
};

Settings read_settings(const std::vector<std::string>& set) {
    Settings settings;
    for (const std::string& text : set) {
        Node node = node_of_setting(text);
        const std::string& first = node.entries.front().first.scalar;
        const bool top = std::find(top_keys.begin(), top_keys.end(), first) != top_keys.end() ||
                         std::find(later_keys.begin(), later_keys.end(), first) != later_keys.end();
        (top ? settings.whole : settings.items).push_back(std::move(node));
    }
    return settings;
}

Where place(const Draft& draft, std::string_view key) {
    const auto found = draft.set_at.find(key);
    return found != draft.set_at.end() ? found->second : Where{draft.manifest.path.string(), 0, 0};
}

void refuse_template(Draft& draft, const char* key, const std::string& text) {
    if (text.find("{{") != std::string::npos)
        draft.problems.push_back(
            {place(draft, key),
             fmt::format("{} is \"{}\", but templates are not supported by this version", key,
                         text)});
}

/// Makes the model's paths whole and looks for what they name.
void finish_model(Draft& draft, const fs::path& folder) {
    ModelRequest& model = draft.manifest.model;
    refuse_template(draft, "model.path", model.path);
    refuse_template(draft, "model.arch", model.arch);
    const auto problem = [&](const char* key, std::string text) {
        draft.problems.push_back({place(draft, key), std::move(text)});
    };
    std::error_code failed;
    if (model.path.empty()) {
        problem("model.path", "model.path is missing (the folder with the weights)");
    } else {
        const fs::path path = (folder / model.path).lexically_normal();
        if (!fs::is_directory(path, failed)) {
            problem("model.path",
                    fmt::format("model.path is \"{}\", but there is no such folder ({})",
                                model.path, path.string()));
        } else {
            std::set<std::string> networks = {model.variant};
            for (const ResolvedItem& resolved : draft.manifest.items)
                if (!resolved.item.sr.empty()) networks.insert(resolved.item.sr);
            for (const std::string& network : networks)
                if (!fs::is_directory(path / network, failed))
                    problem("model.path",
                            fmt::format("model.path is \"{}\", but it has no folder {}", model.path,
                                        network));
        }
        model.path = path.string();
    }
    if (!model.arch.empty()) {
        fs::path arch = (folder / model.arch).lexically_normal();
        if (!fs::is_regular_file(arch, failed)) arch = shipped_configs() / model.arch;
        if (!fs::is_regular_file(arch, failed))
            problem(
                "model.arch",
                fmt::format(
                    "model.arch is \"{}\", but there is no such file beside the manifest or in {}",
                    model.arch, shipped_configs().string()));
        model.arch = arch.string();
    }
}

/// What clips should not look and sound like, where a manifest does not say it.
std::string shipped_negative_prompt() {
    std::string text = read_text(shipped_configs() / "negative_prompt.txt", 1U << 16);
    while (text.ends_with('\n')) text.pop_back();
    return text;
}

/// Reads the items, each over the defaults and under `--set`.
void read_items(Reader& in, const fs::path& folder, const Settings& settings, Draft& draft) {
    const Node* list = in.node("items");
    if (list == nullptr || list->kind != Node::Kind::sequence || list->items.empty()) {
        if (list != nullptr && list->kind != Node::Kind::sequence && list->kind != Node::Kind::null)
            in.problem("items", "items must be a list");
        else
            in.problem("items", "items is empty (at least one item is needed)");
        return;
    }
    const Seeds& seeds = draft.seeds;
    std::vector<Reader> readers = in.children("items");
    if (readers.size() * static_cast<std::size_t>(seeds.samples) > most_items) {
        draft.problems.push_back(
            {seeds.where, fmt::format("{} items with {} samples (at most {} clips a run)",
                                      readers.size(), seeds.samples, most_items)});
        for (Reader& reader : readers) reader.ignore_unknown();
        return;
    }
    std::map<std::string, Where> names;
    bool first = true;
    for (std::size_t i = 0; i < readers.size(); ++i) {
        Reader& reader = readers[i];
        ItemFields fields = draft.defaults;
        refuse_later(reader, later_item_keys);
        read_fields(reader, folder, fields);
        for (const Node& node : settings.items) {
            Reader setting(node);
            read_fields(setting, fs::current_path(), fields);
            if (first) draft.take(setting);
        }
        first = false;
        const Where where = reader.where("");
        if (fields.name.empty()) fields.name = fmt::format("item-{:04}", i + 1);
        const Where named = fields.set_at.contains("name") ? fields.set_at.at("name").where : where;
        if (const auto [other, fresh] = names.emplace(fields.name, named); !fresh)
            draft.problems.push_back(
                {named, fmt::format("name is \"{}\", as at {} (names must differ)", fields.name,
                                    to_string(other->second))});
        ResolvedItem resolved = resolve_fields(fields, draft.manifest.model.variant, folder, where,
                                               draft.problems, draft.manifest.notes);
        Item& item = resolved.item;
        const bool guided = item.base.passes == 2 || (!item.sr.empty() && item.super.passes == 2);
        if (!guided)
            item.negative_prompt.clear();  // nothing reads it: it must not change the id
        else if (item.negative_prompt.empty())
            item.negative_prompt = shipped_negative_prompt();
        const std::uint64_t base = fields.seed.value_or(seeds.base);
        for (int sample = 0; sample < seeds.samples; ++sample) {
            ResolvedItem& made = draft.manifest.items.emplace_back(resolved);
            if (seeds.samples > 1) made.item.name += fmt::format("-s{}", sample);
            const bool by_item = seeds.given && seeds.by_item && !fields.seed;
            made.item.seed =
                derive_seed(base, by_item ? fields.name : "", seeds.by_sample ? sample : 0);
        }
    }
}

[[noreturn]] void fail(const std::vector<std::string>& lines) {
    // A mistake in a layer that many items share is said once.
    std::vector<std::string_view> distinct;
    std::set<std::string_view> seen;
    for (const std::string& line : lines)
        if (seen.insert(line).second) distinct.push_back(line);
    throw InputError(fmt::format("{}", fmt::join(distinct, "\n")));
}

}  // namespace

fs::path shipped_configs() { return GALLOP_CONFIGS; }

std::uint64_t derive_seed(std::uint64_t base, std::string_view name, int sample) {
    if (name.empty() && sample == 0) return base;
    const std::uint64_t hash = name.empty() ? 0 : fnv1a_64(name);
    const auto words =
        philox4x32_10({static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32),
                       static_cast<std::uint32_t>(sample), 0x5eed},
                      {static_cast<std::uint32_t>(base), static_cast<std::uint32_t>(base >> 32)});
    return (static_cast<std::uint64_t>(words[1] & 0x1fffffU) << 32) | words[0];
}

Manifest parse_manifest(std::string_view text, const fs::path& path,
                        const std::vector<std::string>& set) {
    Draft draft;
    draft.manifest.path = path;
    const fs::path folder = fs::absolute(path).parent_path();
    const Settings settings = read_settings(set);
    const Node root = parse_yaml(text, path.string());
    Reader in(root);
    in.require("version");
    in.require("name");
    read_presets(in, folder, draft);
    read_layer(in, folder, draft);
    for (const Node& node : settings.whole) {
        Reader setting(node);
        for (const char* key : {"use", "items"})
            if (setting.has(key))
                setting.problem(key, fmt::format("{} cannot be set from the command line", key));
        read_layer(setting, fs::current_path(), draft);
        draft.take(setting);
    }
    if (draft.manifest.name.find('/') != std::string::npos || draft.manifest.name.starts_with('.'))
        draft.problems.push_back(
            {place(draft, "name"),
             fmt::format("name is \"{}\" (names a folder: no \"/\", no leading dot)",
                         draft.manifest.name)});
    if (draft.seeds.samples > 1 && !draft.seeds.by_sample)
        draft.problems.push_back(
            {draft.seeds.where, fmt::format("samples is {}, but vary_by does not name sample (all "
                                            "samples of an item would be the same clip)",
                                            draft.seeds.samples)});
    read_items(in, folder, settings, draft);
    finish_model(draft, folder);
    OutputRequest& outputs = draft.manifest.outputs;
    refuse_template(draft, "outputs.root", outputs.root);
    if (outputs.root.empty()) outputs.root = "runs/" + draft.manifest.name;
    for (Remark& remark : draft.problems) in.problem(remark.where, std::move(remark.text));
    draft.take(in);
    if (!draft.lines.empty()) fail(draft.lines);
    return std::move(draft.manifest);
}

Manifest read_manifest(const fs::path& path, const std::vector<std::string>& set) {
    return parse_manifest(read_text(path), path, set);
}

}  // namespace gallop
