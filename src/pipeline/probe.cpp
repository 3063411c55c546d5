#include "pipeline/probe.hpp"

#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "model/audio_vae.hpp"
#include "model/checkpoint.hpp"
#include "model/text_encoder.hpp"
#include "model/text_features.hpp"
#include "model/tokenizer.hpp"
#include "model/turbo_vae.hpp"
#include "model/wan_vae.hpp"
#include "pipeline/denoise.hpp"
#include "pipeline/probe_case.hpp"
#include "pipeline/probe_files.hpp"
#include "pipeline/sampler.hpp"

namespace gallop {
namespace {

using Outputs = std::map<std::string, Tensor>;

TransformerConfig transformer_config(const ProbeRequest& request, const ProbeCase& given) {
    TransformerConfig config = asked_transformer(request);
    config.coords_style = coords_style_of(
        given.text("coords_style", config.coords_style == CoordsStyle::v1 ? "v1" : "v2"));
    config.frame_receptive_field =
        given.integer("frame_receptive_field", config.frame_receptive_field);
    config.local_attn_layers = given.list("local_attn_layers", config.local_attn_layers);
    return config;
}

Transformer load_transformer(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    const TransformerConfig config = transformer_config(request, given);
    Group& group = *request.group;
    const DType linears = compute_dtype(request.precision);
    const Shard shard = shard_of(config, group.rank(), group.size(), on.matrix_unit(linears));
    auto specs = sharded_specs(config, linears, shard);
    if (request.precision == Precision::fp8)
        choose_fp8(specs, config.num_layers, request.fp8, "dit");
    group.allow_late(loading_patience);
    return {config, Checkpoint::open(request.weights).load(specs, on), on, group};
}

Outputs probe_dit(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    Transformer model = load_transformer(request, given, on);
    const Tensor video = given.upload("video_latent", on);
    const Tensor audio = given.upload("audio_latent", on);
    const Tensor text = given.upload("text_embedding", on);
    Outputs out;
    const Velocity velocity =
        model.forward({video, audio, text}, [&](Index layer, ConstTensorView x) {
            const std::string name = layer < 0 ? "adapter_out" : fmt::format("layer{}_out", layer);
            if (given.has(name)) out[name] = on.download(x);
        });
    out["out_video"] = on.download(velocity.video);
    out["out_audio"] = on.download(velocity.audio);
    return out;
}

/// Runs a sampler over given velocities; `step(i, velocity, sample)`.
template <class Step>
Tensor sample_steps(const ProbeCase& given, Backend& on, const Step& step) {
    Tensor sample = given.upload("initial", on);
    const Tensor velocities = given.upload("velocities", on);
    Tensor samples(velocities.shape());
    for (Index i = 0; i < velocities.size(0); ++i) {
        step(i, velocities.rows(i, i + 1).reshape(sample.shape()), sample);
        const Tensor host = on.download(sample);
        convert(host, samples.rows(i, i + 1).reshape(sample.shape()));
    }
    return samples;
}

NoiseLevels levels_of(const ProbeCase& given) {
    const int steps = static_cast<int>(given.has("velocities") ? given.shape("velocities")[0] : 0);
    return noise_levels(static_cast<int>(given.integer("steps", steps)),
                        given.number("shift", 5.0));
}

void put_levels(const NoiseLevels& levels, Outputs& out) {
    out["sigmas"] = Tensor::of<float>({static_cast<Index>(levels.sigmas.size())}, levels.sigmas);
    std::vector<std::int64_t> steps(levels.timesteps.begin(), levels.timesteps.end());
    out["timesteps"] = Tensor::of<std::int64_t>({static_cast<Index>(steps.size())}, steps);
}

Outputs probe_unipc(const ProbeRequest& /*request*/, const ProbeCase& given, Backend& on) {
    const NoiseLevels levels = levels_of(given);
    UniPc solver(levels, on);
    Outputs out;
    put_levels(levels, out);
    out["samples"] = sample_steps(
        given, on, [&](Index, ConstTensorView v, TensorView sample) { solver.step(v, sample); });
    return out;
}

/// Re-noising; the stochastic step where the case has angles; the zero-SNR table where it has
/// nothing to step over.
Outputs probe_renoise(const ProbeRequest& /*request*/, const ProbeCase& given, Backend& on) {
    Outputs out;
    if (!given.has("initial")) {
        const std::vector<float> table = zero_snr_table();
        out["sigmas"] = Tensor::of<float>({static_cast<Index>(table.size())}, table);
        return out;
    }
    const NoiseLevels levels = levels_of(given);
    put_levels(levels, out);
    const Tensor noise = given.upload("noise", on);
    std::optional<Tensor> angles;
    if (given.has("noise_theta")) angles = given.read_f32("noise_theta");
    out["samples"] = sample_steps(given, on, [&](Index i, ConstTensorView v, TensorView sample) {
        const ConstTensorView z = noise.rows(i, i + 1).reshape(sample.shape());
        const auto step = static_cast<std::size_t>(i);
        if (angles)
            stochastic_step(levels, step, angles->span<float>()[step], v, z, on, sample);
        else
            renoise_step(levels, step, v, z, on, sample);
    });
    return out;
}

Outputs probe_sr(const ProbeCase& given, Transformer& model, const StageInputs& inputs,
                 Backend& on) {
    const SrSampling defaults;
    const SrSampling sampling{
        .steps = static_cast<int>(given.integer("steps", defaults.steps)),
        .passes = static_cast<int>(given.integer("sr_cfg_number", defaults.passes)),
        .shift = given.number("shift", defaults.shift),
        .guidance = given.number("sr_video_txt_guidance_scale", defaults.guidance),
        .trick_frames =
            static_cast<int>(given.integer("cfg_trick_start_frame", defaults.trick_frames)),
        .trick_guidance = given.number("cfg_trick_value", defaults.trick_guidance),
        .noise_value = static_cast<int>(given.integer("noise_value", defaults.noise_value)),
        .audio_noise = given.number("sr_audio_noise_scale", defaults.audio_noise)};
    const Tensor base_video = given.upload("video_noise", on);
    const Tensor base_audio = given.upload("audio_noise", on);
    const Tensor video_noise = given.upload("sr_noise", on);
    const Tensor audio_noise = given.upload("sr_audio_noise", on);
    SrStart start = start_sr(sampling, base_video, base_audio, video_noise, audio_noise, on);
    Outputs out;
    out["upsampled"] = on.download(start.upsampled);
    out["sr_initial"] = on.download(start.video);
    out["sr_audio_in"] = on.download(start.audio);
    denoise_sr(model, sampling, inputs, on, start);
    out["out_video"] = on.download(start.video);
    out["out_audio"] = on.download(start.audio);
    return out;
}

/// The image of super-resolution: the tensor of that name, or the image of that size.
std::string sr_image_of(const ProbeCase& given) {
    if (given.has("sr_image_latent")) return "sr_image_latent";
    const Shape& noise = given.shape("sr_noise");
    if (noise.rank() != 4)
        throw_input_error("{}: sr_noise of shape {} (channels, frames, rows, columns)",
                          given.path().string(), to_string(noise));
    const Shape wanted{noise[0], 1, noise[2], noise[3]};
    for (const StoredTensor& tensor : given.tensors())
        if (tensor.name.find("image") != std::string::npos && tensor.shape == wanted)
            return tensor.name;
    throw_input_error(
        "{}: no image for super-resolution (sr_image_latent, or an image of shape {})",
        given.path().string(), to_string(wanted));
}

Outputs probe_pipeline(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    Transformer model = load_transformer(request, given, on);
    const bool sr = given.has("sr_noise");
    const Tensor text = given.upload("text_embedding", on);
    Tensor negative;
    if (given.has("negative_embedding")) negative = given.upload("negative_embedding", on);
    Tensor image;
    if (given.flag("use_image", false))
        image = given.upload(sr ? sr_image_of(given) : "image_latent", on);
    StageInputs inputs{text, negative, image, given.flag("is_a2v", false)};
    if (sr) return probe_sr(given, model, inputs, on);

    const BaseSampling defaults;
    const BaseSampling sampling{
        .steps = static_cast<int>(given.integer("steps", defaults.steps)),
        .passes = static_cast<int>(given.integer("cfg_number", defaults.passes)),
        .shift = given.number("shift", defaults.shift),
        .guidance = given.number("video_txt_guidance_scale", defaults.guidance),
        .audio_guidance = given.number("audio_txt_guidance_scale", defaults.audio_guidance)};
    Tensor video = given.upload("video_noise", on);
    Tensor audio = given.upload("audio_noise", on);
    Tensor fresh_video, fresh_audio;
    if (sampling.passes == 1) {
        fresh_video = given.upload("renoise_video", on);
        if (!inputs.audio_fixed) fresh_audio = given.upload("renoise_audio", on);
    }
    const StepNoise noise = [&](std::string_view modality, int step, TensorView out) {
        const Tensor& all = modality == "video" ? fresh_video : fresh_audio;
        on.copy(all.rows(step, step + 1).reshape(out.shape()), out);
    };
    denoise_base(model, sampling, inputs, noise, on, video, audio);
    Outputs out;
    out["out_video"] = on.download(video);
    out["out_audio"] = on.download(audio);
    return out;
}

DType compute_of(const ProbeRequest& request) { return compute_dtype(request.precision); }

/// Pictures [F, Y, X, 3] as the cases have them, [3, F, Y, X].
Tensor to_planes(ConstTensorView pictures, Backend& on) {
    const Shape& s = pictures.shape();
    Tensor planes = on.empty({s[3], s[0], s[1], s[2]}, pictures.dtype());
    on.permute(pictures, s, std::array{3, 0, 1, 2}, planes);
    return planes;
}

/// What a decoder hands out, joined: [3, F, Y, X] f32 on the host. `decode(sink)` runs it.
template <class Decode>
Tensor joined_pictures(Backend& on, const Decode& decode) {
    std::vector<Tensor> chunks;
    Index frames = 0;
    decode([&](ConstTensorView pictures) {
        Tensor wide = on.empty(pictures.shape());
        on.copy(pictures, wide);
        chunks.push_back(std::move(wide));
        frames += pictures.size(0);
    });
    CHECK(!chunks.empty(), "the decoder gave no pictures");
    const Shape& one = chunks.front().shape();
    Tensor all = on.empty({frames, one[1], one[2], one[3]});
    Index at = 0;
    for (const Tensor& chunk : chunks) {
        on.copy(chunk, all.rows(at, at + chunk.size(0)));
        at += chunk.size(0);
    }
    return on.download(to_planes(all, on));
}

Outputs probe_turbo(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    const auto path = arch_of(request, {"turbo_vae.json", "TurboV3-Wan22-TinyShallow_7_7.json"});
    const TurboVaeConfig config = read_section(
        path, "turbo", [](Reader& in) { return read_turbo_vae(in); }, read_turbo_vae_json);
    const DType dtype = compute_of(request);
    const auto weights =
        weights_of(request, {"checkpoint-340000.ckpt", "checkpoint.ckpt", "turbo_vae.safetensors"});
    const TurboVae model(config, load_turbo_vae(Checkpoint::open(weights), config, dtype, on),
                         dtype);
    const Tensor latent = given.upload("latent", on);
    Outputs out;
    out["video"] =
        joined_pictures(on, [&](const PictureSink& sink) { model.decode(latent, on, sink); });
    return out;
}

WanVae load_wan(const ProbeRequest& request, WanPart part, Backend& on) {
    const auto path = arch_of(request, {"config.json"});
    const WanVaeConfig config = read_section(path, "wan", read_wan_vae);
    const DType dtype = compute_of(request);
    return {config,
            Checkpoint::open(weights_of(request, {"Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors"}))
                .load(specs(config, part, dtype), on, {.prefix = "", .strict = false}),
            dtype};
}

Outputs probe_wan_encode(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    const WanVae model = load_wan(request, WanPart::encoder, on);
    const Tensor planes = given.upload("video", on);
    const Shape& s = planes.shape();
    CHECK(s.rank() == 4, "video of shape {} (3, frames, rows, columns)", to_string(s));
    Tensor pictures = on.empty({s[1], s[2], s[3], s[0]});
    on.permute(planes, s, std::array{1, 2, 3, 0}, pictures);
    Outputs out;
    out["latent"] = on.download(model.encode(pictures, on));
    return out;
}

Outputs probe_wan_decode(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    const WanVae model = load_wan(request, WanPart::decoder, on);
    const Tensor latent = given.upload("latent", on);
    Outputs out;
    out["video"] =
        joined_pictures(on, [&](const PictureSink& sink) { model.decode(latent, on, sink); });
    return out;
}

AudioVae load_audio(const ProbeRequest& request, Backend& on) {
    const auto path = arch_of(request, {"model_config.json"});
    const AudioVaeConfig config = read_section(path, "audio", read_audio_vae);
    return {config,
            Checkpoint::open(request.weights)
                .load(specs(config), on, {.prefix = std::string(audio_vae_prefix)}),
            on};
}

/// A matrix turned over: the cases have channels first, we have them last.
Tensor transposed(ConstTensorView x, Backend& on) {
    Tensor y = on.empty({x.size(1), x.size(0)});
    on.permute(x, x.shape(), std::array{1, 0}, y);
    return y;
}

Outputs probe_audio_encode(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    const AudioVae model = load_audio(request, on);
    Outputs out;
    out["encoder_mean_scale"] =
        on.download(transposed(model.encode(given.upload("encoder_in", on), on), on));
    return out;
}

Outputs probe_audio_decode(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    const AudioVae model = load_audio(request, on);
    Outputs out;
    out["waveform"] = on.download(model.decode(transposed(given.upload("latent", on), on), on));
    return out;
}

/// The case's `ids` or `input_ids`, or its metadata's `text` cut into tokens.
Outputs probe_text(const ProbeRequest& request, const ProbeCase& given, Backend& on) {
    TextEncoderConfig config =
        read_section(arch_of(request, {"config.json"}), "text",
                     [](Reader& in) { return read_text_encoder_config(in); });
    const TextEncoder model(std::move(config), request.weights,
                            {.compute = compute_of(request),
                             .soft_cap = given.flag("soft_cap", false),
                             .fp8 = request.precision == Precision::fp8},
                            on);
    Tensor embedding;
    if (given.has("ids") || given.has("input_ids")) {
        const Tensor stored = given.read(given.has("ids") ? "ids" : "input_ids");
        std::vector<std::int32_t> ids;
        for (std::size_t i = 0; i < static_cast<std::size_t>(stored.numel()); ++i)
            ids.push_back(stored.dtype() == DType::i64
                              ? static_cast<std::int32_t>(stored.span<std::int64_t>()[i])
                              : stored.span<std::int32_t>()[i]);
        embedding = model.encode(ids);
    } else {
        const Tokens tokens = Tokenizer::open(folder_of(request)).encode(given.text("text", ""));
        embedding = model.encode(tokens.ids);
    }
    if (given.flag("fp16_trip", false)) round_to_half(embedding);
    Outputs out;
    out["text_embedding"] = std::move(embedding);
    return out;
}

using Component = Outputs (*)(const ProbeRequest&, const ProbeCase&, Backend&);

const std::vector<std::pair<std::string, Component>>& components() {
    static const std::vector<std::pair<std::string, Component>> table{
        {"dit", probe_dit},
        {"unipc", probe_unipc},
        {"renoise", probe_renoise},
        {"pipeline", probe_pipeline},
        {"turbo-vae", probe_turbo},
        {"wan-vae-encode", probe_wan_encode},
        {"wan-vae-decode", probe_wan_decode},
        {"audio-vae-encode", probe_audio_encode},
        {"audio-vae-decode", probe_audio_decode},
        {"text", probe_text},
    };
    return table;
}

ProbeDifference difference(const std::string& name, const Tensor& actual, std::string expected_name,
                           const Tensor& expected) {
    if (actual.numel() != expected.numel())
        throw InputError(fmt::format("{} has shape {}, the case's {} has {}", name,
                                     to_string(actual.shape()), expected_name,
                                     to_string(expected.shape())));
    double error = 0, largest = 0, error_squares = 0, squares = 0;
    const auto at = [](const Tensor& x, std::size_t i) -> double {
        return x.dtype() == DType::i64 ? static_cast<double>(x.span<std::int64_t>()[i])
                                       : x.span<float>()[i];
    };
    for (std::size_t i = 0; i < static_cast<std::size_t>(actual.numel()); ++i) {
        const double e = at(expected, i);
        const double d = at(actual, i) - e;
        error = std::isnan(d) ? INFINITY : std::max(error, std::fabs(d));
        largest = std::max(largest, std::fabs(e));
        error_squares += d * d;
        squares += e * e;
    }
    const auto ratio = [](double a, double b) { return b > 0 ? a / b : a; };
    return {name, std::move(expected_name), ratio(error, largest),
            std::sqrt(ratio(error_squares, squares))};
}

}  // namespace

const std::vector<std::string>& probe_components() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> made;
        for (const auto& [name, run] : components()) made.push_back(name);
        return made;
    }();
    return names;
}

std::vector<ProbeDifference> run_probe(const ProbeRequest& request, Backend& on) {
    Component run = nullptr;
    for (const auto& [name, function] : components())
        if (name == request.component) run = function;
    if (run == nullptr)
        throw_input_error("unknown component \"{}\" ({})", request.component,
                          fmt::join(probe_components(), ", "));
    // The others would come out in bf16, and nothing would say so.
    if (request.precision == Precision::fp8 && request.component != "dit" &&
        request.component != "pipeline" && request.component != "text")
        throw_input_error(
            "{} has nothing that multiplies in E4M3 (dit, pipeline and text have; use "
            "bf16)",
            request.component);
    const ProbeCase given(request.input);
    const Outputs outputs = run(request, given, on);

    request.group->check();
    if (!request.output.empty() && request.group->rank() == 0) {
        std::vector<NamedTensor> named;
        for (const auto& [name, tensor] : outputs) named.push_back({name, tensor});
        write_safetensors(request.output, named);
    }
    std::vector<ProbeDifference> differences;
    if (!request.compare) return differences;
    // A case that tells fp32 and bf16 apart holds what else it holds in fp32.
    const std::string suffix = request.precision == Precision::fp32 ? "_fp32" : "_bf16";
    const bool both = given.has("out_video_fp32") && given.has("out_video_bf16");
    for (const auto& [name, tensor] : outputs)
        for (const std::string& candidate : {name, name + suffix}) {
            const bool other_precision =
                both && candidate == name && request.precision != Precision::fp32;
            if (!given.has(candidate) || other_precision) continue;
            const Tensor expected =
                tensor.dtype() == DType::i64 ? given.read(candidate) : given.read_f32(candidate);
            differences.push_back(difference(name, tensor, candidate, expected));
        }
    if (differences.empty())
        throw_input_error("{}: holds no expected output of {}", request.input.string(),
                          request.component);
    return differences;
}

}  // namespace gallop
