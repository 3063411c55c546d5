#include "farm/manifest.hpp"

#include <algorithm>

#include <fmt/ranges.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/reader.hpp"
#include "core/scalar.hpp"
#include "core/utf8.hpp"
#include "farm/manifest_items.hpp"
#include "farm/parameters.hpp"
#include "farm/plan_index.hpp"
#include "media/digest.hpp"
#include "pipeline/work.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

/// Keys that are read here and not by the table of the run's fields.
const std::vector<std::string> own_keys = {"version", "use",   "params",   "defaults",
                                           "items",   "sweep", "overrides"};

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

/// A manifest while it is read.
class ManifestReader {
public:
    ManifestReader(const fs::path& path, const ManifestOptions& options, Problems& problems)
        : options_(options), problems_(problems) {
        made_.path = path;
        made_.folder = fs::absolute(path).parent_path();
    }

    Manifest read(std::string_view text) {
        Node root = parse_yaml(text, made_.path.string(), duplicate_);
        if (root.kind != Node::Kind::map) {
            problems_.add(root.where, fmt::format("{} (must be a map)", in_words(root)));
            return std::move(made_);
        }
        for (const char* key : {"version", "name"})
            if (root.find(key) == nullptr)
                problems_.add(root.where, fmt::format("\"{}\" is missing (it is required)", key));
        std::vector<Node> settings;
        for (const std::string& one : options_.set) settings.push_back(node_of_setting(one));
        std::vector<Node> presets = open_presets(root);
        fill_templates(root, presets, settings);
        for (const Node& preset : presets) read_layer_of(preset, "preset", Rank::preset);
        read_layer_of(root, "manifest", Rank::defaults);
        for (const Node& setting : settings) read_setting(setting);
        made_.sources = read_sources(root, made_.folder, problems_);
        check_name();
        check_seeds();
        finish_model();
        check_fp8();
        if (made_.outputs.root.empty()) made_.outputs.root = "runs/" + made_.name;
        return std::move(made_);
    }

private:
    void problem(std::string_view key, std::string text) {
        problems_.add(made_.place(key), std::move(text));
    }

    std::vector<Node> open_presets(const Node& root) {
        static const Field use{"use", {FieldType::Kind::texts}, ""};
        std::vector<Node> presets;
        const Node* names = root.find("use");
        if (names == nullptr || names->kind == Node::Kind::null) return presets;
        const auto read = read_value(use, *names, problems_);
        if (!read) return presets;
        for (const std::string& name : std::get<std::vector<std::string>>(*read)) {
            const fs::path path = find_preset(name, made_.folder);
            std::error_code failed;
            if (!fs::is_regular_file(path, failed)) {
                const std::string near = nearest(name, shipped_presets());
                problems_.add(
                    names->where,
                    fmt::format("use names \"{}\", but there is no such file beside the manifest "
                                "or in {}{}",
                                name, shipped_configs().string(),
                                near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
                continue;
            }
            try {
                presets.push_back(parse_yaml(read_text(path, 1U << 20), path.string(), duplicate_));
            } catch (const InputError& wrong) {
                problems_.add_parsed(wrong.what(), {path.string(), 0, 0});
            }
        }
        return presets;
    }

    void fill_templates(Node& root, std::vector<Node>& presets, std::vector<Node>& settings) {
        Parameters parameters;
        for (const Node& preset : presets)
            if (const Node* params = preset.find("params")) parameters.declare(*params, problems_);
        if (const Node* params = root.find("params")) parameters.declare(*params, problems_);
        parameters.assign(options_.params, problems_);
        // The name comes first: other templates may hold it.
        std::string name;
        const auto take_name = [&](Node& tree) {
            if (tree.kind != Node::Kind::map) return;
            for (auto& [key, value] : tree.entries) {
                if (key.scalar != "name" || value.kind != Node::Kind::scalar) continue;
                parameters.fill(value, problems_);
                name = value.scalar;
            }
        };
        for (Node& preset : presets) take_name(preset);
        take_name(root);
        for (Node& setting : settings) take_name(setting);
        parameters.set_name(name);
        const auto fill = [&](Node& tree) {
            if (tree.kind != Node::Kind::map) return;
            for (auto& [key, value] : tree.entries)
                if (key.scalar != "params") parameters.fill(value, problems_);
        };
        for (Node& preset : presets) fill(preset);
        fill(root);
        for (Node& setting : settings) fill(setting);
        made_.params = parameters.values();
    }

    /// Reads what presets and manifests have in common.
    void read_layer_of(const Node& map, const char* layer, Rank rank) {
        const bool preset = rank == Rank::preset;
        if (map.kind == Node::Kind::map && preset)
            for (const char* key : {"use", "items"})
                if (const Node* found = map.find(key))
                    problems_.add(
                        found->where,
                        fmt::format("{} stands in a preset (it belongs in a manifest)", key));
        read_config(map, layer, own_keys, made_, made_.origins, problems_);
        if (map.kind != Node::Kind::map) return;
        if (const Node* version = map.find("version")) {
            const auto number = as_whole(*version);
            if (!number || *number != 1)
                problems_.add(version->where, fmt::format("version is {} (this program reads "
                                                          "version 1)",
                                                          in_words(*version)));
        }
        if (const Node* defaults = map.find("defaults")) {
            if (defaults->kind == Node::Kind::map)
                if (const Node* name = defaults->find("name"))
                    problems_.add(name->where, "name belongs to an item, not to defaults");
            made_.defaults.push_back(read_layer(*defaults, rank, made_.folder, problems_));
        }
        if (const Node* sweep = map.find("sweep"))
            made_.sweep = Sweep(*sweep, made_.folder, problems_);
        if (const Node* overrides = map.find("overrides"))
            for (Override& one : read_overrides(*overrides, made_.folder, problems_))
                made_.overrides.push_back(std::move(one));
    }

    void read_setting(const Node& setting) {
        const auto& [key, value] = setting.entries.front();
        const auto& blocks = config_blocks();
        if (key.scalar == "use" || key.scalar == "items" || key.scalar == "params") {
            problems_.add(setting.where,
                          fmt::format("{} cannot be set from the command line", key.scalar));
        } else if (std::find(own_keys.begin(), own_keys.end(), key.scalar) != own_keys.end() ||
                   std::find(blocks.begin(), blocks.end(), key.scalar) != blocks.end()) {
            read_layer_of(setting, "--set", Rank::command_line);
        } else {
            const Layer layer =
                read_layer(setting, Rank::command_line, fs::current_path(), problems_);
            made_.settings.insert(made_.settings.end(), layer.begin(), layer.end());
        }
    }

    void check_name() {
        if (first_control(made_.name))
            problem("name", fmt::format("name is \"{}\" (names a folder: no control characters)",
                                        shortened(made_.name)));
        if (made_.name.find('/') != std::string::npos || made_.name.starts_with('.'))
            problem("name", fmt::format("name is \"{}\" (names a folder: no \"/\", no leading dot)",
                                        made_.name));
    }

    void check_seeds() {
        if (made_.seeds.samples > 1 && !made_.seeds.by_sample)
            problem("seeds", fmt::format("samples is {}, but vary_by does not name sample (all "
                                         "samples of an item would be the same clip)",
                                         made_.seeds.samples));
        const Limits& limits = made_.limits;
        if (limits.disk_resume_above > 0 && limits.disk_resume_above < limits.disk_pause_below)
            problem("limits.disk_free.resume_above",
                    fmt::format("resume_above is {} bytes (at least pause_below, {} bytes)",
                                limits.disk_resume_above, limits.disk_pause_below));
    }

    /// Makes the model's paths whole and looks for what they name.
    void finish_model() {
        ModelRequest& model = made_.model;
        std::error_code failed;
        if (model.path.empty()) {
            problem("model.path", "model.path is missing (the folder with the weights)");
        } else {
            const fs::path path = (made_.folder / model.path).lexically_normal();
            if (!fs::is_directory(path, failed))
                problem("model.path", fmt::format("model.path is \"{}\", but {} ({})", model.path,
                                                  absence(path, "folder"), path.string()));
            else if (!fs::is_directory(path / model.variant, failed))
                problem("model.path", fmt::format("model.path is \"{}\", but it has no folder {}",
                                                  model.path, model.variant));
            model.path = path.string();
        }
        if (model.arch.empty()) return;
        fs::path arch = (made_.folder / model.arch).lexically_normal();
        if (!fs::is_regular_file(arch, failed)) arch = shipped_configs() / model.arch;
        if (!fs::is_regular_file(arch, failed))
            problem("model.arch", fmt::format("model.arch is \"{}\", but there is no such file "
                                              "beside the manifest or in {}",
                                              model.arch, shipped_configs().string()));
        model.arch = arch.string();
    }

    /// The field of model.fp8 that a mistake is about; its text begins with it.
    static std::string fp8_field_of(std::string_view wrong) {
        for (const std::string& linear : fp8_linears())
            if (const std::string path = "model.fp8." + linear; wrong.starts_with(path + " "))
                return path;
        return "model.fp8.layers";
    }

    void check_fp8() {
        const ModelRequest& model = made_.model;
        if (model.precision == Precision::fp8) {
            try {
                // Against the networks themselves: do they have the layers?
                std::error_code failed;
                if (fs::is_directory(model.path, failed)) WorkModel{model.choice()};
            } catch (const InputError& wrong) {
                problem(fp8_field_of(wrong.what()), wrong.what());
            }
            return;
        }
        if (const std::string wrong = fp8_problem(model.fp8); !wrong.empty())
            problem(fp8_field_of(wrong), wrong);
        // Who tries another precision from the command line need not edit the file.
        const auto precision = made_.origins.find("model.precision");
        if (precision != made_.origins.end() && precision->second.layer == "--set") return;
        for (const auto& [path, origin] : made_.origins)
            if (path.starts_with("model.fp8."))
                problem(path, fmt::format("{} has no use with model.precision {} (only fp8 "
                                          "multiplies in E4M3)",
                                          path, name_of(model.precision)));
    }

    const ManifestOptions& options_;
    Problems& problems_;
    const NoteMistake duplicate_ = [this](const Where& where, const std::string& text) {
        problems_.add(where, text);
    };
    Manifest made_;
};

}  // namespace

Where Manifest::place(std::string_view key) const {
    const auto found = origins.find(key);
    return found != origins.end() ? found->second.where : Where{path.string(), 0, 0};
}

fs::path shipped_configs() { return GALLOP_CONFIGS; }

const std::vector<std::string>& manifest_keys() {
    static const std::vector<std::string> keys = [] {
        std::vector<std::string> all = own_keys;
        all.insert(all.end(), config_blocks().begin(), config_blocks().end());
        return all;
    }();
    return keys;
}

Manifest parse_manifest(std::string_view text, const fs::path& path, const ManifestOptions& options,
                        Problems& problems) {
    Manifest made = ManifestReader(path, options, problems).read(text);
    made.digest =
        digest_text(fmt::format("{}\n--set {}\n--param {}", text, fmt::join(options.set, " "),
                                fmt::join(options.params, " ")));
    return made;
}

Manifest parse_manifest(std::string_view text, const fs::path& path,
                        const ManifestOptions& options) {
    Problems problems;
    Manifest made = parse_manifest(text, path, options, problems);
    problems.raise();
    return made;
}

Manifest read_manifest(const fs::path& path, const ManifestOptions& options) {
    return parse_manifest(read_text(path), path, options);
}

}  // namespace gallop
