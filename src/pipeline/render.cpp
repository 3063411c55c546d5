#include "pipeline/render.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <list>
#include <map>
#include <optional>

#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "model/bundle.hpp"
#include "model/resample.hpp"
#include "model/text_features.hpp"
#include "pipeline/denoise.hpp"
#include "pipeline/fit_image.hpp"
#include "pipeline/memory.hpp"
#include "pipeline/picture_relay.hpp"

namespace gallop {
namespace {

/// Prompts whose features are kept. A sweep asks for the same few again and again.
constexpr std::size_t features_kept = 16;

/// Latent extents of a picture size.
Shape latent_shape(Index frames, Size size) {
    return {video_latent_channels, frames, size.height / 16, size.width / 16};
}

void check_item(const Item& item) {
    const auto check_size = [&](Size size) {
        if (size.width < 32 || size.height < 32 || size.width % 32 != 0 || size.height % 32 != 0)
            throw_input_error("item \"{}\": size {}x{} (multiples of 32)", item.name, size.width,
                              size.height);
    };
    check_size(item.base_size);
    check_size(item.size);
    if (item.audio_latents < 1)
        throw_input_error("item \"{}\": {} audio latents (at least 1)", item.name,
                          item.audio_latents);
    if (item.sr.empty() && !(item.size == item.base_size))
        throw_input_error("item \"{}\": {}x{} from a base of {}x{} needs a super-resolution model",
                          item.name, item.size.width, item.size.height, item.base_size.width,
                          item.base_size.height);
}

/// Throws BadOutputError when a latent is not finite or all one value: a clip of it would be worthless.
void check_latent(const Tensor& latent, std::string_view what) {
    const auto values = latent.span<float>();
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    for (const float value : values)
        if (!std::isfinite(value))
            throw BadOutputError(fmt::format("the {} latent is not finite", what));
    if (values.size() > 1 && *least == *most)
        throw BadOutputError(fmt::format("the {} latent is constant, {}", what, *least));
}

}  // namespace

struct Renderer::State {
    /// The features of an item's prompts, on the backend.
    struct Prompts {
        Tensor text;
        Tensor negative;  ///< undefined without guidance
    };
    /// Into how many strips a picture is cut while it is decoded, and the bytes of the arrays.
    struct DecodePlan {
        Index strips = 1;
        std::size_t bytes = 0;
    };
    /// A transformer that is ready for a stage, and the bytes of the stage's block.
    struct Ready {
        Transformer& network;
        std::size_t bytes;
    };

    Bundle bundle;
    Backend& on;
    Group& group;
    Precision precision;
    Fp8Choice fp8;
    std::optional<Tokenizer> tokenizer;
    std::optional<TextEncoder> text_encoder;
    std::map<std::string, Transformer> transformers;
    std::optional<WanVae> wan_encoder, wan_decoder;
    std::optional<TurboVae> turbo;
    std::optional<AudioVae> audio_vae;
    std::list<std::pair<std::string, Tensor>>
        features;  ///< of prompts, on the backend, newest first
    StageSeconds timings;
    Residents residents;
    /// Bytes of a denoise stage's arrays by network and sequence; plans by decoder, shape and whether in
    /// tiles.
    std::map<std::pair<std::string, std::array<Index, 5>>, std::size_t> stages;
    std::map<std::array<Index, 5>, DecodePlan> decodes;

    CountedMemory* counted() const { return dynamic_cast<CountedMemory*>(&on.memory()); }
    std::optional<std::size_t> memory_left() const {
        const CountedMemory* const memory = counted();
        return memory == nullptr ? std::nullopt : memory->left();
    }

    /// Sends networks away until a stage of `kept` that needs so many bytes fits.
    void make_room(std::size_t bytes, const std::string& kept) {
        for (const std::string& name :
             residents.make_room(bytes, kept, [&] { return memory_left(); }))
            log_info("memory is short, {} leaves the device", name);
    }

    /// Runs `work`, adding its time to `stage`.
    template <class Work>
    decltype(auto) timed(const std::string& stage, const Work& work) {
        struct Clock {
            State& state;
            const std::string& stage;
            std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
            ~Clock() {
                const std::chrono::duration<double> spent =
                    std::chrono::steady_clock::now() - begin;
                bool known = false;
                for (auto& [name, seconds] : state.timings.stages)
                    if (name == stage) {
                        seconds += spent.count();
                        known = true;
                    }
                if (!known) state.timings.stages.emplace_back(stage, spent.count());
                const CountedMemory* const memory = state.counted();
                if (memory == nullptr) return;
                for (auto& [name, bytes] : state.timings.peak_bytes)
                    if (name == stage) {
                        bytes = std::max(bytes, memory->use().peak);
                        return;
                    }
                state.timings.peak_bytes.emplace_back(stage, memory->use().peak);
            }
        } clock{*this, stage};
        if (CountedMemory* const memory = counted()) memory->restart_peak();
        return work();
    }

    /// The same with arrays in a block of their own.
    template <class Work>
    decltype(auto) staged(const std::string& name, std::size_t bytes, const Work& work) {
        return timed(name, [&]() -> decltype(auto) {
            const MemoryStage stage(counted(), bytes);
            return work();
        });
    }

    /// A transformer, with room for a stage on pictures of a size.
    Ready transformer(const std::string& variant, const Item& item, Size size,
                      const Prompts& texts) {
        const TransformerConfig& config = bundle.variant(variant).network;
        const DType dtype = compute_dtype(precision);
        auto table = sharded_specs(
            config, dtype, shard_of(config, group.rank(), group.size(), on.matrix_unit(dtype)));
        if (precision == Precision::fp8) choose_fp8(table, config.num_layers, fp8, variant);
        SequenceShape shape = sequence(item, size, texts);
        const auto [found, fresh] = stages.try_emplace(
            {variant, {shape.frames, shape.rows, shape.columns, shape.audio, shape.text}}, 0);
        if (fresh)
            found->second =
                forward_peak(config, table, shape, group.size()) + sampler_bytes(config, shape);
        const std::size_t arrays = found->second;
        Transformer& network = resident(variant, config, table, with_workspaces(arrays));
        for (const Tensor* text : {&texts.text, &texts.negative}) {
            if (!text->defined()) continue;
            shape.text = text->size(0);
            network.prepare(shape);
        }
        return {network, stage_bytes(arrays)};
    }

    /// A transformer on the device, with so many bytes free for its stage.
    Transformer& resident(const std::string& variant, const TransformerConfig& config,
                          const std::vector<TensorSpec>& table, std::size_t arrays) {
        const std::string name = "transformer " + variant;
        if (const auto found = transformers.find(variant); found != transformers.end()) {
            residents.used(name);
            make_room(arrays, name);
            return found->second;
        }
        return timed("load", [&]() -> Transformer& {
            make_room(weight_bytes(table) + arrays, name);
            Weights weights = Checkpoint::open(bundle.dit(variant)).load(table, on);
            log_info("loaded {} megabytes={}", variant, weights.bytes() >> 20);
            residents.came(name, [this, variant] { transformers.erase(variant); });
            return transformers
                .emplace(std::piecewise_construct, std::forward_as_tuple(variant),
                         std::forward_as_tuple(config, std::move(weights), on, group))
                .first->second;
        });
    }

    /// Loads a network into `slot` once; `bytes` of weights.
    template <class Network, class Load>
    Network& loaded(std::optional<Network>& slot, const std::string& name, std::size_t bytes,
                    const Load& load) {
        if (slot) {
            residents.used(name);
            return *slot;
        }
        timed("load", [&] {
            make_room(with_workspaces(bytes), name);
            slot.emplace(load());
            residents.came(name, [&slot] { slot.reset(); });
        });
        return *slot;
    }

    /// How a picture is decoded by `network`, with room made for it.
    template <class Network>
    DecodePlan decode_plan(const Network& network, const std::string& name, const Tensor& latent,
                           const PictureDecode& how) {
        const DType dtype = compute_dtype(precision);
        const Index most = network.most_strips(latent.size(2));
        const auto peak = [&](Index strips) {
            return decode_peak(network.config(), dtype, latent.shape(), strips);
        };
        const auto [found, fresh] =
            decodes.try_emplace({static_cast<Index>(how.decoder), how.tiled ? 1 : 0, latent.size(1),
                                 latent.size(2), latent.size(3)});
        DecodePlan& plan = found->second;
        if (!fresh) {
            make_room(with_workspaces(plan.bytes), name);
            return plan;
        }
        plan.strips = how.tiled ? most : 1;
        plan.bytes = peak(plan.strips);
        // Networks that are not needed now go before the picture is cut.
        make_room(with_workspaces(plan.bytes), name);
        if (how.tiled) return plan;
        plan.strips = strips_that_fit(memory_left(), most, peak);
        if (plan.strips > 1) {
            plan.bytes = peak(plan.strips);
            log_info("memory is short, decoding in {} strips", plan.strips);
        }
        return plan;
    }

    WanVae load_wan(WanPart part) {
        const WanVaeConfig& config = bundle.architecture.wan;
        const DType dtype = compute_dtype(precision);
        // The other half's tensors are surplus here, not mistakes.
        return {config,
                Checkpoint::open(bundle.wan_vae())
                    .load(specs(config, part, dtype), on, {.prefix = "", .strict = false}),
                dtype};
    }

    std::size_t wan_bytes(WanPart part) const {
        return weight_bytes(specs(bundle.architecture.wan, part, compute_dtype(precision)));
    }

    TurboVae load_turbo() {
        const TurboVaeConfig& config = bundle.architecture.turbo;
        const DType dtype = compute_dtype(precision);
        return {config,
                Checkpoint::open(bundle.turbo_vae())
                    .load(specs(config, dtype), on, {.prefix = "", .strict = false}),
                dtype};
    }

    AudioVae& audio() {
        const AudioVaeConfig& config = bundle.architecture.audio;
        return loaded(audio_vae, "sound VAE", weight_bytes(specs(config)), [&] {
            return AudioVae(config,
                            Checkpoint::open(bundle.audio_vae())
                                .load(specs(config), on, {.prefix = std::string(audio_vae_prefix)}),
                            on);
        });
    }

    /// A prompt's features on the backend; encoded once while they are among the newest.
    const Tensor& text_features(const std::string& prompt) {
        const auto found = std::find_if(features.begin(), features.end(),
                                        [&](const auto& entry) { return entry.first == prompt; });
        if (found != features.end()) {
            features.splice(features.begin(), features, found);
            return features.front().second;
        }
        Tokenizer& words = loaded(tokenizer, "tokenizer", 0,
                                  [&] { return Tokenizer::open(bundle.text_encoder()); });
        const TextEncoderOptions how{.compute = compute_dtype(precision),
                                     .fp8 = precision == Precision::fp8 && fp8.text_encoder};
        TextEncoder& encoder =
            loaded(text_encoder, "text encoder",
                   weight_bytes(text_encoder_specs(bundle.architecture.text, how.compute, how.fp8)),
                   [&] { return TextEncoder(bundle.text_encoder(), how, on); });
        const TextFeatures made =
            timed("text", [&] { return encode_prompt(prompt, words, encoder); });
        if (!made.warning.empty()) log_warning("{}", made.warning);
        features.emplace_front(prompt, on.upload(made.embedding));
        if (features.size() > features_kept) features.pop_back();
        return features.front().second;
    }

    /// An image as the clean first latent frame of a stage.
    Tensor image_latent(ConstTensorView image, Size size) {
        WanVae& encoder = loaded(wan_encoder, "picture encoder", wan_bytes(WanPart::encoder),
                                 [&] { return load_wan(WanPart::encoder); });
        return timed("image", [&] {
            const Tensor fitted = fit_image(image, size);
            Tensor pixels({1, size.height, size.width, 3});
            for (Index i = 0; i < pixels.numel(); ++i)
                pixels.data<float>()[i] =
                    static_cast<float>(fitted.data<std::uint8_t>()[i]) / 255.0F * 2.0F - 1.0F;
            return encoder.encode(on.upload(pixels), on);
        });
    }

    /// The audio latent of an item on the backend: the driving sound's, or noise.
    Tensor first_audio(const Item& item, const Conditioning& inputs) {
        if (!inputs.audio.defined()) {
            Tensor noise =
                on.empty({item.audio_latents, bundle.architecture.audio.decoder.latent_dim});
            on.normal(NoiseStream(item.seed, "audio"), 0, noise);
            return noise;
        }
        AudioVae& vae = audio();
        return timed("audio", [&] {
            const Index most = item.audio_latents * bundle.architecture.audio.ratio();
            const ConstTensorView sound =
                inputs.audio.rows(0, std::min(most, inputs.audio.numel()));
            std::optional<NoiseStream> posterior;
            if (!item.audio_posterior_mean) posterior.emplace(item.seed, "audio.posterior");
            const Tensor latent = vae.encode_driving(sound, posterior, on);
            if (latent.size(0) < item.audio_latents)
                throw_input_error("item \"{}\": the driving sound gives {} latents ({} wanted)",
                                  item.name, latent.size(0), item.audio_latents);
            return on.upload(latent.rows(0, item.audio_latents));
        });
    }

    Prompts prompts(const Item& item) {
        const bool guided = item.base.passes == 2 || (!item.sr.empty() && item.super.passes == 2);
        if (guided && item.negative_prompt.empty())
            throw_input_error("item \"{}\": two guidance passes need a negative prompt", item.name);
        // Copies: the second prompt may push the first out of what is kept.
        Prompts made{on.upload(on.download(text_features(item.prompt))), {}};
        if (guided) made.negative = on.upload(on.download(text_features(item.negative_prompt)));
        return made;
    }

    /// The longer of an item's sequences at a picture size.
    static SequenceShape sequence(const Item& item, Size size, const Prompts& texts) {
        return {
            (item.audio_latents - 1) / 4 + 1, size.height / 32, size.width / 32, item.audio_latents,
            std::max(texts.text.size(0), texts.negative.defined() ? texts.negative.size(0) : 0)};
    }

    /// The final picture latent, on the host, from the base stage's latents on the backend.
    Tensor refined(const Item& item, const Conditioning& inputs, const Prompts& texts,
                   const Tensor& video, const Tensor& audio, const ProgressSink& progress) {
        Tensor image;
        if (inputs.image.defined()) image = image_latent(inputs.image, item.size);
        const StageInputs stage{.text = texts.text,
                                .negative = texts.negative,
                                .image = image,
                                .audio_fixed = inputs.audio.defined()};
        const Ready super = transformer(item.sr, item, item.size, texts);
        return staged("sr", super.bytes, [&] {
            Tensor video_noise = on.empty(latent_shape(video.size(1), item.size));
            on.normal(NoiseStream(item.seed, "sr.video"), 0, video_noise);
            Tensor audio_noise = on.empty(audio.shape());
            on.normal(NoiseStream(item.seed, "sr.audio"), 0, audio_noise);
            SrStart start = start_sr(item.super, video, audio, video_noise, audio_noise, on);
            denoise_sr(super.network, item.super, stage, on, start, progress);
            Tensor final_video = on.download(start.video);
            group.check();
            check_latent(final_video, "final picture");
            return final_video;
        });
    }
};

Renderer::Renderer(const ModelChoice& choice, Backend& on) : Renderer(choice, on, solo_group()) {}

Renderer::Renderer(const ModelChoice& choice, Backend& on, Group& group)
    : state_(new State{.bundle = open_bundle(choice.path, choice.arch),
                       .on = on,
                       .group = group,
                       .precision = choice.precision,
                       .fp8 = choice.fp8,
                       .tokenizer = {},
                       .text_encoder = {},
                       .transformers = {},
                       .wan_encoder = {},
                       .wan_decoder = {},
                       .turbo = {},
                       .audio_vae = {},
                       .features = {},
                       .timings = {},
                       .residents = {},
                       .stages = {},
                       .decodes = {}}) {}

Renderer::~Renderer() = default;

Latents Renderer::denoise(const Item& item, const Conditioning& inputs,
                          const ProgressSink& progress) {
    check_item(item);
    State& s = *state_;
    Backend& on = s.on;
    const auto report = [&](std::string_view stage) {
        if (progress) progress({std::string(stage), 0, 1});
    };
    report("text");
    const State::Prompts texts = s.prompts(item);

    if (inputs.audio.defined()) report("audio");
    Tensor audio = s.first_audio(item, inputs);
    const Index frames = (item.audio_latents - 1) / 4 + 1;
    Tensor image;
    if (inputs.image.defined()) {
        report("image");
        image = s.image_latent(inputs.image, item.base_size);
    }
    Tensor video = on.empty(latent_shape(frames, item.base_size));
    on.normal(NoiseStream(item.seed, "video"), 0, video);

    const State::Ready base = s.transformer(item.variant, item, item.base_size, texts);
    const StepNoise fresh = [&](std::string_view modality, int step, TensorView out) {
        on.normal(NoiseStream(item.seed, fmt::format("renoise.{}.{}", modality, step)), 0, out);
    };
    const StageInputs stage{.text = texts.text,
                            .negative = texts.negative,
                            .image = image,
                            .audio_fixed = inputs.audio.defined()};
    s.staged("base", base.bytes, [&] {
        denoise_base(base.network, item.base, stage, fresh, on, video, audio, progress);
        on.synchronize();  // the stage's time is the device's, which the loop runs ahead of
    });

    Latents latents;
    latents.video_base = on.download(video);
    latents.audio = on.download(audio);
    s.group.check();
    check_latent(latents.video_base, "base picture");
    check_latent(latents.audio, "sound");
    if (!item.sr.empty())
        latents.video_final = s.refined(item, inputs, texts, video, audio, progress);
    return latents;
}

Latents Renderer::refine(const Item& item, const Conditioning& inputs, Latents base,
                         const ProgressSink& progress) {
    check_item(item);
    if (item.sr.empty())
        throw_input_error("item \"{}\" has no second stage to start from base latents", item.name);
    State& s = *state_;
    const Index frames = (item.audio_latents - 1) / 4 + 1;
    const auto check_shape = [&](const Tensor& latent, const Shape& wanted, const char* what) {
        if (!latent.defined() || !(latent.shape() == wanted))
            throw_input_error("item \"{}\": its base latents hold {} of shape {} (must be {})",
                              item.name, what, to_string(latent.shape()), to_string(wanted));
    };
    check_shape(base.video_base, latent_shape(frames, item.base_size), "a picture");
    check_shape(base.audio, {item.audio_latents, s.bundle.architecture.audio.decoder.latent_dim},
                "a sound");
    check_latent(base.video_base, "base picture");
    check_latent(base.audio, "sound");
    if (progress) progress({"text", 0, 1});
    const State::Prompts texts = s.prompts(item);
    const Tensor video = s.on.upload(base.video_base);
    const Tensor audio = s.on.upload(base.audio);
    base.video_final = s.refined(item, inputs, texts, video, audio, progress);
    return base;
}

void Renderer::decode_video(const Tensor& latent, const PictureDecode& how, const FrameSink& sink,
                            const ProgressSink& progress) {
    const int frames = how.frames;
    State& s = *state_;
    const Tensor on_device = s.on.upload(latent);
    Index done = 0;
    const auto report = [&] {
        if (progress) progress({"decode", static_cast<int>(done), frames});
    };
    report();
    const auto decode = [&](const auto& network, const std::string& name) {
        const State::DecodePlan plan = s.decode_plan(network, name, latent, how);
        s.staged("decode", stage_bytes(plan.bytes), [&] {
            PictureRelay relay(s.on, 16 * latent.size(2), 16 * latent.size(3), how.planes, sink);
            const PictureSink pictures = [&](ConstTensorView chunk) {
                const Index wanted = std::min<Index>(chunk.size(0), frames - done);
                if (wanted <= 0) return;
                relay.add(chunk.rows(0, wanted));
                done += wanted;
                report();
            };
            network.decode(on_device, s.on, pictures, plan.strips);
            relay.finish();
        });
    };
    if (how.decoder == VideoDecoder::turbo) {
        const std::string name = "turbo decoder";
        const auto table = specs(s.bundle.architecture.turbo, compute_dtype(s.precision));
        decode(s.loaded(s.turbo, name, weight_bytes(table), [&] { return s.load_turbo(); }), name);
    } else {
        const std::string name = "full decoder";
        decode(s.loaded(s.wan_decoder, name, s.wan_bytes(WanPart::decoder),
                        [&] { return s.load_wan(WanPart::decoder); }),
               name);
    }
    if (done < frames)
        throw BadOutputError(fmt::format("the latent holds {} pictures ({} wanted)", done, frames));
}

Tensor Renderer::decode_audio(const Tensor& latent) {
    State& s = *state_;
    AudioVae& vae = s.audio();
    return s.timed("decode audio", [&] {
        const Tensor sound = s.on.download(vae.decode(s.on.upload(latent), s.on));
        return resample(sound, sound.size(1) * resample_up / resample_down);
    });
}

StageSeconds Renderer::take_timings() { return std::exchange(state_->timings, {}); }

}  // namespace gallop
