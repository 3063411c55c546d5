#include <cstdlib>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/planning.hpp"
#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/promote.hpp"
#include "farm/render_item.hpp"
#include "farm/survey.hpp"
#include "farm/verify.hpp"
#include "media/store.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* verify_help = R"(gallop verify [RUNDIR] [--sample N] [options]

Verifies every finished clip: its files are there, as long as the journal says and with its SHA-256; the MP4
decodes whole, picture and sound as long as planned, and belongs to its item; the latents' seal holds.

  --sample N              renders N clips again (spread over all) and compares digests. Digests agree between
                          runs of one build on one kind of device; another build may round otherwise. A clip
                          that the journal says was not rendered as planned, for memory was short, need not agree
  --backend cpu|cuda, --threads N
                          where to render the sample (default: cpu, all threads)
  --json                  prints one JSON object

Prints a line "ID NAME FILE: what is wrong" for each problem. Exit code: 0 all is well, 3 there are problems.
)";

constexpr const char* promote_help = R"(gallop promote RUNDIR ID... --resolution R [options]

Finishes chosen drafts at a higher resolution from their stored base latents: only the second stage and the
decoders run. Where the base latents are stored as f32 (outputs.latents.dtype), the clip is byte for byte the
one that the manifest with that resolution gives; stored as bf16, it is near that, and an item of its own.

  ID                      an id, the start of one (four digits at least), or a name
  --resolution R          540p (twice the draft's size), 1080p, or WIDTHxHEIGHT
  --sr 540p_sr|1080p_sr   model of the second stage (default: by the resolution)
  --out DIR               run directory of the promoted clips (default: RUNDIR-R); promoting more into the
                          same one adds them
  --backend cpu|cuda, --threads N
                          where to render (default: cpu, all threads)

Prints a line "NAME PATH" for each clip. Exit code: 0 all done, 3 some failed.
)";

/// The models of a run on a backend.
struct Engine {
    std::unique_ptr<Backend> backend;
    Renderer renderer;

    Engine(const Values& values, const ModelRequest& model)
        : backend(make_backend(values)), renderer(model.choice(), *backend) {}
};

/// The stage that the engine runs for a promoted item.
RefineStage refine_by(Renderer& renderer) {
    return [&renderer](const Item& item, const Conditioning& inputs, Latents base,
                       const ProgressSink& progress) {
        return renderer.refine(item, inputs, std::move(base), progress);
    };
}

int verify(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("sample", po::value<int>()->default_value(0))("json", "");
    add_backend_options(options);
    const Values values = parse("verify", arguments, options, {"RUNDIR"}, 1);
    const int sample = values["sample"].as<int>();
    if (sample < 0) throw_input_error("--sample is {} (a number of clips)", sample);
    RunHistory history(find_run(text_of(values, "RUNDIR")));
    history.update();

    Json problems = Json::array();
    VerifyOptions how;
    how.sample = static_cast<std::size_t>(sample);
    how.scratch = fs::temp_directory_path() / fmt::format("gallop-verify-{}", ::getpid());
    const bool json = values.contains("json");
    how.problem = [&](const VerifyProblem& one) {
        if (json)
            problems.push_back(
                {{"id", one.id}, {"name", one.name}, {"file", one.file}, {"what", one.what}});
        else
            fmt::print("{} {} {}: {}\n", one.id, one.name, one.file, one.what);
    };
    how.progress = [](std::size_t verified, std::size_t all) {
        if (verified > 0 && verified % 1000 == 0)
            log_info("verified clips={} of={}", verified, all);
    };
    std::optional<Engine> engine;
    how.render = [&](const PlannedItem& planned, const fs::path& folder) {
        const RunConfig& config = history.config();
        if (!engine) engine.emplace(values, config.model);
        render_item({.item = planned.item,
                     .resolved = planned.resolved,
                     .model = config.model,
                     .outputs = config.outputs,
                     .directory = folder},
                    stages_of(engine->renderer), {});
    };
    const VerifyCount count = verify_run(history, how);
    if (count.strays > 0) log_warning("files belong to no finished clip files={}", count.strays);
    if (count.damaged_lines > 0)
        log_warning("damaged lines of the journal were passed over lines={}", count.damaged_lines);
    if (json)
        fmt::print("{}\n", Json({{"clips", count.clips},
                                 {"rendered_again", count.rendered},
                                 {"not_comparable", count.not_comparable},
                                 {"bytes", count.bytes},
                                 {"strays", count.strays},
                                 {"damaged_lines", count.damaged_lines},
                                 {"problems", problems}})
                               .dump(2, ' ', false, Json::error_handler_t::replace));
    else
        fmt::print("{} clips verified, {} rendered again, {} problems\n", count.clips,
                   count.rendered, count.problems);
    return count.problems > 0 ? finished_with_failures : done;
}

int promote(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("resolution", po::value<std::string>())("sr", po::value<std::string>())(
        "out", po::value<std::string>());
    add_backend_options(options);
    const Values values = parse("promote", arguments, options, {"RUNDIR", "ID..."});
    PromoteRequest request;
    request.words = texts_of(values, "ID");
    request.resolution = text_of(values, "resolution");
    if (request.resolution.empty())
        throw_input_error("gallop promote: --resolution is missing (540p, 1080p, or WxH)");
    request.sr = text_of(values, "sr");
    if (!request.sr.empty() && request.sr != "540p_sr" && request.sr != "1080p_sr")
        throw_input_error("--sr is \"{}\" (540p_sr, 1080p_sr)", request.sr);
    const fs::path run = find_run(text_of(values, "RUNDIR")).lexically_normal();
    const std::string folder = run.has_filename() ? run.string() : run.parent_path().string();
    request.out = values.contains("out") ? fs::path(text_of(values, "out"))
                                         : fs::path(folder + "-" + request.resolution);
    request.digest_cache = user_cache();

    RunHistory drafts(run);
    drafts.update();
    RunConfig config;
    const std::vector<Promotion> promotions = plan_promotion(drafts, request, config);
    for (const Promotion& one : promotions)
        if (!one.exact)
            log_warning(
                "base latents are stored as bf16: the clip is near the one rendered whole, not "
                "equal to it, and its id says so item=\"{}\"",
                one.planned.item.name);
    Engine engine(values, config.model);
    write_promotion(request.out, promotions, config);
    const PromoteCount count = render_promotion(request.out, promotions, stages_of(engine.renderer),
                                                refine_by(engine.renderer), engine.backend->name());
    for (const Promotion& one : promotions) {
        const fs::path clip = clip_path(request.out, one.planned.item.id);
        if (fs::exists(clip)) fmt::print("{} {}\n", one.planned.item.name, clip.string());
    }
    return count.failed > 0 ? finished_with_failures : done;
}

}  // namespace

const Command verify_command = {"verify", verify_help, verify};
const Command promote_command = {"promote", promote_help, promote};

}  // namespace gallop::cli
