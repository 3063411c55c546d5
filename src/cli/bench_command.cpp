#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/files.hpp"
#include "core/handle.hpp"
#include "ops/threads.hpp"
#include "pipeline/bench.hpp"

namespace gallop::cli {
namespace {

constexpr const char* help = R"(gallop bench cpu [options]

Times one forward of the transformer (89 million parameters, 1,000 tokens, fp32) on the CPU, side by side
with the same network in PyTorch where a Python with torch can be found.

  --threads N      threads of both (default: all that this process may use)
  --repeats N      forwards of each in a round (default 5); the order is ours, PyTorch, PyTorch, ours
  --python PATH    the Python to ask for torch (default python3)
  --json           the figures as JSON
)";

using Pipe = Handle<std::FILE*, ::pclose, nullptr>;

struct Torch {
    std::string version;
    std::vector<double> seconds;
};

std::string quoted(const std::string& text) {
    std::string made = "'";
    for (const char c : text) made += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return made + "'";
}

nlohmann::json network_json(const TransformerConfig& c, const SequenceShape& s) {
    return {{"transformer",
             {{"num_layers", c.num_layers},
              {"hidden_size", c.hidden_size},
              {"head_dim", c.head_dim},
              {"num_query_groups", c.num_query_groups},
              {"video_in_channels", c.video_in_channels},
              {"audio_in_channels", c.audio_in_channels},
              {"text_in_channels", c.text_in_channels},
              {"mm_layers", c.mm_layers},
              {"gelu7_layers", c.gelu7_layers}}},
            {"sequence",
             {{"frames", s.frames},
              {"rows", s.rows},
              {"columns", s.columns},
              {"audio", s.audio},
              {"text", s.text}}}};
}

/// One round of PyTorch; nothing when that Python has no torch.
std::optional<Torch> run_torch(const std::string& python, int threads, int repeats,
                               const std::filesystem::path& network) {
    const std::string command =
        fmt::format("OMP_NUM_THREADS={} {} {} {} {} < {}", threads, quoted(python),
                    quoted(GALLOP_EXAMPLES "/bench-cpu/dit_torch.py"), threads, repeats,
                    quoted(network.string()));
    Pipe pipe(::popen(command.c_str(), "r"));
    if (!pipe) throw Error("cannot start " + python);
    std::string text;
    std::array<char, 4096> buffer{};
    while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe.get()))
        text.append(buffer.data(), got);
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_discarded()) return std::nullopt;
    return Torch{json.at("version"), json.at("seconds")};
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

int run(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("threads", po::value<int>())("repeats",
                                                       po::value<int>()->default_value(5))(
        "python", po::value<std::string>()->default_value("python3"))("json", po::bool_switch());
    const Values values = parse("bench", arguments, std::move(options), {"what"});
    if (text_of(values, "what") != "cpu")
        throw_input_error("gallop bench: unknown bench \"{}\" (cpu)", text_of(values, "what"));
    const int repeats = values["repeats"].as<int>();
    if (repeats < 1) throw_input_error("gallop bench: --repeats {} (at least 1)", repeats);
    const int threads = values.count("threads") != 0 ? values["threads"].as<int>() : 0;
    if (threads < 0) throw_input_error("gallop bench: --threads {} (at least 1)", threads);
    const auto backend = make_cpu_backend(threads);
    const int used = cpu_threads();

    const TransformerConfig config = bench_transformer();
    const SequenceShape shape = bench_sequence();
    const std::filesystem::path network =
        std::filesystem::temp_directory_path() / fmt::format("gallop-bench-{}.json", ::getpid());
    write_atomically(network, network_json(config, shape).dump());
    ForwardTiming ours = time_forward(config, shape, Precision::fp32, repeats, *backend);
    std::optional<Torch> torch;
    for (int round = 0; round < 2; ++round) {
        auto once = run_torch(values["python"].as<std::string>(), used, repeats, network);
        if (!once) break;
        if (!torch) torch.emplace(Torch{once->version, {}});
        torch->seconds.insert(torch->seconds.end(), once->seconds.begin(), once->seconds.end());
    }
    std::filesystem::remove(network);
    const ForwardTiming again = time_forward(config, shape, Precision::fp32, repeats, *backend);
    ours.seconds.insert(ours.seconds.end(), again.seconds.begin(), again.seconds.end());

    const double our_median = median(ours.seconds);
    if (values["json"].as<bool>()) {
        nlohmann::json json{{"threads", used},
                            {"parameters", ours.parameters},
                            {"tokens", ours.tokens},
                            {"gflop", ours.gflop},
                            {"gallop", {{"version", GALLOP_VERSION}, {"seconds", ours.seconds}}}};
        if (torch) json["torch"] = {{"version", torch->version}, {"seconds", torch->seconds}};
        fmt::print("{}\n", json.dump());
        return done;
    }
    fmt::print("One forward, fp32: {:.1f} M parameters, {} tokens, {:.1f} GFLOP, {} threads\n\n",
               static_cast<double>(ours.parameters) * 1e-6, ours.tokens, ours.gflop, used);
    fmt::print("| engine | median s | fastest s | slowest s | GFLOP/s | ratio |\n");
    fmt::print("| --- | ---: | ---: | ---: | ---: | ---: |\n");
    const auto row = [&](const std::string& name, const std::vector<double>& seconds) {
        const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
        fmt::print("| {} | {:.3f} | {:.3f} | {:.3f} | {:.1f} | {:.2f} |\n", name, median(seconds),
                   *least, *most, ours.gflop / median(seconds), median(seconds) / our_median);
    };
    row("Gallop " GALLOP_VERSION, ours.seconds);
    if (torch)
        row("PyTorch " + torch->version, torch->seconds);
    else
        fmt::print("\n{} has no torch: PyTorch was not timed (give one with --python)\n",
                   values["python"].as<std::string>());
    return done;
}

}  // namespace

const Command bench_command{"bench", help, run};

}  // namespace gallop::cli
