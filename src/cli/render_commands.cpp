#include <atomic>
#include <csignal>
#include <cstdlib>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/plan.hpp"
#include "farm/run.hpp"
#include "media/h5.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using State = ItemOutcome::State;

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

constexpr const char* decode_help = R"(gallop decode FILE.h5 [--out FILE.mp4] [options]

Makes an MP4 of stored latents again, with other settings if wanted.

  --out FILE.mp4          where to write (default: beside the latents)
  --model DIR             the model folder (default: the one that the file names)
  --arch FILE             architecture file (default: the one that the file names, if any)
  --decoder turbo|wan     (default: the one that the file names)
  --crf N                 0 (lossless) … 51 (default: 18)
  --preset NAME           of the H.264 encoder, ultrafast … veryslow (default: fast)
  --pix-fmt NAME          yuv420p, yuv422p, yuv444p, also with 10le (default: yuv420p)
  --audio-bitrate N       bits a second (default: 192000)
  --backend cpu|cuda      (default: cpu)
  --threads N             CPU threads (default: all)
  --precision fp32|bf16   (default: the one that the file names)

Prints the MP4's path.
)";

std::atomic<bool> stop_asked{false};

/// The first signal asks for an orderly end, the second ends the process. A thread of its own waits for
/// them and all others block them: oneDNN's generated code moves the stack pointer, and a handler that
/// runs on a thread inside it has been seen to corrupt the heap. Call before any thread is made.
void stop_on_signals() {
    static sigset_t asked;
    ::sigemptyset(&asked);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) ::sigaddset(&asked, signal);
    ::pthread_sigmask(SIG_BLOCK, &asked, nullptr);
    std::thread([] {
        int signal = 0;
        ::sigwait(&asked, &signal);
        stop_asked.store(true);
        ::sigwait(&asked, &signal);
        ::_exit(128 + signal);
    }).detach();
}

/// Where digests of weights are kept between runs.
fs::path digest_cache() {
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
        return fs::path(cache) / "gallop" / "digests.json";
    if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
        return fs::path(home) / ".cache" / "gallop" / "digests.json";
    return {};
}

const char* word(State state) {
    switch (state) {
        case State::done: return "done";
        case State::failed: return "failed";
        case State::open: return "open";
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
    std::vector<std::string> settings = texts_of(values, "set");
    if (values.contains("precision")) {
        precision_of(text_of(values, "precision"));
        settings.push_back("model.precision=" + text_of(values, "precision"));
    }
    const Plan plan =
        make_plan(read_manifest(text_of(values, "MANIFEST"), settings), digest_cache());
    for (const Remark& note : plan.manifest.notes)
        log_warning("{}: {}", to_string(note.where), note.text);

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

template <class T>
T attribute(const LatentsFile& file, const char* name, T fallback) {
    const auto found = file.attributes.find(name);
    if (found == file.attributes.end()) return fallback;
    const T* value = std::get_if<T>(&found->second);
    return value == nullptr ? fallback : *value;
}

std::string or_attribute(const Values& values, const char* option, const LatentsFile& file,
                         const char* name, const char* fallback = "") {
    return values.contains(option) ? text_of(values, option)
                                   : attribute(file, name, std::string(fallback));
}

int decode(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("out", po::value<std::string>())("model", po::value<std::string>())(
        "arch", po::value<std::string>())("decoder", po::value<std::string>())(
        "crf", po::value<int>()->default_value(18))(
        "preset", po::value<std::string>()->default_value("fast"))(
        "pix-fmt", po::value<std::string>()->default_value("yuv420p"))(
        "audio-bitrate", po::value<int>()->default_value(192000))("precision",
                                                                  po::value<std::string>());
    add_backend_options(options);
    const Values values = parse("decode", arguments, options, {"FILE"});
    const fs::path path = text_of(values, "FILE");
    const LatentsFile file = read_latents(path);
    const Tensor& video = file.video_final.defined() ? file.video_final : file.video_base;
    if (!video.defined() || !file.audio.defined())
        throw_input_error("{}: holds no {} (both are needed to make a clip)", path.string(),
                          video.defined() ? "audio" : "picture latents");

    const std::string model = or_attribute(values, "model", file, "model");
    if (model.empty())
        throw_input_error("{}: names no model folder; give it with --model", path.string());
    const std::string decoder = or_attribute(values, "decoder", file, "decoder", "turbo");
    if (decoder != "turbo" && decoder != "wan")
        throw_input_error("decoder is \"{}\" (turbo, wan)", decoder);
    const auto latent_frames = static_cast<int>(video.size(1));
    const auto frames = attribute(file, "frames", std::int64_t{4} * (latent_frames - 1) + 1);
    if (frames < 1 || frames > 4 * (latent_frames - 1) + 1)
        throw_input_error("{}: frames is {}, but its {} latent frames hold 1 to {}", path.string(),
                          frames, latent_frames, 4 * (latent_frames - 1) + 1);

    OutputRequest how;
    how.crf = values["crf"].as<int>();
    how.preset = text_of(values, "preset");
    how.pix_fmt = text_of(values, "pix-fmt");
    how.audio_bitrate = values["audio-bitrate"].as<int>();
    const fs::path out = values.contains("out") ? fs::path(text_of(values, "out"))
                                                : fs::path(path).replace_extension(".mp4");
    const Precision precision =
        precision_of(or_attribute(values, "precision", file, "precision", "bf16"));
    const std::unique_ptr<Backend> backend = make_backend(values);
    Renderer renderer({model, or_attribute(values, "arch", file, "arch"), precision}, *backend);
    write_clip(stages_of(renderer), video, file.audio,
               decoder == "wan" ? VideoDecoder::wan : VideoDecoder::turbo,
               {static_cast<int>(video.size(3)) * 16, static_cast<int>(video.size(2)) * 16},
               static_cast<int>(frames), how, attribute(file, "id", std::string()), out, {});
    fmt::print("{}\n", out.string());
    return done;
}

}  // namespace

const Command decode_command = {"decode", decode_help, decode};
const Command run_command = {"run", run_help, run};

}  // namespace gallop::cli
