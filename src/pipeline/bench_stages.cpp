#include <chrono>
#include <optional>

#include "core/memory_use.hpp"
#include "model/architecture.hpp"
#include "model/audio_vae.hpp"
#include "model/resample.hpp"
#include "model/text_encoder.hpp"
#include "model/turbo_vae.hpp"
#include "model/wan_vae.hpp"
#include "pipeline/bench.hpp"
#include "pipeline/denoise.hpp"
#include "pipeline/memory_model.hpp"
#include "pipeline/picture_relay.hpp"
#include "pipeline/stage_runner.hpp"

namespace gallop {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Seconds of `repeats` runs of `work`, whose arrays take so many bytes and come from a block, as a
/// renderer's do; after one that is not counted.
template <class Work>
std::vector<double> timed(int repeats, std::size_t arrays, Backend& on, const Work& work) {
    std::vector<double> seconds;
    for (int i = 0; i <= repeats; ++i) {
        on.synchronize();
        const auto begin = Clock::now();
        {
            const MemoryStage block(dynamic_cast<CountedMemory*>(&on.memory()),
                                    stage_bytes(arrays));
            work();
            on.synchronize();
        }
        if (i > 0) seconds.push_back(seconds_since(begin));
    }
    return seconds;
}

bool is_tiny(const BenchCase& of) { return of.name == "tiny"; }

TurboVaeConfig turbo_of(const BenchCase& of) {
    TurboVaeConfig config;
    if (is_tiny(of)) {
        config.channels = {8, 12, 16, 24};
        config.first_chunk = config.step = 3;
    }
    return config;
}

WanVaeConfig wan_of(const BenchCase& of) {
    WanVaeConfig config;
    if (is_tiny(of)) config.dec_dim = 6;
    return config;
}

Tensor noise(std::string_view name, const Shape& shape, Backend& on) {
    Tensor made = on.empty(shape);
    on.normal(NoiseStream(1, name), 0, made);
    return made;
}

/// Decodes as the renderer does: an encoder's planes, on the host, to a file where there is one.
template <class Vae>
void decode_to_host(const Vae& vae, ConstTensorView latent, Index strips, Backend& on,
                    const FrameSink& file = {}) {
    const FrameSink sink = [&](ConstTensorView pictures) {
        if (file) file(pictures);
    };
    PictureRelay relay(on, 16 * latent.size(2), 16 * latent.size(3), YuvFormat{}, sink);
    vae.decode(
        latent, on, [&](ConstTensorView pictures) { relay.add(pictures); }, strips);
    relay.finish();
}

}  // namespace

BenchCase bench_case(std::string_view name) {
    const auto five_seconds = [&](const char* variant, Index rows, Index columns) {
        const DitVariant of = published_architecture().variants.at(variant);
        return BenchCase{std::string(name), of.network, {32, rows, columns, 126, 400}, of.steps};
    };
    if (name == "256p") return five_seconds("distill", 8, 14);
    if (name == "540p") return five_seconds("540p_sr", 16, 28);
    if (name == "1080p") return five_seconds("1080p_sr", 34, 60);
    if (name == "tiny") {
        BenchCase made{std::string(name), bench_transformer(), {3, 2, 3, 9, 7}, 2};
        made.network.coords_style = CoordsStyle::v1;
        made.network.num_layers = 4;
        made.network.hidden_size = 256;
        made.network.text_in_channels = 64;
        made.network.mm_layers = {0, 3};
        made.network.local_attn_layers = {1, 2};
        made.network.frame_receptive_field = 1;
        return made;
    }
    throw_input_error("the case is \"{}\" (256p, 540p, 1080p, tiny)", name);
}

std::vector<double> time_decode(const BenchCase& of, VideoDecoder decoder, DType dtype,
                                Index strips, int repeats, Backend& on) {
    const Tensor latent = noise("latent", of.latent(), on);
    if (decoder == VideoDecoder::turbo) {
        const TurboVaeConfig config = turbo_of(of);
        const TurboVae vae(config, random_weights(specs(config, dtype), on), dtype);
        return timed(repeats, decode_peak(config, dtype, of.latent(), strips), on,
                     [&] { decode_to_host(vae, latent, strips, on); });
    }
    const WanVaeConfig config = wan_of(of);
    const WanVae vae(config, random_weights(specs(config, WanPart::decoder, dtype), on), dtype);
    return timed(repeats, decode_peak(config, dtype, of.latent(), strips), on,
                 [&] { decode_to_host(vae, latent, strips, on); });
}

namespace {

TextEncoderConfig text_of(const BenchCase& of) {
    TextEncoderConfig config;
    if (is_tiny(of)) {
        config.width = 64;
        config.heads = 4;
        config.kv_heads = 2;
        config.head_size = 16;
        config.mlp = 128;
        config.vocabulary = 1000;
        config.sliding = TextEncoderConfig::alternate(2);
    }
    return config;
}

AudioVaeConfig sound_of(const BenchCase& of) {
    AudioVaeConfig config;
    if (is_tiny(of)) config.encoder.channels = config.decoder.channels = 8;
    return config;
}

/// The networks of a clip of the case's size: "base", and "sr" where it is refined.
Architecture networks_of(const BenchCase& first, const BenchCase& of) {
    Architecture made;
    made.turbo = turbo_of(of);
    made.audio = sound_of(of);
    made.variants["base"].network = first.network;
    if (first.name != of.name) made.variants["sr"].network = of.network;
    return made;
}

Size size_of(const BenchCase& of) {
    return {static_cast<int>(32 * of.sequence.columns), static_cast<int>(32 * of.sequence.rows)};
}

}  // namespace

std::vector<double> time_text(const BenchCase& of, Index tokens, DType dtype, int repeats,
                              Backend& on) {
    const TextEncoderConfig config = text_of(of);
    const TextEncoderOptions how{.compute = dtype};
    const TextEncoder encoder(config, random_weights(text_encoder_specs(config, dtype), on), how,
                              on);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] = static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(config.vocabulary));
    return timed(repeats, text_peak(config, how, tokens), on, [&] { encoder.encode(ids); });
}

std::vector<ClipTiming> time_clips(
    const BenchCase& of, Precision precision, int clips, Backend& on, const ClipFiles& files,
    const std::function<void(const std::vector<ClipTiming>&)>& progress) {
    const DType dtype = compute_dtype(precision);
    const BenchCase first = is_tiny(of) ? of : bench_case("256p");
    const bool refined = first.name != of.name;
    const std::vector<double> texts = time_text(of, first.sequence.text, dtype, clips, on);

    const Architecture networks = networks_of(first, of);
    MemoryModel memory(networks, precision, {}, {.unit = on.matrix_unit(dtype)});
    Transformer base(first.network, random_weights(memory.transformer_table("base"), on), on);
    std::optional<Transformer> super;
    if (refined) super.emplace(of.network, random_weights(memory.transformer_table("sr"), on), on);
    const TurboVae turbo(networks.turbo, random_weights(specs(networks.turbo, dtype), on), dtype);
    const AudioVae audio_vae(networks.audio, random_weights(specs(networks.audio), on), on);
    const Tensor text = noise("text", {first.sequence.text, first.network.text_in_channels}, on);
    const StageInputs inputs{.text = text, .negative = {}, .image = {}, .audio_fixed = false};
    const Index sounds = first.sequence.audio;
    auto* const counted = dynamic_cast<CountedMemory*>(&on.memory());
    const auto decode_memory = [&](Index strips) {
        return memory.decode(VideoDecoder::turbo, of.latent(), strips).arrays;
    };
    const Index strips =
        strips_that_fit(counted == nullptr ? std::nullopt : counted->left(),
                        memory.most_strips(VideoDecoder::turbo, of.latent()[2]), decode_memory);

    StageRunner stages(counted);
    std::vector<ClipTiming> made;
    for (int clip = 0; clip <= clips; ++clip) {
        on.synchronize();
        Latents latents =
            stages.run("base", memory.denoise("base", size_of(first), sounds).arrays, [&] {
                BaseSampling sampling;
                sampling.steps = clip > 0 ? first.steps : 1;
                Tensor video = noise("video", first.latent(), on);
                Tensor audio = noise("audio", {sounds, first.network.audio_in_channels}, on);
                denoise_base(
                    base, sampling, inputs,
                    [&](std::string_view modality, int step, TensorView out) {
                        on.normal(NoiseStream(1, fmt::format("renoise.{}.{}", modality, step)), 0,
                                  out);
                    },
                    on, video, audio);
                return Latents{on.download(video), {}, on.download(audio)};
            });
        if (refined)
            latents.video_final =
                stages.run("sr", memory.denoise("sr", size_of(of), sounds).arrays, [&] {
                    SrSampling sampling;
                    sampling.steps = clip > 0 ? of.steps : 1;
                    SrStart start =
                        start_sr(sampling, on.upload(latents.video_base), on.upload(latents.audio),
                                 noise("sr.video", of.latent(), on),
                                 noise("sr.audio", latents.audio.shape(), on), on);
                    denoise_sr(*super, sampling, inputs, on, start);
                    return on.download(start.video);
                });
        auto heard = stages.run("decode audio", memory.decode_audio(sounds).arrays, [&] {
            return resample_aside(on.download(audio_vae.decode(on.upload(latents.audio), on)));
        });
        ClipFile file;
        if (files)
            stages.run("begin file", 0, [&] { file = files(size_of(of), std::move(heard)); });
        stages.run("decode", decode_memory(strips), [&] {
            decode_to_host(turbo, on.upload(latents.video()), strips, on, file.add);
        });
        if (files) stages.run("end file", 0, file.finish);
        ClipTiming timing{stages.take()};
        if (clip == 0) continue;
        timing.spent.stages.emplace(timing.spent.stages.begin(), "text",
                                    texts[static_cast<std::size_t>(clip - 1)]);
        for (const auto& [name, seconds] : timing.spent.stages) timing.seconds += seconds;
        made.push_back(std::move(timing));
        if (progress) progress(made);
    }
    return made;
}

}  // namespace gallop
