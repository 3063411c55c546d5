#include <atomic>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/plan.hpp"
#include "farm/run.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using State = ItemOutcome::State;

constexpr const char* check_help = R"(gallop check MANIFEST [--set NAME=VALUE]... [--json]

Reads a manifest with its presets and inputs, and lists every mistake as file:line:column. Renders
nothing and opens no weights.

  --set NAME=VALUE   sets a value over the manifest's, e.g. --set steps.base=4 (every item) or
                     --set outputs.video.crf=20 (the run)
  --json             prints {"ok", "items", "mistakes", "notes"}

Exit code: 0 no mistake, 2 some.
)";

constexpr const char* run_help = R"(gallop run MANIFEST [--out DIR] [options]

Renders every item of a manifest: clips/ab/cd/ID.mp4 and latents/ab/cd/ID.h5 in the run directory, with
index.jsonl, status.json and the journal. The same command again goes on where an earlier one ended:
what is done is skipped, what failed is tried again. Ctrl-C or SIGTERM ends it soon; nothing half-written
is left.

  --out DIR               the run directory (default: the manifest's outputs.root, or runs/NAME)
  --backend cpu|cuda      where to render (default: cpu)
  --threads N             CPU threads (default: all)
  --precision fp32|bf16|fp8
                          over the manifest's model.precision; bf16 are the published casts
  --set NAME=VALUE        over the manifest's value, e.g. --set seconds=1, --set model.path=/models/tiny
  --json                  prints one JSON object with all items in place of one line a clip

Prints a line "NAME PATH" for each clip. Exit code: 0 all done, 2 the request is wrong, 3 finished, but
items failed, 4 stopped early and resumable.
)";

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // set by a signal handler

/// The first signal asks for an orderly end, the second ends the process.
void stop_on_signals() {
    struct sigaction action {};
    action.sa_handler = [](int) { stop_asked.store(true); };
    action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) ::sigaction(signal, &action, nullptr);
}

/// Where digests of weights are kept between runs.
fs::path digest_cache() {
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
        return fs::path(cache) / "gallop" / "digests.json";
    if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
        return fs::path(home) / ".cache" / "gallop" / "digests.json";
    return {};
}

std::vector<std::string> settings_of(const Values& values) {
    return values.contains("set") ? values["set"].as<std::vector<std::string>>()
                                  : std::vector<std::string>{};
}

void say_notes(const Manifest& manifest) {
    for (const Remark& note : manifest.notes)
        log_warning("{}: {}", to_string(note.where), note.text);
}

int check(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("set", po::value<std::vector<std::string>>()->composing())("json", "");
    const Values values = parse("check", arguments, options, {"MANIFEST"});
    const bool json = values.contains("json");
    Json result = {{"ok", true}, {"mistakes", Json::array()}, {"notes", Json::array()}};
    try {
        Manifest manifest = read_manifest(text_of(values, "MANIFEST"), settings_of(values));
        measure_sounds(manifest);
        result["items"] = manifest.items.size();
        for (const Remark& note : manifest.notes)
            result["notes"].push_back(fmt::format("{}: {}", to_string(note.where), note.text));
        if (!json) {
            say_notes(manifest);
            fmt::print("{}: no mistakes, {} clip{}\n", text_of(values, "MANIFEST"),
                       manifest.items.size(), manifest.items.size() == 1 ? "" : "s");
        }
    } catch (const InputError& wrong) {
        if (!json) throw;
        result["ok"] = false;
        std::istringstream lines(wrong.what());
        for (std::string line; std::getline(lines, line);) result["mistakes"].push_back(line);
    }
    if (json) fmt::print("{}\n", result.dump(2, ' ', false, Json::error_handler_t::replace));
    return result["ok"] ? done : wrong_request;
}

const char* word(State state) {
    switch (state) {
        case State::done:
            return "done";
        case State::failed:
            return "failed";
        case State::open:
            return "open";
    }
    return "?";
}

void print_result(const RunResult& result, const fs::path& directory, bool json) {
    if (json) {
        Json items = Json::array();
        for (const ItemOutcome& item : result.items) {
            Json row = {{"id", item.id},
                        {"name", item.name},
                        {"state", word(item.state)},
                        {"rendered", item.rendered}};
            if (item.state == State::done) row["clip"] = item.clip.string();
            if (item.state == State::failed) row["error"] = item.error;
            items.push_back(row);
        }
        const Json all = {
            {"directory", directory.string()}, {"stopped", result.stopped}, {"items", items}};
        fmt::print("{}\n", all.dump(2, ' ', false, Json::error_handler_t::replace));
        return;
    }
    for (const ItemOutcome& item : result.items)
        if (item.state == State::done) fmt::print("{} {}\n", item.name, item.clip.string());
}

int run(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("out", po::value<std::string>())("precision", po::value<std::string>())(
        "set", po::value<std::vector<std::string>>()->composing())("json", "");
    add_backend_options(options);
    const Values values = parse("run", arguments, options, {"MANIFEST"});
    std::vector<std::string> settings = settings_of(values);
    if (values.contains("precision")) {
        precision_of(text_of(values, "precision"));
        settings.push_back("model.precision=" + text_of(values, "precision"));
    }
    const Plan plan =
        make_plan(read_manifest(text_of(values, "MANIFEST"), settings), digest_cache());
    say_notes(plan.manifest);

    stop_on_signals();
    const std::unique_ptr<Backend> backend = make_backend(values);
    const ModelRequest& model = plan.manifest.model;
    Renderer renderer({model.path, model.arch, model.precision}, *backend);
    RunOptions how;
    how.directory = values.contains("out") ? text_of(values, "out") : plan.manifest.outputs.root;
    how.device = backend->name();
    how.terminal = ::isatty(STDERR_FILENO) != 0;
    how.stop = &stop_asked;
    const RunResult result = run_plan(plan, stages_of(renderer), how);
    print_result(result, how.directory, values.contains("json"));
    const std::size_t failed = result.count(State::failed);
    log_info("{} directory={} done={} failed={} open={}", result.stopped ? "stopped" : "finished",
             how.directory.string(), result.count(State::done), failed, result.count(State::open));
    return result.stopped ? stopped_early : failed > 0 ? finished_with_failures : done;
}

}  // namespace

const Command check_command = {"check", check_help, check};
const Command run_command = {"run", run_help, run};

}  // namespace gallop::cli
