#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "core/check.hpp"
#include "farm/renderer.hpp"

namespace gallop::cli {
namespace {

constexpr const char* renderer_help = R"(gallop renderer --run DIR --slot N [options]

A renderer of a run; started by `gallop run`, with a socket as descriptor 3. Not for people.
)";

/// The engine of a renderer; the stages own it.
Engine make_engine(const Values& values, const RunConfig& config, const GroupSeat& seat) {
    struct Owned {  // from the last to the first they need one another
        std::unique_ptr<Backend> backend;
        std::unique_ptr<Group> group;
        std::unique_ptr<Renderer> renderer;
    };
    const auto owned = std::make_shared<Owned>();
    owned->backend = make_backend(values);
    const ModelChoice model = config.model.choice();
    if (seat.size > 1) {
        owned->group = owned->backend->join_group(seat);
        owned->renderer = std::make_unique<Renderer>(model, *owned->backend, *owned->group);
    } else {
        owned->renderer = std::make_unique<Renderer>(model, *owned->backend);
    }
    Stages stages = stages_of(*owned->renderer);
    stages.take_timings = [owned] { return owned->renderer->take_timings(); };
    return {std::move(stages), owned->backend->name()};
}

int run(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("run", po::value<std::string>())("slot", po::value<int>())(
        "rank", po::value<int>()->default_value(0))("size", po::value<int>()->default_value(1))(
        "rendezvous", po::value<std::string>());
    add_backend_options(options);
    const Values values = parse("renderer", arguments, options, {});
    if (!values.contains("run") || !values.contains("slot"))
        throw_input_error("gallop renderer is started by gallop run");
    RendererOptions how;
    how.directory = text_of(values, "run");
    how.slot = values["slot"].as<int>();
    how.seat.rank = values["rank"].as<int>();
    how.seat.size = values["size"].as<int>();
    how.seat.rendezvous = text_of(values, "rendezvous");
    return run_renderer(how, [&](const RunConfig& config, const GroupSeat& seat) {
        return make_engine(values, config, seat);
    });
}

}  // namespace

const Command renderer_command = {"renderer", renderer_help, run};

}  // namespace gallop::cli
