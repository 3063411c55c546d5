#include <cstdlib>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/planning.hpp"
#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/expand.hpp"
#include "farm/explain.hpp"
#include "farm/inputs.hpp"
#include "farm/plan.hpp"
#include "farm/plan_report.hpp"
#include "farm/probe.hpp"
#include "farm/prompt_notes.hpp"
#include "farm/run_lock.hpp"
#include "farm/schema.hpp"
#include "farm/terminal.hpp"
#include "media/image.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* check_help =
    R"(gallop check MANIFEST [--set NAME=VALUE]... [--param NAME=VALUE]... [--json]

Reads a manifest with its presets, rows and inputs (pictures and sounds are decoded), and lists every mistake
as file:line:column. Looks whether the model has every network that the items need, by the headers of its
files; reads no weights and renders nothing.

  --set NAME=VALUE     sets a value over the manifest's, e.g. --set steps.base=4 (every item) or
                       --set outputs.video.crf=20 (the run)
  --param NAME=VALUE   a value for one of the manifest's params
  --json               prints {"ok", "clips", "mistakes", "notes"}

Exit code: 0 no mistake, 2 some.
)";

constexpr const char* plan_help = R"(gallop plan MANIFEST [options]
gallop plan --calibrate-from RUN [--calibration FILE]

Counts what a manifest asks for (items, duplicates, cells) and predicts seconds by stage, memory, bytes,
files, when it will be finished, and a time limit for Slurm. Needs no GPU and, without --probe, no rendering.

  --out DIR            freezes the plan in a run directory: run.json and items.lock.jsonl
  --extend             with --out of a frozen plan: adds the items that are new in the manifest
  --workers N          renderers that will work (default: slurm.nodes × slurm.gpus_per_node, or 1)
  --device NAME        whose rates to predict with: h100 (default), cpu
  --calibration FILE   rates from a file in place of --device
  --probe N            renders N items first, as the most expensive shapes come, and predicts with what
                       they took on this machine; the rates are kept for later plans
  --backend cpu|cuda   where --probe renders (default: cpu); --threads N: on so many CPU threads
  --calibrate-from RUN takes rates from the clips that a run has rendered, and keeps them for later plans:
                       in --calibration FILE, or else in this user's cache
  --set NAME=VALUE     over the manifest's value
  --param NAME=VALUE   a value for one of the manifest's params
  --json               prints one JSON object

Rates that were never measured on the device are said to be so.
)";

constexpr const char* explain_help =
    R"(gallop explain MANIFEST NAME|ID [--run DIR] [--set NAME=VALUE]... [--param NAME=VALUE]... [--json]

Shows every value of an item and of the run, and who set it: a preset, the defaults, a sweep cell, the item
or its row, an override, or --set; with file:line:column. NAME is a clip's name, or an item's. An ID, as
clips' files have it, is looked up in the plan of the run directory (default: the manifest's
outputs.root).

  --json               prints {"name", "values": [{"field", "value", "layer", "where"}]}

Exit code: 0, or 2 when the manifest is wrong or has no such item.
)";

constexpr const char* schema_help = R"(gallop schema

Prints the JSON Schema of manifests, for editors that complete and check YAML. The same is shipped as
configs/manifest.schema.json; with the YAML language server, put this on a manifest's first line:

  # yaml-language-server: $schema=PATH/configs/manifest.schema.json
)";

void print_json(const Json& json) {
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

/// Nothing where the model folder itself is wrong.
std::optional<NetworkCheck> open_networks(const Manifest& manifest, Problems& problems) {
    std::error_code failed;
    if (!fs::is_directory(manifest.model.path, failed)) return {};  // a mistake that is known
    try {
        return std::optional<NetworkCheck>(std::in_place, manifest.model.choice());
    } catch (const InputError& wrong) {
        problems.add(manifest.place("model.path"), wrong.what());
    } catch (const AccessError& refused) {
        problems.add(manifest.place("model.path"), refused.what());
    }
    return {};
}

int check(const Arguments& arguments) {
    po::options_description options;
    add_manifest_options(options);
    options.add_options()("json", "");
    const Values values = parse("check", arguments, options, {"MANIFEST"});
    const fs::path path = text_of(values, "MANIFEST");
    const bool json = values.contains("json");
    Problems problems;
    std::uint64_t clips = 0;
    Json result = {{"ok", true}, {"mistakes", Json::array()}, {"notes", Json::array()}};
    try {
        Manifest manifest =
            parse_manifest(read_text(path), path, manifest_options(values), problems);
        std::optional<NetworkCheck> networks = open_networks(manifest, problems);
        SoundLengths sounds;
        PromptNotes prompts(manifest.model);
        std::set<std::string> pictures;
        expand(manifest, problems, manifest.notes, [&](const Expansion& one) {
            prompts.check(one, problems, manifest.notes);
            ResolvedItem resolved = one.resolved;
            const std::string& image = resolved.item.image;
            std::error_code failed;
            if (fs::is_regular_file(image, failed) && pictures.insert(image).second) {
                try {
                    load_image(image);
                } catch (const InputError& wrong) {
                    problems.add(resolved.where, wrong.what());
                }
            }
            if (networks) look_at_networks(*networks, manifest, resolved.item, problems);
            if (resolved.item.audio.empty() ||
                sounds.measure(resolved, one.name, problems, manifest.notes))
                clips += static_cast<std::uint64_t>(manifest.seeds.samples);
        });
        problems.raise();
        result["clips"] = clips;
        for (const Remark& note : manifest.notes.all())
            result["notes"].push_back(fmt::format("{}: {}", to_string(note.where), note.text));
        if (!json) {
            print_notes(manifest.notes);
            fmt::print("{}: no mistakes, {} clip{}\n", path.string(), clips, clips == 1 ? "" : "s");
        }
    } catch (const InputError& wrong) {
        if (!json) throw;
        result["ok"] = false;
        std::istringstream lines(wrong.what());
        Json& mistakes = result["mistakes"];
        for (std::string line; std::getline(lines, line);)
            if (line.starts_with("  ") && !mistakes.empty())  // goes on with the one before
                mistakes.back().get_ref<std::string&>() += "\n" + line;
            else
                mistakes.push_back(line);
    }
    if (json) print_json(result);
    return result["ok"] ? done : wrong_request;
}

/// Where measured rates are kept: what --calibration says, or this user's cache.
fs::path keep_calibration(const Values& values, const Calibration& made) {
    const fs::path file = values.contains("calibration")
                              ? fs::path(text_of(values, "calibration"))
                              : user_cache() / ("calibration-" + made.device + ".json");
    write_calibration(file, made);
    return file;
}

/// Rates from what a run has rendered.
int calibrate(const Values& values) {
    const fs::path run = text_of(values, "calibrate-from");
    const RunConfig config = read_run_config(run);
    const std::vector<Measured> clips = measured_clips(run);
    if (clips.empty()) throw_input_error("{}: no clip was rendered there yet", run.string());
    const std::string precision = name_of(config.model.precision);
    const Calibration made =
        calibrated(find_calibration(config.device, precision, user_cache()), clips);
    const fs::path file = keep_calibration(values, made);
    if (values.contains("json"))
        print_json(
            {{"calibration", file.string()}, {"device", made.device}, {"clips", clips.size()}});
    else
        fmt::print("{}: rates of {} by {} clips\n", file.string(), made.device, clips.size());
    return done;
}

/// Rates from a few of the manifest's own items, rendered now.
Calibration probe(const Values& values, const Manifest& manifest, PlanOptions how) {
    const auto asked = values["probe"].as<std::int64_t>();
    if (asked < 1 || asked > 10'000) throw_input_error("--probe is {} (1 to 10000)", asked);
    const auto count = static_cast<std::size_t>(asked);
    const std::unique_ptr<Backend> backend = make_backend(values);
    how.calibration = find_calibration(backend->device() == Device::cpu ? "cpu" : "h100",
                                       name_of(manifest.model.precision), user_cache());
    const Calibration made = probe_rates(manifest, how, *backend, count);
    log_info("keeps the rates of {} path={}", made.device, keep_calibration(values, made).string());
    return made;
}

int plan(const Arguments& arguments) {
    po::options_description options;
    add_manifest_options(options);
    options.add_options()("out", po::value<std::string>())("extend", "")(
        "workers", po::value<std::size_t>())("device",
                                             po::value<std::string>()->default_value("h100"))(
        "calibration", po::value<std::string>())("calibrate-from", po::value<std::string>())(
        "probe", po::value<std::int64_t>())("json", "");
    add_backend_options(options);
    const Values values = parse("plan", arguments, options, {"MANIFEST"}, 1);
    if (values.contains("calibrate-from")) return calibrate(values);
    if (!values.contains("MANIFEST"))
        throw_input_error("gallop plan: MANIFEST is missing; gallop plan --help shows how");
    if (values.contains("extend") && !values.contains("out"))
        throw_input_error("gallop plan: --extend needs --out, the run directory to extend");
    const Manifest manifest = read_manifest(text_of(values, "MANIFEST"), manifest_options(values));
    const std::string precision = name_of(manifest.model.precision);
    NetworkCheck networks(manifest.model.choice());
    PlanOptions how;
    how.networks = &networks;
    how.digest_cache = user_cache();
    how.extend = values.contains("extend");
    if (values.contains("probe"))
        how.calibration = probe(values, manifest, how);
    else if (values.contains("calibration"))
        how.calibration = read_calibration(text_of(values, "calibration"), precision);
    else
        how.calibration = find_calibration(text_of(values, "device"), precision, user_cache());
    std::optional<RunLock> lock;
    if (values.contains("out")) {
        how.directory = text_of(values, "out");
        lock.emplace(how.directory);
    }
    PlanResult made = make_plan(manifest, how);
    print_notes(made.notes);
    const SlurmRequest& slurm = manifest.slurm;
    const std::size_t workers =
        values.contains("workers")
            ? values["workers"].as<std::size_t>()
            : static_cast<std::size_t>(slurm.nodes * std::max(slurm.gpus_per_node, 1));
    if (workers < 1 || workers > 1'000'000)
        throw_input_error("--workers is {} (1 to 1000000)", workers);
    const Json report = plan_report(made, how.calibration, workers);
    if (values.contains("json"))
        print_json(report);
    else
        fmt::print("{}", plan_text(report));
    return done;
}

constexpr std::size_t longest_value = 1000;  ///< of a line; --json has it whole

bool is_id(const std::string& text) {
    return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

/// The name of the item that a frozen plan gave this id.
std::optional<std::string> name_of_id(const fs::path& run, const std::string& id) {
    const RunConfig config = read_run_config(run);
    for (const PlanRow& row : read_plan_index(run, config).rows)
        if (id_text(row.id) == id)
            return read_planned_item(run, config, row.offset, row.bytes).item.name;
    return {};
}

int explain_item(const Arguments& arguments) {
    po::options_description options;
    add_manifest_options(options);
    options.add_options()("run", po::value<std::string>())("json", "");
    const Values values = parse("explain", arguments, options, {"MANIFEST", "NAME"});
    const Manifest manifest = read_manifest(text_of(values, "MANIFEST"), manifest_options(values));
    std::string name = text_of(values, "NAME");
    std::vector<Explained> rows = explain(manifest, name);
    const fs::path run = values.contains("run") ? text_of(values, "run") : manifest.outputs.root;
    if (rows.empty() && is_id(name) && fs::exists(run / "run.json"))
        if (const std::optional<std::string> planned = name_of_id(run, name))
            rows = explain(manifest, name = *planned);
    if (rows.empty())
        throw_input_error(
            "{}: no item or clip has the name \"{}\", and none in the plan of {} has this id "
            "(--run names another run directory)",
            text_of(values, "MANIFEST"), name, run.string());
    if (values.contains("json")) {
        Json all = Json::array();
        for (const Explained& row : rows)
            all.push_back({{"field", row.field},
                           {"value", row.value},
                           {"layer", row.layer},
                           {"where", to_string(row.where)}});
        print_json({{"name", name}, {"values", all}});
        return done;
    }
    std::size_t widest = 0;
    for (const Explained& row : rows) widest = std::max(widest, row.field.size());
    for (const Explained& row : rows) {
        std::string value = fit(row.value.substr(0, row.value.find('\n')), longest_value);
        if (row.value.find('\n') != std::string::npos) value += " …";
        fmt::print("{:<{}}  {}  [{}{}{}]\n", row.field, widest, value.empty() ? "\"\"" : value,
                   row.layer, row.where.file.empty() ? "" : " ", to_string(row.where));
    }
    return done;
}

int schema(const Arguments& arguments) {
    parse("schema", arguments, po::options_description(), {});
    fmt::print("{}\n", manifest_schema().dump(1));
    return done;
}

}  // namespace

void add_manifest_options(po::options_description& options) {
    options.add_options()("set", po::value<std::vector<std::string>>()->composing())(
        "param", po::value<std::vector<std::string>>()->composing());
}

ManifestOptions manifest_options(const Values& values) {
    return {texts_of(values, "set"), texts_of(values, "param")};
}

fs::path user_cache() {
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
        return fs::path(cache) / "gallop";
    if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
        return fs::path(home) / ".cache" / "gallop";
    return {};
}

bool is_planned(const fs::path& given) {
    if (fs::exists(given / "run.json")) return true;
    if (fs::is_directory(given))
        throw_input_error(
            "{0}: a folder without a plan (there is no run.json in it); gallop plan MANIFEST --out "
            "{0} makes one",
            given.string());
    return false;
}

void print_notes(const Problems& notes) {
    for (const Remark& note : notes.all()) log_warning("{}: {}", to_string(note.where), note.text);
}

const Command check_command = {"check", check_help, check};
const Command plan_command = {"plan", plan_help, plan};
const Command explain_command = {"explain", explain_help, explain_item};
const Command schema_command = {"schema", schema_help, schema};

}  // namespace gallop::cli
