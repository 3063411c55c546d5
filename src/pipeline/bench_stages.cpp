#include <chrono>
#include <optional>

#include "core/memory_use.hpp"
#include "model/audio_vae.hpp"
#include "model/resample.hpp"
#include "model/text_encoder.hpp"
#include "model/turbo_vae.hpp"
#include "model/wan_vae.hpp"
#include "pipeline/bench.hpp"
#include "pipeline/denoise.hpp"
#include "pipeline/memory.hpp"
#include "pipeline/picture_relay.hpp"

namespace gallop {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Seconds of `repeats` runs of `work`, after one that is not counted.
template <class Work>
std::vector<double> timed(int repeats, Backend& on, const Work& work) {
    std::vector<double> seconds;
    for (int i = 0; i <= repeats; ++i) {
        on.synchronize();
        const auto begin = Clock::now();
        work();
        on.synchronize();
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
    BenchCase made{std::string(name), {}, {32, 8, 14, 126, 400}, 8};
    if (name == "256p") return made;
    made.network.coords_style = CoordsStyle::v1;
    made.steps = 5;
    if (name == "540p") {
        made.sequence.rows = 16;
        made.sequence.columns = 28;
        return made;
    }
    if (name == "1080p") {
        made.sequence.rows = 34;
        made.sequence.columns = 60;
        // Source: the configuration of the published 1080p model: every fourth layer sees all frames.
        for (Index layer = 0; layer < made.network.num_layers; ++layer)
            if (layer % 4 != 3) made.network.local_attn_layers.push_back(layer);
        return made;
    }
    if (name == "tiny") {
        made.network = bench_transformer();
        made.network.num_layers = 4;
        made.network.hidden_size = 256;
        made.network.text_in_channels = 64;
        made.network.mm_layers = {0, 3};
        made.network.local_attn_layers = {1, 2};
        made.network.frame_receptive_field = 1;
        made.sequence = {3, 2, 3, 9, 7};
        made.steps = 2;
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
        return timed(repeats, on, [&] { decode_to_host(vae, latent, strips, on); });
    }
    const WanVaeConfig config = wan_of(of);
    const WanVae vae(config, random_weights(specs(config, WanPart::decoder, dtype), on), dtype);
    return timed(repeats, on, [&] { decode_to_host(vae, latent, strips, on); });
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

/// In how many strips a picture latent is decoded: one, where that fits.
Index strips_of(const TurboVae& vae, DType dtype, const Shape& latent, Backend& on) {
    const auto* const memory = dynamic_cast<CountedMemory*>(&on.memory());
    return strips_that_fit(
        memory == nullptr ? std::nullopt : memory->left(), vae.most_strips(latent[2]),
        [&](Index strips) { return decode_peak(vae.config(), dtype, latent, strips); });
}

}  // namespace

std::vector<double> time_text(const BenchCase& of, Index tokens, DType dtype, int repeats,
                              Backend& on) {
    const TextEncoderConfig config = text_of(of);
    const TextEncoder encoder(config, random_weights(text_encoder_specs(config, dtype), on),
                              {.compute = dtype}, on);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] = static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(config.vocabulary));
    return timed(repeats, on, [&] { encoder.encode(ids); });
}

std::vector<ClipTiming> time_clips(const BenchCase& of, Precision precision, int clips, Backend& on,
                                   const ClipFiles& files) {
    const DType dtype = compute_dtype(precision);
    const BenchCase first = is_tiny(of) ? of : bench_case("256p");
    const bool refined = first.name != of.name;
    const std::vector<double> texts = time_text(of, first.sequence.text, dtype, clips, on);

    Transformer base(first.network, random_weights(bench_specs(first.network, precision, on), on),
                     on);
    std::optional<Transformer> super;
    if (refined)
        super.emplace(of.network, random_weights(bench_specs(of.network, precision, on), on), on);
    const TurboVaeConfig picture = turbo_of(of);
    const TurboVae turbo(picture, random_weights(specs(picture, dtype), on), dtype);
    const AudioVaeConfig sound = sound_of(of);
    const AudioVae audio_vae(sound, random_weights(specs(sound), on), on);
    const Tensor text = noise("text", {first.sequence.text, first.network.text_in_channels}, on);
    const Index strips = strips_of(turbo, dtype, of.latent(), on);

    std::vector<ClipTiming> made;
    for (int clip = 0; clip <= clips; ++clip) {
        ClipTiming timing;
        if (clip > 0) timing.stages.emplace_back("text", texts[static_cast<std::size_t>(clip - 1)]);
        on.synchronize();
        const auto stage = [&](const char* name, const auto& work) {
            const auto begin = Clock::now();
            work();
            on.synchronize();
            timing.stages.emplace_back(name, seconds_since(begin));
        };
        Tensor video = noise("video", first.latent(), on);
        Tensor audio = noise("audio", {first.sequence.audio, first.network.audio_in_channels}, on);
        const StageInputs inputs{.text = text, .negative = {}, .image = {}, .audio_fixed = false};
        stage("base", [&] {
            BaseSampling sampling;
            sampling.steps = clip > 0 ? first.steps : 1;
            denoise_base(
                base, sampling, inputs,
                [&](std::string_view modality, int step, TensorView out) {
                    on.normal(NoiseStream(1, fmt::format("renoise.{}.{}", modality, step)), 0, out);
                },
                on, video, audio);
        });
        if (refined)
            stage("sr", [&] {
                SrSampling sampling;
                sampling.steps = clip > 0 ? of.steps : 1;
                SrStart start = start_sr(sampling, video, audio, noise("sr.video", of.latent(), on),
                                         noise("sr.audio", audio.shape(), on), on);
                denoise_sr(*super, sampling, inputs, on, start);
                video = std::move(start.video);
            });
        Tensor heard;
        stage("decode audio", [&] {
            heard = on.download(audio_vae.decode(audio, on));
            heard = resample(heard, heard.size(1) * resample_up / resample_down);
        });
        ClipFile file;
        if (files)
            stage("begin file", [&] {
                file = files(
                    {static_cast<int>(16 * video.size(3)), static_cast<int>(16 * video.size(2))},
                    std::move(heard));
            });
        stage("decode", [&] { decode_to_host(turbo, video, strips, on, file.add); });
        if (files) stage("end file", file.finish);
        for (const auto& [name, seconds] : timing.stages) timing.seconds += seconds;
        if (clip > 0) made.push_back(std::move(timing));
    }
    return made;
}

}  // namespace gallop
