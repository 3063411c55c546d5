// The engine's own numbers, without files: random weights at the published shapes, drawn where they are
// used. One measurement a process; run.sh asks for many. Each line on stdout is a JSON object, the last one whole,
// those before it what was known by then.
//
//   gpu_bench about   [options]               the device and the libraries
//   gpu_bench ops     [options]               copy, matrix products, attention, convolution: ops alone
//   gpu_bench forward --case 256p [options]   one forward of the transformer
//   gpu_bench text    --case 256p [options]   the text encoder, 400 tokens
//   gpu_bench decode  --case 256p [options]   the picture decoder (--decoder turbo|wan, --strips N)
//   gpu_bench clip    --case 256p [options]   tokens to an MP4 (where the build has FFmpeg), stage by stage
//   gpu_bench golden  --folder DIR [options]  the golden files: component, case, errors
//
// Options: --backend cpu|cuda, --precision fp32|bf16|fp8, --repeats N, --threads N. Exit code 2: the request
// is wrong, or there is no such device here.

#include "pipeline/bench.hpp"

#include <array>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/device_error.hpp"
#include "core/memory_use.hpp"
#include "gpu/clip_files.hpp"
#include "model/fp8.hpp"
#include "pipeline/probe.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;
using Options = std::map<std::string, std::string>;

Options read_options(int argc, char** argv) {
    Options options{{"backend", "cuda"},  {"case", "256p"}, {"precision", "bf16"}, {"repeats", "3"},
                    {"decoder", "turbo"}, {"strips", "1"},  {"threads", "0"},      {"folder", ""}};
    for (int i = 2; i < argc; i += 2) {
        const std::string name = argv[i];
        if (!name.starts_with("--") || !options.contains(name.substr(2)) || i + 1 == argc)
            throw_input_error("{} is no option, or has no value", name);
        options[name.substr(2)] = argv[i + 1];
    }
    return options;
}

int number(const Options& options, const std::string& name) {
    try {
        return std::stoi(options.at(name));
    } catch (const std::exception&) {
        throw_input_error("--{} is \"{}\" (a number)", name, options.at(name));
    }
}

Precision precision_of(const Options& options) {
    const std::string& text = options.at("precision");
    if (text == "fp8") return Precision::fp8;
    if (text == "bf16") return Precision::bf16;
    if (text == "fp32") return Precision::fp32;
    throw_input_error("--precision is \"{}\" (fp32, bf16, fp8)", text);
}

/// Seconds of one `work`, of as many in a row as take a fifth of a second.
double seconds_each(Backend& on, const std::function<void()>& work) {
    using Clock = std::chrono::steady_clock;
    work();
    on.synchronize();
    for (int count = 1;; count *= 4) {
        const auto begin = Clock::now();
        for (int i = 0; i < count; ++i) work();
        on.synchronize();
        const double spent = std::chrono::duration<double>(Clock::now() - begin).count();
        if (spent > 0.2 || count >= 4096) return spent / count;
    }
}

Tensor noise(std::string_view name, const Shape& shape, DType dtype, Backend& on) {
    Tensor wide = on.empty(shape);
    on.normal(NoiseStream(1, name), 0, wide);
    if (dtype == DType::f32) return wide;
    Tensor made = on.empty(shape, dtype);
    on.copy(wide, made);
    return made;
}

/// Takes what is known so far.
using Progress = std::function<void(const Json&)>;

/// A list of rows, of which each new one is told.
class Rows {
public:
    explicit Rows(const Progress& progress) : progress_(progress) {}
    void push_back(Json row) {
        all_.push_back(std::move(row));
        progress_({{"rows", all_}});
    }
    const Json& all() const { return all_; }

private:
    const Progress& progress_;
    Json all_ = Json::array();
};

/// Each op by itself, at the shapes that the networks give it.
Json ops(const Options& options, Backend& on, const Progress& progress) {
    const DType dtype = compute_dtype(precision_of(options));
    const bool tiny = options.at("case") == "tiny";
    Rows rows(progress);
    {
        const Tensor x = on.empty({tiny ? 1 << 20 : 1 << 28});
        Tensor y = on.empty(x.shape());
        const double seconds = seconds_each(on, [&] { on.copy(x, y); });
        rows.push_back({{"op", "copy"},
                        {"seconds", seconds},
                        {"gb_per_second", 2e-9 * static_cast<double>(x.bytes()) / seconds}});
    }
    struct Product {
        const char* name;
        Index out, depth;
    };
    const std::vector<Product> products =
        tiny
            ? std::vector<Product>{{"qkv", 360, 256}, {"down", 256, 683}, {"down padded", 256, 688}}
            : std::vector<Product>{{"qkv", 7208, 5120},   {"proj", 5120, 5120},
                                   {"up", 27304, 5120},   {"up padded", 27392, 5120},
                                   {"down", 5120, 13652}, {"down padded", 5120, 13696}};
    for (const Index tokens :
         tiny ? std::vector<Index>{34} : std::vector<Index>{4110, 14862, 65806})
        for (const Product& p : products) {
            const Tensor x = noise("x", {tokens, p.depth}, dtype, on);
            const Tensor w = noise("w", {p.out, p.depth}, dtype, on);
            Tensor y = on.empty({tokens, p.out}, dtype);
            const double seconds = seconds_each(on, [&] { on.linear(x, w, {}, y); });
            const double flop = 2.0 * static_cast<double>(tokens) * static_cast<double>(p.out) *
                                static_cast<double>(p.depth);
            rows.push_back({{"op", fmt::format("linear {}", p.name)},
                            {"tokens", tokens},
                            {"seconds", seconds},
                            {"tflop_per_second", 1e-12 * flop / seconds}});
            if (p.out % 16 != 0 || p.depth % 16 != 0) continue;  // what E4M3 needs on the GPU
            Weights low;
            put_fp8(low, "w", w, on);
            const std::array<Index, 1> all{tokens};
            const double with_rows = seconds_each(on, [&] { multiply(x, low, "w", all, y, on); });
            rows.push_back(
                {{"op", fmt::format("linear fp8 {}", p.name)},  // rows quantised on the way
                 {"tokens", tokens},
                 {"seconds", with_rows},
                 {"tflop_per_second", 1e-12 * flop / with_rows}});
        }
    const Index heads = tiny ? 4 : 40;
    const Index groups = tiny ? 2 : 8;
    for (const Index tokens :
         tiny ? std::vector<Index>{34} : std::vector<Index>{4110, 14862, 65806}) {
        const Tensor q = noise("q", {tokens, heads, 128}, dtype, on);
        const Tensor k = noise("k", {tokens, groups, 128}, dtype, on);
        Tensor y = on.empty(q.shape(), dtype);
        const double seconds = seconds_each(on, [&] { on.attention(q, k, k, {}, 0.088F, 0, y); });
        const double flop = 4.0 * static_cast<double>(tokens * tokens * heads * 128);
        rows.push_back({{"op", "attention"},
                        {"tokens", tokens},
                        {"seconds", seconds},
                        {"tflop_per_second", 1e-12 * flop / seconds}});
    }
    struct Picture {
        Index frames, rows, columns, channels;
    };
    for (const Picture& p : tiny ? std::vector<Picture>{{3, 8, 8, 16}}
                                 : std::vector<Picture>{{11, 32, 56, 512},
                                                        {20, 64, 112, 512},
                                                        {38, 128, 224, 256},
                                                        {38, 128, 224, 128},
                                                        {38, 128, 224, 64}}) {
        const Tensor x = noise("x", {p.frames, p.rows, p.columns, p.channels}, dtype, on);
        const Tensor kernel = noise("kernel", {p.channels, p.channels, 3, 3, 3}, DType::f32, on);
        const Tensor prepared = on.prepare_conv(on.download(kernel), dtype);
        Tensor y = on.empty({p.frames - 2, p.rows, p.columns, p.channels}, dtype);
        const ConvSpec spec{.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}};
        const double seconds = seconds_each(on, [&] { on.conv(x, prepared, {}, spec, y); });
        const double flop = 2.0 * 27 * static_cast<double>(y.numel() * p.channels);
        rows.push_back({{"op", fmt::format("conv3d {} channels", p.channels)},
                        {"pixels", (p.frames - 2) * p.rows * p.columns},
                        {"seconds", seconds},
                        {"tflop_per_second", 1e-12 * flop / seconds}});
    }
    return {{"rows", rows.all()}};
}

/// Every golden file, on this backend. The tolerances are those of the CPU times what a device's own
/// sums and functions may add.
Json golden(const Options& options, Backend& on, const Progress& progress) {
    const std::filesystem::path folder = options.at("folder");
    struct Entry {
        const char* component;
        const char* weights;
        const char* arch;
        const char* cases;
        double tolerance;
        Precision precision = Precision::fp32;
    };
    static constexpr Entry entries[] = {
        {"dit", "dit-tiny/checkpoint", "dit-tiny/arch.json", "dit-tiny", 1e-4},
        // One f32 value that rounds to bf16's other neighbour turns others behind it.
        {"dit", "dit-tiny/checkpoint", "dit-tiny/arch.json", "dit-tiny", 2e-2, Precision::bf16},
        {"turbo-vae", "turbo-vae-tiny/turbo_vae.safetensors", "", "turbo-vae-tiny/decode", 1e-4},
        {"wan-vae-encode", "wan-vae-tiny/Wan2.2_VAE.safetensors", "", "wan-vae-tiny/encode", 1e-4},
        {"wan-vae-decode", "wan-vae-tiny/Wan2.2_VAE.safetensors", "", "wan-vae-tiny/decode", 1e-4},
        {"audio-vae-encode", "audio-vae-tiny/model.safetensors", "", "audio-vae-tiny/case", 2e-3},
        {"audio-vae-encode", "audio-vae-tiny/model.safetensors", "", "audio-vae-tiny/encode", 2e-3},
        {"audio-vae-decode", "audio-vae-tiny/model.safetensors", "", "audio-vae-tiny/case", 2e-3},
        {"text", "text/checkpoint", "", "text/fp32", 1e-4},
        {"text", "text/checkpoint", "", "text/bf16", 2e-2, Precision::bf16},
        {"unipc", "", "", "sampler/unipc", 1e-5},
        {"renoise", "", "", "sampler/renoise", 1e-5},
        {"renoise", "", "", "sampler/sde", 1e-5},
        {"renoise", "", "", "sampler/zero", 1e-5},
        {"pipeline", "dit-tiny/checkpoint", "dit-tiny/arch.json", "pipeline-tiny/base", 1e-4},
        {"pipeline", "dit-tiny/checkpoint", "dit-tiny/arch.json", "pipeline-tiny/distill", 1e-4},
        {"pipeline", "pipeline-tiny/checkpoint-sr", "dit-tiny/arch.json", "pipeline-tiny/sr", 1e-4},
    };
    Rows rows(progress);
    bool agree = true;
    for (const Entry& entry : entries) {
        const std::string prefix = (folder / entry.cases).string();
        std::vector<std::filesystem::path> cases;
        const std::filesystem::path parent = std::filesystem::is_directory(prefix)
                                                 ? std::filesystem::path(prefix)
                                                 : std::filesystem::path(prefix).parent_path();
        for (const auto& file : std::filesystem::directory_iterator(parent))
            if (file.path().string().starts_with(prefix) &&
                file.path().extension() == ".safetensors" &&
                file.path().filename().string().find("half") == std::string::npos)
                cases.push_back(file.path());
        for (const auto& one : cases) {
            Json row{{"component", entry.component},
                     {"case", one.filename().string()},
                     {"dtype", name_of(compute_dtype(entry.precision))}};
            try {
                ProbeRequest request;
                request.component = entry.component;
                if (entry.weights[0] != 0) request.weights = folder / entry.weights;
                if (entry.arch[0] != 0) request.arch = folder / entry.arch;
                request.input = one;
                request.precision = entry.precision;
                request.compare = true;
                double worst = 0;
                double l2 = 0;
                for (const ProbeDifference& d : run_probe(request, on)) {
                    worst = std::max(worst, d.largest_error);
                    l2 = std::max(l2, d.relative_l2);
                }
                row["largest_error"] = worst;
                row["relative_l2"] = l2;
                row["agrees"] = worst <= entry.tolerance;
            } catch (const DeviceError&) {
                throw;
            } catch (const Error& failed) {
                row["agrees"] = false;
                row["error"] = failed.what();
            }
            agree = agree && row["agrees"].get<bool>();
            rows.push_back(std::move(row));
        }
    }
    if (rows.all().empty()) throw_input_error("{}: no golden files", folder.string());
    return {{"rows", rows.all()}, {"agrees", agree}};
}

Json clips_of(const std::vector<ClipTiming>& clips, bool mp4) {
    Json all = Json::array();
    Json memory = Json::object();  // of each stage, bytes
    std::size_t peak = 0;
    std::vector<double> seconds;
    for (const ClipTiming& clip : clips) {
        Json stages = Json::array();  // in order, which an object would not keep
        for (const auto& [stage, spent] : clip.spent.stages)
            stages.push_back(Json::array({stage, spent}));
        for (const auto& [stage, use] : clip.spent.memory) {
            memory[stage] = {{"peak", use.peak},
                             {"foretold", use.foretold},
                             {"extent", use.extent},
                             {"asked", use.asked}};
            peak = std::max(peak, use.peak);
        }
        all.push_back(std::move(stages));
        seconds.push_back(clip.seconds);
    }
    return {{"seconds", seconds},
            {"stages", all},
            {"memory", memory},
            {"peak_bytes", peak},
            {"mp4", mp4}};
}

Json measure(const std::string& what, const Options& options, Backend& on,
             const Progress& progress) {
    if (what == "about") return Json::object();
    if (what == "ops") return ops(options, on, progress);
    if (what == "golden") return golden(options, on, progress);
    const BenchCase of = bench_case(options.at("case"));
    const Precision precision = precision_of(options);
    const DType dtype = compute_dtype(precision);
    const int repeats = number(options, "repeats");
    if (what == "forward") {
        const auto told = [&](const ForwardTiming& t) -> Json {
            return {{"seconds", t.seconds},
                    {"parameters", t.parameters},
                    {"tokens", t.tokens},
                    {"tflop", 1e-3 * t.gflop},
                    {"steps", of.steps}};
        };
        return told(time_forward(of.network, of.sequence, precision, repeats, on,
                                 [&](const ForwardTiming& t) { progress(told(t)); }));
    }
    if (what == "text")
        return {{"seconds", time_text(of, of.sequence.text, dtype, repeats, on)},
                {"tokens", of.sequence.text}};
    if (what == "decode") {
        const VideoDecoder decoder =
            options.at("decoder") == "wan" ? VideoDecoder::wan : VideoDecoder::turbo;
        return {
            {"seconds", time_decode(of, decoder, dtype, number(options, "strips"), repeats, on)},
            {"decoder", options.at("decoder")},
            {"strips", number(options, "strips")}};
    }
    if (what == "clip") {
        const ClipFiles files = clip_files();
        const auto told = [&](const std::vector<ClipTiming>& clips) {
            return clips_of(clips, static_cast<bool>(files));
        };
        return told(time_clips(of, precision, repeats, on, files,
                               [&](const auto& clips) { progress(told(clips)); }));
    }
    throw_input_error("gpu_bench {}: unknown (about, ops, forward, text, decode, clip, golden)",
                      what);
}

int run(int argc, char** argv) {
    try {
        if (argc < 2)
            throw_input_error("gpu_bench WHAT [--option value …]; see tests/gpu/README.md");
        const std::string what = argv[1];
        const Options options = read_options(argc, argv);
        const std::string& name = options.at("backend");
        if (name != "cpu" && name != "cuda")
            throw_input_error("--backend is \"{}\" (cpu, cuda)", name);
        const auto on =
            name == "cpu" ? make_cpu_backend(number(options, "threads")) : make_cuda_backend();
        const auto say = [&](Json result) {
            result["what"] = what;
            result["case"] = options.at("case");
            result["backend"] = on->name();
            result["made_of"] = on->made_of();
            result["precision"] = options.at("precision");
            if (const auto* memory = dynamic_cast<CountedMemory*>(&on->memory())) {
                result.emplace("peak_bytes",
                               memory->use().peak);  // unless stages have restarted it
                if (const auto left = memory->left()) result["left_bytes"] = *left;
            }
            fmt::print("{}\n", result.dump());
            std::fflush(stdout);
        };
        const Json result = measure(what, options, *on, say);
        say(result);
        return result.value("agrees", true) ? 0 : 3;
    } catch (const InputError& wrong) {
        fmt::print(stderr, "{}\n", wrong.what());
        return 2;
    } catch (const NoDeviceError& none) {
        fmt::print(stderr, "{}\n", none.what());
        return 2;
    } catch (const DeviceError& lost) {
        fmt::print(stderr, "{}\n", lost.what());
        return device_lost_status;
    } catch (const std::exception& failed) {
        fmt::print(stderr, "{}\n", failed.what());
        return 1;
    }
}

}  // namespace
}  // namespace gallop

int main(int argc, char** argv) { return gallop::run(argc, argv); }
