#include <algorithm>
#include <future>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "core/check.hpp"
#include "model/make_model.hpp"
#include "ops/staged_group.hpp"
#include "pipeline/probe.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* probe_help =
    R"(gallop probe COMPONENT --case IN.safetensors [--weights PATH] [--arch FILE] [options]

Runs one component on the tensors of a golden case and writes or compares what it makes. COMPONENT: dit,
unipc, renoise, pipeline, turbo-vae, wan-vae-encode, wan-vae-decode, audio-vae-encode, audio-vae-decode,
text. What the case's metadata says (coordinates, local layers, steps, passes) wins over the architecture.

  --case FILE             the case: inputs, and the expected outputs when comparing
  --weights PATH          the component's checkpoint, a file or a folder (the samplers need none)
  --arch FILE             its architecture (default: the file beside the weights; for dit and pipeline
                          arch.json or gallop.yaml in their folder or above it, else the published sizes)
  --out FILE              writes the outputs as safetensors under the case's names
  --compare               prints each output's largest error over the largest expected magnitude, and
                          the relative L2 error
  --tolerance X           with --compare: exit code 1 when a largest error exceeds X
  --backend cpu|cuda      (default: cpu)
  --threads N             CPU threads (default: all)
  --precision fp32|bf16|fp8
                          fp32 throughout, the published casts, or these with products in E4M3
                          (dit, pipeline, text; default: fp32)
  --fp8-linears LIST      which linears of a transformer (default: qkv,proj,up,down)
  --fp8-layers LAYERS     in which layers: inner, all, or as 1-38 (default: inner, all but the first and
                          the last)
  --tensor-parallel N     splits the transformer over N threads with a backend each (default: 1)
  --json                  prints one JSON object
)";

constexpr const char* make_model_help = R"(gallop make-model ARCH --out DIR [--seed N]

Writes a complete model folder in the published layout with random weights: every network of the
architecture file ARCH, e.g. configs/models/tiny.yaml. The same architecture and seed give the same bytes.

  --out DIR               must be absent or empty
  --seed N                (default: 1)

Prints the folder.
)";

/// Runs the probe as a group of threads, each a member with a backend of its own; what the first
/// member finds.
std::vector<ProbeDifference> probe_shared(const ProbeRequest& request, const Values& values) {
    const int size = values["tensor-parallel"].as<int>();
    if (size < 1 || size > 8) throw_input_error("--tensor-parallel is {} (1 to 8)", size);
    if (size == 1) return run_probe(request, *make_backend(values));
    auto seats = make_thread_group(size, std::chrono::minutes(10));
    std::vector<std::future<std::vector<ProbeDifference>>> members;
    for (std::unique_ptr<Group>& seat : seats)
        members.push_back(std::async(std::launch::async, [&, host = std::move(seat)]() mutable {
            const std::unique_ptr<Backend> backend = make_backend(values);
            const std::unique_ptr<Group> group = backend->device() == Device::cpu
                                                     ? std::move(host)
                                                     : make_staged_group(std::move(host), *backend);
            ProbeRequest own = request;
            own.group = group.get();
            return run_probe(own, *backend);
        }));
    // A member that fails leaves the group, and the others fail with GroupError: its own error is
    // the one worth telling.
    std::vector<ProbeDifference> first;
    std::exception_ptr failure;
    bool found = false;
    for (std::size_t rank = 0; rank < members.size(); ++rank) {
        try {
            auto differences = members[rank].get();
            if (rank == 0) first = std::move(differences);
        } catch (const GroupError&) {
            if (!failure) failure = std::current_exception();
        } catch (...) {
            if (!found) failure = std::current_exception();
            found = true;
        }
    }
    if (failure) std::rethrow_exception(failure);
    return first;
}

int probe(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("case", po::value<std::string>())("weights", po::value<std::string>())(
        "arch", po::value<std::string>())("out", po::value<std::string>())("compare", "")(
        "tolerance", po::value<double>())("precision",
                                          po::value<std::string>()->default_value("fp32"))(
        "tensor-parallel", po::value<int>()->default_value(1))("json", "")(
        "fp8-linears", po::value<std::string>())("fp8-layers", po::value<std::string>());
    add_backend_options(options);
    const Values values = parse("probe", arguments, options, {"COMPONENT"});
    if (!values.contains("case"))
        throw_input_error("gallop probe: --case is missing (the golden case to run)");
    if (values.contains("tolerance") && !values.contains("compare"))
        throw_input_error("gallop probe: --tolerance has no use without --compare");
    if (!values.contains("out") && !values.contains("compare"))
        throw_input_error("gallop probe: nothing to do (needs --out, --compare or both)");
    ProbeRequest request;
    request.component = text_of(values, "COMPONENT");
    request.weights = text_of(values, "weights");
    request.arch = text_of(values, "arch");
    request.input = text_of(values, "case");
    request.output = text_of(values, "out");
    request.precision = precision_of(text_of(values, "precision"));
    for (const char* option : {"fp8-linears", "fp8-layers"})
        if (values.contains(option) && request.precision != Precision::fp8)
            throw_input_error("gallop probe: --{} has no use without --precision fp8", option);
    if (values.contains("fp8-linears"))
        request.fp8.linears = words_of(text_of(values, "fp8-linears"));
    if (values.contains("fp8-layers")) request.fp8.layers = text_of(values, "fp8-layers");
    request.compare = values.contains("compare");
    const std::vector<ProbeDifference> differences = probe_shared(request, values);

    // NaN is beyond every tolerance.
    const double tolerance = values.contains("tolerance") ? values["tolerance"].as<double>() : 0;
    const bool within =
        !values.contains("tolerance") ||
        std::all_of(differences.begin(), differences.end(),
                    [&](const ProbeDifference& one) { return one.largest_error <= tolerance; });
    if (values.contains("json")) {
        Json outputs = Json::array();
        for (const ProbeDifference& one : differences)
            outputs.push_back({{"name", one.name},
                               {"expected", one.expected},
                               {"largest_error", one.largest_error},
                               {"relative_l2", one.relative_l2}});
        const Json all = {{"component", request.component},
                          {"case", request.input.string()},
                          {"within", within},
                          {"outputs", outputs}};
        fmt::print("{}\n", all.dump(2, ' ', false, Json::error_handler_t::replace));
    } else {
        for (const ProbeDifference& one : differences)
            fmt::print("{:<20} against {:<20} largest {:.3e}  relative L2 {:.3e}\n", one.name,
                       one.expected, one.largest_error, one.relative_l2);
        if (!within) fmt::print("beyond the tolerance of {:.3e}\n", tolerance);
    }
    return within ? done : internal_error;
}

int make_model_folder(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("out", po::value<std::string>())(
        "seed", po::value<std::uint64_t>()->default_value(1));
    const Values values = parse("make-model", arguments, options, {"ARCH"});
    if (!values.contains("out"))
        throw_input_error("gallop make-model: --out is missing (the folder to write)");
    make_model(text_of(values, "ARCH"), text_of(values, "out"), values["seed"].as<std::uint64_t>());
    fmt::print("{}\n", text_of(values, "out"));
    return done;
}

}  // namespace

const Command make_model_command = {"make-model", make_model_help, make_model_folder};
const Command probe_command = {"probe", probe_help, probe};

}  // namespace gallop::cli
