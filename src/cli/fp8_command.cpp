#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/expand.hpp"
#include "farm/terminal.hpp"
#include "farm/time_text.hpp"
#include "pipeline/fp8_advice.hpp"

namespace gallop::cli {
namespace {

using Json = nlohmann::json;

constexpr const char* help = R"(gallop fp8 MODEL [options]

Measures what E4M3 costs a model's forwards, linear by linear, and prints the model.fp8 for a manifest that
keeps every forward measured within a relative L2, with as much work in E4M3 as it finds. It renders a few short
clips in bf16, keeps what the network is shown at the first, the middle and the last step (with and without the
prompt where there is guidance), and compares velocities, the worst of picture and sound.

  --within X              relative L2 that no forward may exceed (default: 0.02)
  --variant LIST          transformers of the folder for which one choice is to hold, as base,540p_sr
                          (default: base)
  --prompt TEXT           what to render; may stand several times (default: two of ours)
  --size WxH              of the base stage, multiples of 32 (default: 448x256); a second stage has twice that
  --seconds X             (default: 2)
  --seed N                of the first prompt, the next has the next (default: 42)
  --steps LIST            which steps' forwards count (default: first,middle,last). At the last one a velocity may
                          be so small that bf16 itself is that far off fp32: --against fp32 tells
  --against bf16|fp32     what a forward is compared with (default: bf16); fp32 needs room for its weights
  --arch FILE             architecture file (default: the folder's own, else the 15B)
  --backend cpu|cuda      (default: cpu)
  --threads N             CPU threads (default: all)
  --json                  prints one JSON object

Prints YAML: the measurements as comments, then `model:`. Where nothing holds it says so, with precision bf16. The
device holds one network in bf16, and half as much again while all of it is on trial; on a CPU the
15B takes days.
)";

/// A live line on a terminal, else a log line every 30 s.
class Line {
public:
    ~Line() {
        if (!shown_) return;
        fmt::print(stderr, "\r\x1b[K");
        std::fflush(stderr);
    }
    Line() = default;
    Line(const Line&) = delete;
    Line& operator=(const Line&) = delete;

    void show(const Fp8Progress& at) {
        const double now = seconds_now();
        if (at.total > 0 && at.done <= 1) began_ = now;
        if (now - last_ < (terminal_ ? 0.25 : 30.0)) return;
        last_ = now;
        std::string text = at.what;
        if (at.done > 1)
            text = fmt::format("[{}/{}] {}, eta {}", at.done, at.total, at.what,
                               clock_text((now - began_) / static_cast<double>(at.done - 1) *
                                          static_cast<double>(at.total - at.done)));
        if (!terminal_) return log_info("{}", text);
        fmt::print(stderr, "\r\x1b[K{}\r", fit(text, terminal_columns(2) - 1));
        std::fflush(stderr);
        shown_ = true;
    }

private:
    bool terminal_ = ::isatty(2) == 1;
    bool shown_ = false;
    double last_ = -1e9;
    double began_ = 0;  ///< when the first forward of a network was done
};

/// "448x256". Throws InputError.
Size size_of(const std::string& text) {
    Size size;
    int end = 0;
    if (std::sscanf(text.c_str(), "%5dx%5d%n", &size.width, &size.height, &end) != 2 ||
        static_cast<std::size_t>(end) != text.size() || size.width < 32 || size.height < 32 ||
        size.width % 32 != 0 || size.height % 32 != 0)
        throw_input_error("--size is \"{}\" (WIDTHxHEIGHT, multiples of 32)", text);
    return size;
}

Fp8Question question_of(const Values& values) {
    Fp8Question asked;
    asked.model = text_of(values, "MODEL");
    asked.arch = text_of(values, "arch");
    asked.variants = words_of(text_of(values, "variant"));
    asked.prompts = texts_of(values, "prompt");
    if (asked.prompts.empty())
        asked.prompts = {"A barista says good morning, cups clink",
                         "Waves roll onto a beach at dusk, gulls cry"};
    asked.negative_prompt = shipped_negative_prompt();
    asked.seed = values["seed"].as<std::uint64_t>();
    asked.size = size_of(text_of(values, "size"));
    const double seconds = values["seconds"].as<double>();
    if (!(seconds > 0 && seconds <= 60))
        throw_input_error("--seconds is {} (more than 0, at most 60)", seconds);
    asked.audio_latents = static_cast<int>(std::lround(25 * seconds)) + 1;
    asked.within = values["within"].as<double>();
    if (!(asked.within > 0))
        throw_input_error("--within is {} (more than 0, as 0.02)", asked.within);
    asked.steps = words_of(text_of(values, "steps"));
    const std::string against = text_of(values, "against");
    if (against != "bf16" && against != "fp32")
        throw_input_error("--against is \"{}\" (bf16, fp32)", against);
    asked.against = precision_of(against);
    for (const std::string& prompt : asked.prompts)
        if (prompt.empty()) throw_input_error("--prompt is empty (a text to render)");
    return asked;
}

bool chosen(const Fp8Advice& advice, std::size_t part) {
    return std::binary_search(advice.chosen.begin(), advice.chosen.end(), part);
}

double work_of(const Fp8Advice& advice) {
    return std::accumulate(advice.chosen.begin(), advice.chosen.end(), 0.0,
                           [&](double sum, std::size_t part) { return sum + advice.work[part]; });
}

std::size_t bytes_of(const Fp8Advice& advice) {
    return std::accumulate(
        advice.chosen.begin(), advice.chosen.end(), std::size_t{0},
        [&](std::size_t sum, std::size_t part) { return sum + advice.bytes[part]; });
}

std::string place_text(const Fp8Place& place) {
    return fmt::format("step {} of {}, {}", place.step + 1, place.steps,
                       place.prompt.empty() ? "the negative prompt"
                                            : fmt::format("\"{}\"", fit(place.prompt, 40)));
}

/// The choice as a map in YAML's flow style.
std::string yaml_of(const Fp8Choice& choice) {
    if (choice.qkv.empty())
        return fmt::format("{{linears: [{}], layers: \"{}\"}}", fmt::join(choice.linears, ", "),
                           choice.layers);
    return fmt::format("{{qkv: \"{}\", proj: \"{}\", up: \"{}\", down: \"{}\"}}", choice.qkv,
                       choice.proj, choice.up, choice.down);
}

void print_network(const Fp8Advice& advice, const Fp8Network& network, const Fp8Question& asked) {
    const std::size_t linears = fp8_linears().size();
    fmt::print("# {}: relative L2 to {} of a forward with one linear in E4M3; * chosen\n",
               network.variant, asked.against == Precision::bf16 ? "bf16" : "fp32");
    fmt::print("#   layer");
    for (const std::string& linear : fp8_linears()) fmt::print(" {:>10}", linear);
    fmt::print("\n");
    for (std::size_t part = 0; part < advice.parts.size(); ++part) {
        if (part % linears == 0) fmt::print("#   {:5}", advice.parts[part].layer);
        const double error = network.alone[part];
        fmt::print(" {:>9}{}", std::isnan(error) ? "-" : fmt::format("{:.1e}", error),
                   chosen(advice, part) ? '*' : ' ');
        if (part % linears + 1 == linears) fmt::print("\n");
    }
    const auto worst = std::max_element(
        network.errors.begin(), network.errors.end(),
        [](const Fp8Error& a, const Fp8Error& b) { return a.worst() < b.worst(); });
    const auto at = static_cast<std::size_t>(worst - network.errors.begin());
    fmt::print(
        "# {}, of {} forwards the worst, with what is chosen: picture {:.2e}, sound {:.2e} ({})\n",
        network.variant, network.errors.size(), worst->picture, worst->sound,
        place_text(network.places[at]));
}

void print_yaml(const Fp8Advice& advice, const Fp8Question& asked) {
    for (const Fp8Network& network : advice.networks) print_network(advice, network, asked);
    if (advice.chosen.empty()) {
        fmt::print("# nothing stays within {}\nmodel:\n  precision: bf16\n", asked.within);
        return;
    }
    fmt::print("# within {}: {:.0f} % of the linears' work in E4M3, weights smaller by {}\n",
               asked.within, 100 * work_of(advice),
               bytes_text(static_cast<double>(bytes_of(advice))));
    fmt::print("model:\n  precision: fp8\n  fp8: {}\n", yaml_of(advice.choice));
}

/// JSON knows no infinity.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json json_of(const Fp8Advice& advice, const Fp8Question& asked) {
    Json parts = Json::array();
    for (std::size_t part = 0; part < advice.parts.size(); ++part)
        parts.push_back({{"layer", advice.parts[part].layer},
                         {"linear", advice.parts[part].linear},
                         {"work", advice.work[part]},
                         {"bytes_saved", advice.bytes[part]},
                         {"chosen", chosen(advice, part)}});
    Json networks = Json::array();
    for (const Fp8Network& network : advice.networks) {
        Json alone = Json::array();
        for (const double error : network.alone) alone.push_back(number(error));
        Json forwards = Json::array();
        for (std::size_t i = 0; i < network.places.size(); ++i)
            forwards.push_back({{"prompt", network.places[i].prompt},
                                {"step", network.places[i].step},
                                {"steps", network.places[i].steps},
                                {"picture", number(network.errors[i].picture)},
                                {"sound", number(network.errors[i].sound)}});
        networks.push_back(
            {{"variant", network.variant}, {"alone", alone}, {"forwards", forwards}});
    }
    Json choice = nullptr;
    if (!advice.chosen.empty()) {
        const Fp8Choice& c = advice.choice;
        if (c.qkv.empty())
            choice = {{"linears", c.linears}, {"layers", c.layers}};
        else
            choice = {{"qkv", c.qkv}, {"proj", c.proj}, {"up", c.up}, {"down", c.down}};
    }
    return {
        {"within", asked.within},  {"against", asked.against == Precision::bf16 ? "bf16" : "fp32"},
        {"fp8", choice},           {"error", number(advice.error)},
        {"work", work_of(advice)}, {"bytes_saved", bytes_of(advice)},
        {"parts", parts},          {"networks", networks}};
}

int run(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("within", po::value<double>()->default_value(0.02))(
        "variant", po::value<std::string>()->default_value("base"))(
        "prompt", po::value<std::vector<std::string>>())(
        "size", po::value<std::string>()->default_value("448x256"))(
        "seconds", po::value<double>()->default_value(2))(
        "seed", po::value<std::uint64_t>()->default_value(42))(
        "steps", po::value<std::string>()->default_value("first,middle,last"))(
        "against", po::value<std::string>()->default_value("bf16"))(
        "arch", po::value<std::string>())("json", "");
    add_backend_options(options);
    const Values values = parse("fp8", arguments, options, {"MODEL"});
    const Fp8Question asked = question_of(values);
    const std::unique_ptr<Backend> backend = make_backend(values);
    const Fp8Advice advice = [&] {
        Line line;
        return advise_fp8(asked, *backend, [&](const Fp8Progress& at) { line.show(at); });
    }();
    if (values.contains("json"))
        fmt::print("{}\n",
                   json_of(advice, asked).dump(2, ' ', false, Json::error_handler_t::replace));
    else
        print_yaml(advice, asked);
    return done;
}

}  // namespace

const Command fp8_command = {"fp8", help, run};

}  // namespace gallop::cli
