#include <cstdlib>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/planning.hpp"
#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/attach.hpp"
#include "farm/history.hpp"
#include "farm/link.hpp"
#include "farm/plan.hpp"
#include "farm/run_directory.hpp"
#include "farm/serve.hpp"
#include "farm/survey.hpp"
#include "media/store.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* run_help = R"(gallop run MANIFEST [--out DIR] [options]
gallop run RUNDIR [options]
gallop run --attach RUNDIR [options]

Renders every item of a manifest: clips/ab/cd/ID.mp4 and latents/ab/cd/ID.h5 in the run directory, with
index.jsonl, status.json and the journal. The same command again goes on where an earlier one ended:
what is done is skipped, what failed is tried again unless it was given up (gallop retry). Ctrl-C or
SIGTERM ends it soon; nothing half-written is left.

One process renders alone. Started as several ranks of one program (gallop launch, mpirun, srun
--mpi=pmix), one a node, they share the items. Each rank starts a renderer for each visible GPU, or
--slots renderers on a CPU.

With a run directory in place of the manifest, it renders what was planned there. With --attach it is
one of any number of processes that share a planned run without MPI: they take items by leases in the run
directory, and may come and go.

  --out DIR               the run directory (default: the manifest's outputs.root, or runs/NAME)
  --backend cpu|cuda      where to render (default: cpu)
  --slots N               renderers of each rank (default: one on a CPU, all visible GPUs on CUDA)
  --threads N             CPU threads of a rank, shared out among its slots (default: all cores, shared
                          out among the ranks of a machine)
  --precision fp32|bf16|fp8
                          over the manifest's model.precision; bf16 are the published casts
  --set NAME=VALUE        over the manifest's value, e.g. --set seconds=1, --set model.path=/models/tiny
  --param NAME=VALUE      a value for one of the manifest's params
  --extend                adds the items that are new in the manifest to a run directory's plan, which
                          otherwise stays as it was frozen, whatever the manifest says by now
  --json                  prints one JSON object with all items in place of one line a clip

Prints a line "NAME PATH" for each clip. Exit code: 0 all done, 2 the request is wrong, 3 finished, but
items were given up, 4 stopped early and resumable.
)";

/// Neither a manifest nor a run directory is given.
[[noreturn]] void refuse_nothing(bool attach) {
    std::error_code failed;
    throw_input_error(
        "gallop run: {} is missing; gallop run --help shows how{}",
        attach ? "the run directory to attach to" : "a manifest or a run directory",
        fs::exists("run.json", failed)
            ? fmt::format(
                  ". The working directory is a run directory: gallop run{} . goes on with it",
                  attach ? " --attach" : "")
            : "");
}

/// A planned run, not to be planned again: what would change the plan is refused.
fs::path planned_run(const Values& values) {
    const fs::path directory = text_of(values, "MANIFEST");
    for (const char* option : {"out", "precision", "extend", "set", "param"})
        if (values.contains(option))
            throw_input_error("gallop run: --{} has no say in {}, which is planned already", option,
                              directory.string());
    if (!is_planned(directory))
        throw_input_error(
            "{}: {} (must be a run directory; gallop plan MANIFEST --out DIR makes one)",
            directory.string(), fs::exists(directory) ? "a file" : "no such file or folder");
    return fs::canonical(directory);
}

/// A run directory, held by this process, and the manifest to plan it by, unless it is planned.
struct HeldRun {
    std::optional<Manifest> manifest;
    fs::path directory;
    std::unique_ptr<RunLock> lock;
    bool overridden = false;  ///< the manifest, by options
};

HeldRun hold_run(const Values& values) {
    if (is_planned(text_of(values, "MANIFEST"))) {
        const fs::path directory = planned_run(values);
        return {{}, directory, std::make_unique<RunLock>(directory)};
    }
    ManifestOptions over = manifest_options(values);
    if (values.contains("precision")) {
        precision_of(text_of(values, "precision"));
        over.set.push_back("model.precision=" + text_of(values, "precision"));
    }
    HeldRun held{read_manifest(text_of(values, "MANIFEST"), over), {}, {}};
    held.directory =
        fs::absolute(values.contains("out") ? text_of(values, "out") : held.manifest->outputs.root);
    held.lock = std::make_unique<RunLock>(held.directory);
    held.overridden = !over.set.empty() || !over.params.empty();
    return held;
}

/// Freezes the plan, or looks whether one that is there still holds; this may read a whole model.
void prepare(const HeldRun& run, const std::string& device, bool extend) {
    if (run.manifest) {
        NetworkCheck networks(run.manifest->model.choice());
        PlanOptions how;
        how.directory = run.directory;
        how.networks = &networks;
        how.digest_cache = user_cache();
        how.calibration = find_calibration(device == "cuda" ? "h100" : "cpu",
                                           name_of(run.manifest->model.precision), user_cache());
        how.extend = extend;
        how.overridden = run.overridden;
        ensure_plan(*run.manifest, how);
    } else {
        refuse_changed_model(read_run_config(run.directory), user_cache());
    }
    sweep(run.directory);
}

/// How this rank takes part, by its options and its machine.
ServeOptions options_of(const Values& values) {
    const std::string backend = text_of(values, "backend");
    if (backend != "cpu" && backend != "cuda")
        throw_input_error("the backend is \"{}\" (cpu, cuda)", backend);
    const int slots = values["slots"].as<int>();
    const int threads = values["threads"].as<int>();
    if (slots < 0 || slots > 1024)
        throw_input_error("--slots is {} (0 for the default, at most 1024)", slots);
    if (threads < 0 || threads > 4096)
        throw_input_error("--threads is {} (0 for all cores, at most 4096)", threads);
    const LocalPlace place = local_place();
    ServeOptions options;
    options.terminal = ::isatty(STDERR_FILENO) != 0;
    RendererPolicy& renderers = options.agent.renderers;
    renderers.devices = devices_of_rank(backend, slots, place);
    const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const int own = threads > 0 ? threads : std::max(1, cores / place.size);
    const int each = std::max(1, own / static_cast<int>(renderers.devices.size()));
    renderers.arguments = {"renderer", "--backend", backend, "--threads", std::to_string(each)};
    options.agent.device = backend;
    return options;
}

std::string in_json(const std::string& text) {
    return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// `why`: the run stopped, or "".
void print_result(const fs::path& directory, const std::string& why, bool json) {
    using State = ItemHistory::State;
    RunHistory history(directory);
    std::vector<bool> rendered(history.size());
    history.update([&](const Json& event, std::optional<std::size_t> item) {
        const std::string kind = event.value("event", "");
        if (kind == "attempt") rendered.assign(rendered.size(), false);
        if (kind == "done" && item) rendered[*item] = !event.value("adopted", false);
    });
    if (json)
        fmt::print("{{\"directory\": {}, \"stopped\": {}, \"why\": {}, \"items\": [",
                   in_json(directory.string()), history.outcome() == "stopped", in_json(why));
    const char* separator = "\n  ";
    for (std::size_t i = 0; i < history.size(); ++i) {
        const State state = history[i].state;
        if (!json && state != State::done) continue;
        const Item item = history.planned(i).item;
        const std::string clip = clip_path(directory, item.id).string();
        if (!json) {
            fmt::print("{} {}\n", item.name, clip);
            continue;
        }
        Json row = {{"id", item.id},
                    {"name", item.name},
                    {"state", state == State::done          ? "done"
                              : state == State::quarantined ? "quarantined"
                                                            : "open"},
                    {"rendered", static_cast<bool>(rendered[i])}};
        if (state == State::done) row["clip"] = clip;
        if (state == State::quarantined) {
            const FailureStatus failure = failure_of(history, i);
            row["kind"] = failure.kind;
            row["error"] = failure.error;
            row["reason"] = failure.reason;
            row["host"] = failure.host;
            row["log"] = failure.log;
        }
        fmt::print("{}{}", std::exchange(separator, ",\n  "),
                   row.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
    if (json) fmt::print("\n]}}\n");
}

/// Says what came of a run. The exit code.
int conclude(const ServeResult& result, const fs::path& directory, const Values& values) {
    print_result(directory, result.why, values.contains("json"));
    // This machine's trouble is the run's only where no other one finished it.
    if (result.outcome == coordinator::Outcome::stopped && result.trouble &&
        result.trouble->kind == FailureKind::input)
        throw InputError(result.trouble->error);
    log_info("{} directory={}{}",
             result.outcome == coordinator::Outcome::stopped ? "stopped" : "finished",
             directory.string(), result.why.empty() ? "" : " why=\"" + result.why + "\"");
    switch (result.outcome) {
        case coordinator::Outcome::complete: return done;
        case coordinator::Outcome::quarantined: return finished_with_failures;
        case coordinator::Outcome::stopped: return stopped_early;
    }
    return internal_error;
}

/// Rank 0: plans, while the others and whoever watches the run directory are told that it is there,
/// then serves. The exit code. `ended`: the others know that it is over.
int lead(const Values& values, const ServeOptions& options, Link& link, const StopSignals& signals,
         bool& all_well, bool& ended) {
    HeldRun held = hold_run(values);
    work_and_beat(*held.lock, link,
                  [&] { prepare(held, options.agent.device, values.contains("extend")); });
    const ServeResult result = serve(held.directory, *held.lock, options, link, signals);
    all_well = result.all_well;
    ended = true;
    return conclude(result, held.directory, values);
}

int run(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("out", po::value<std::string>())("precision", po::value<std::string>())(
        "extend", "")("attach", "")("json", "")("slots", po::value<int>()->default_value(0));
    add_manifest_options(options);
    add_backend_options(options);
    const Values values = parse("run", arguments, options, {"MANIFEST"}, 1);
    if (!values.contains("MANIFEST")) refuse_nothing(values.contains("attach"));
    ServeOptions how = options_of(values);

    static StopSignals signals;  // its thread lives as long as the process
    if (values.contains("attach")) {
        const fs::path directory = planned_run(values);
        refuse_changed_model(read_run_config(directory), user_cache());
        how.agent.renderers.log_name = fmt::format("renderer-{}-{}", host_name(), ::getpid());
        return conclude(attach(directory, how, signals), directory, values);
    }
    const std::unique_ptr<Link> link = launched_by_mpi() ? make_mpi_link() : make_solo_link();
    const std::string here = fmt::format("{}-{}", host_name(), link->rank());
    how.agent.renderers.log_name = "renderer-" + here;
    how.log_name = "agent-" + here;
    bool all_well = true;
    bool ended = false;
    int code = internal_error;
    std::exception_ptr failure;
    try {
        if (link->rank() == 0) {
            code = lead(values, how, *link, signals, all_well, ended);
        } else {
            all_well = attend(how, *link, signals);
            code = done;
        }
    } catch (const std::exception& failed) {
        failure = std::current_exception();
        if (dynamic_cast<const InputError*>(&failed) != nullptr ||
            dynamic_cast<const AccessError*>(&failed) != nullptr)
            code = wrong_request;
        if (dynamic_cast<const DiskError*>(&failed) != nullptr) code = stopped_early;
        if (link->rank() > 0)
            all_well = false;
        else if (!ended)
            dismiss(*link);
        // Without the others this process ends in the next line, and nobody else will say why.
        if (!all_well) log_error("{}", failed.what());
    }
    link->leave(all_well, code);
    if (failure) std::rethrow_exception(failure);
    return code;
}

}  // namespace

const Command run_command = {"run", run_help, run};

}  // namespace gallop::cli
