#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "cli/commands.hpp"
#include "cli/planning.hpp"
#include "core/check.hpp"
#include "core/files.hpp"
#include "farm/batch_script.hpp"
#include "farm/launch.hpp"
#include "farm/plan.hpp"
#include "farm/plan_report.hpp"
#include "farm/run_lock.hpp"
#include "farm/survey.hpp"
#include "farm/time_text.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* submit_help =
    R"(gallop submit MANIFEST [--out DIR] [options] [-- SBATCH-OPTIONS]
gallop submit RUNDIR [options] [-- SBATCH-OPTIONS]

Plans a manifest, fills a batch script with its `slurm` settings, and hands it to sbatch. The job renders on
up to slurm.nodes nodes, goes on without those that are lost, and goes back into the queue when its time is
nearly up. The same command with the run directory goes on where a job has ended for good.

  --out DIR               the run directory (default: the manifest's outputs.root, or runs/NAME); every node
                          must see it
  --array                 slurm.nodes jobs of one node each, that share the run by leases in its directory:
                          needs no MPI between nodes, and tasks may come and go
  --backend cpu|cuda      where the job renders (default: cuda where slurm.gpus_per_node asks for GPUs, else cpu)
  --print                 prints the batch script; plans and submits nothing
  --set NAME=VALUE        over the manifest's value, e.g. --set slurm.nodes=4
  --param NAME=VALUE      a value for one of the manifest's params
  -- OPTION...            further options of sbatch, e.g. -- --gres=gpu:8 -p night

Prints the job's id. The script is kept as RUNDIR/render.sbatch, the id in RUNDIR/slurm.json, from which
gallop status asks for the job's state; the job's output goes to RUNDIR/logs.
)";

struct Submission {
    fs::path directory;
    SlurmRequest slurm;
    double reserve = 120;
    std::string time;  ///< suggested by the plan; "" for a run that is planned already
};

/// Two jobs would fight for one run directory; tasks without MPI may join others.
void refuse_second_job(const fs::path& directory, bool array) {
    const std::optional<SlurmJob> job = slurm_job(directory);
    if (!job || !job->waits_or_runs() || (array && job->array)) return;
    throw_input_error(
        "{0}: Slurm job {1} is there already ({2}); gallop status {0} says how it stands, "
        "scancel {1} ends it",
        directory.string(), job->id, job->state);
}

Submission plan_of(const Values& values) {
    Submission found;
    const fs::path given = text_of(values, "MANIFEST");
    const bool print = values.contains("print");
    if (is_planned(given)) {
        for (const char* option : {"out", "set", "param"})
            if (values.contains(option))
                throw_input_error("gallop submit: --{} has no say in {}, which is planned already",
                                  option, given.string());
        const RunConfig config = read_run_config(given);
        found.directory = fs::canonical(given);
        if (!print) refuse_second_job(found.directory, values.contains("array"));
        found.slurm = config.slurm;
        found.reserve = config.limits.walltime_reserve_seconds;
        return found;
    }
    const Manifest manifest = read_manifest(given, manifest_options(values));
    found.directory =
        fs::absolute(values.contains("out") ? text_of(values, "out") : manifest.outputs.root)
            .lexically_normal();
    found.slurm = manifest.slurm;
    found.reserve = manifest.limits.walltime_reserve_seconds;
    if (!print && fs::exists(found.directory / "run.json")) {
        refuse_second_job(found.directory, values.contains("array"));
        throw_input_error(
            "{0}: is planned already; gallop submit {0} goes on with it (or choose another --out)",
            found.directory.string());
    }
    NetworkCheck networks(manifest.model.choice());
    PlanOptions how;
    how.networks = &networks;
    how.digest_cache = user_cache();
    how.calibration = find_calibration("h100", name_of(manifest.model.precision), user_cache());
    std::optional<RunLock> lock;
    if (!print) {
        how.directory = found.directory;
        lock.emplace(how.directory);
    }
    PlanResult made = make_plan(manifest, how);
    print_notes(made.notes);
    const auto workers = static_cast<std::size_t>(std::max(found.slurm.nodes, 1)) *
                         static_cast<std::size_t>(std::max(found.slurm.gpus_per_node, 1));
    found.time = plan_report(made, how.calibration, workers).value("slurm_time", "");
    return found;
}

std::string own_path() { return fs::read_symlink("/proc/self/exe").string(); }

/// A value of an #SBATCH line.
std::string quoted(const std::string& text) {
    return text.find_first_of(" \t") == std::string::npos ? text : '"' + text + '"';
}

/// What the job's renderers use.
std::string backend_of(const Values& values, const SlurmRequest& slurm) {
    if (!values.contains("backend")) return slurm.gpus_per_node > 0 ? "cuda" : "cpu";
    const std::string backend = text_of(values, "backend");
    if (backend != "cpu" && backend != "cuda")
        throw_input_error("the backend is \"{}\" (cpu, cuda)", backend);
    return backend;
}

std::string script_of(const Submission& run, const std::string& backend, bool array,
                      const Arguments& further) {
    BatchSettings settings = batch_settings(run.slurm, run.time, run.reserve, array);
    const std::string name = run.directory.filename().string();
    settings.options.emplace_back("job-name", quoted("gallop-" + name));
    settings.options.emplace_back(
        "output",
        quoted((run.directory / "logs" / (array ? "slurm-%A_%a.out" : "slurm-%j.out")).string()));
    if (!further.empty()) settings.lines.push_back(shell_text(further));
    settings.variables.emplace_back("RUN", run.directory.string());
    settings.variables.emplace_back("GALLOP", own_path());
    settings.variables.emplace_back("BACKEND", backend);
    if (!array)
        settings.variables.emplace_back("SUPERVISE", (shipped_scripts() / "supervise.sh").string());
    return fill_script(read_text(shipped_scripts() / (array ? "array.sbatch" : "render.sbatch")),
                       settings);
}

/// The id that sbatch gives to a job. Throws InputError with what sbatch says.
std::string hand_over(const fs::path& script) {
    const std::string command = shell_text({"sbatch", "--parsable", script.string()}) + " 2>&1";
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(::popen(command.c_str(), "re"),
                                                               ::pclose);
    if (!pipe) throw Error("sbatch cannot be started");
    std::string said;
    char part[1024];
    while (std::fgets(part, sizeof part, pipe.get()) != nullptr) said += part;
    // "ID" or "ID;CLUSTER" in the last line.
    while (said.ends_with('\n')) said.pop_back();
    const std::string last = said.substr(said.rfind('\n') + 1);
    const std::string id = last.substr(0, last.find(';'));
    if (id.empty() || id.find_first_not_of("0123456789") != std::string::npos)
        throw_input_error("{}: sbatch refused it: {}", script.string(),
                          said.empty() ? "no word" : said);
    return id;
}

int submit(const Arguments& arguments) {
    const auto end = std::find(arguments.begin(), arguments.end(), "--");
    const Arguments further(end == arguments.end() ? end : end + 1, arguments.end());
    po::options_description options;
    add_manifest_options(options);
    options.add_options()("out", po::value<std::string>())("array", "")("print", "")(
        "backend", po::value<std::string>());
    const Values values = parse("submit", Arguments(arguments.begin(), end), options, {"MANIFEST"});
    const bool array = values.contains("array");
    const Submission run = plan_of(values);
    const std::string text = script_of(run, backend_of(values, run.slurm), array, further);
    if (values.contains("print")) {
        fmt::print("{}", text);
        return done;
    }
    const fs::path script = run.directory / (array ? "array.sbatch" : "render.sbatch");
    fs::create_directories(run.directory / "logs");
    write_atomically(script, text);
    const std::string id = hand_over(script);
    const Json job = {{"job_id", id},
                      {"array", array},
                      {"script", script.filename().string()},
                      {"submitted", utc_text()}};
    write_atomically(run.directory / "slurm.json", job.dump(2) + "\n");
    fmt::print("{}\n", id);
    return done;
}

}  // namespace

const Command submit_command = {"submit", submit_help, submit};

}  // namespace gallop::cli
