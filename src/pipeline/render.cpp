#include "pipeline/render.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <list>
#include <map>

#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "model/resample.hpp"
#include "model/text_features.hpp"
#include "pipeline/denoise.hpp"
#include "pipeline/fit_image.hpp"
#include "pipeline/networks.hpp"
#include "pipeline/picture_relay.hpp"

namespace gallop {
namespace {

/// Prompts whose features are kept. A sweep asks for the same few again and again.
constexpr std::size_t features_kept = 16;

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
    /// What a clip's latents are made of, on the host.
    struct Given {
        std::shared_ptr<const Tensor> text;
        std::shared_ptr<const Tensor> negative;  ///< null without guidance
        Tensor audio;                            ///< driving latents; undefined: none
    };
    /// The same on the backend, in a stage's block.
    struct OnDevice {
        Tensor text, negative, image;

        OnDevice(const Given& given, const Tensor& image_latent, Backend& on)
            : text(on.upload(*given.text)),
              negative(given.negative ? on.upload(*given.negative) : Tensor()),
              image(image_latent.defined() ? on.upload(image_latent) : Tensor()) {}
        StageInputs inputs(bool audio_fixed) const {
            return {.text = text, .negative = negative, .image = image, .audio_fixed = audio_fixed};
        }
    };

    State(const ModelChoice& choice, Backend& backend, Group& members)
        : on(backend),
          group(members),
          stages(dynamic_cast<CountedMemory*>(&on.memory())),
          networks(choice, on, group, stages) {}

    Backend& on;
    Group& group;
    StageRunner stages;
    Networks networks;
    MemoryModel& memory = networks.memory();
    /// Of prompts, newest first.
    std::list<std::pair<std::string, std::shared_ptr<const Tensor>>> features;
    /// Into how many strips pictures are cut, by decoder, whether in tiles, and shape: once found, a number
    /// stays, and so do a clip's bits.
    std::map<std::array<Index, 5>, Index> strips;
    Index decoded_strips = 0;  ///< of the latest picture; see StageSeconds

    Tensor noise(const Item& item, std::string_view name, const Shape& shape) {
        Tensor made = on.empty(shape);
        on.normal(NoiseStream(item.seed, name), 0, made);
        return made;
    }

    /// A prompt's features; encoded once while they are among the newest.
    std::shared_ptr<const Tensor> text_features(const std::string& prompt) {
        const auto found = std::find_if(features.begin(), features.end(),
                                        [&](const auto& entry) { return entry.first == prompt; });
        if (found != features.end()) {
            features.splice(features.begin(), features, found);
            return found->second;
        }
        const Tokens tokens = networks.tokenizer().encode(prompt);
        const StageMemory need = memory.text(static_cast<Index>(tokens.ids.size()));
        const TextEncoder& encoder = networks.text_encoder(need);
        TextFeatures made =
            stages.run("text", need.arrays, [&] { return encode_prompt(prompt, tokens, encoder); });
        if (!made.warning.empty()) log_warning("{}", made.warning);
        features.emplace_front(prompt, std::make_shared<const Tensor>(std::move(made.embedding)));
        if (features.size() > features_kept) features.pop_back();
        return features.front().second;
    }

    Given prompts(const Item& item) {
        const bool guided = item.base.passes == 2 || (!item.sr.empty() && item.super.passes == 2);
        if (guided && item.negative_prompt.empty())
            throw_input_error("item \"{}\": two guidance passes need a negative prompt", item.name);
        Given made;
        made.text = text_features(item.prompt);
        if (guided) made.negative = text_features(item.negative_prompt);
        return made;
    }

    /// An image as the clean first latent frame of a stage, on the host; undefined without one.
    Tensor image_latent(const Tensor& image, Size size) {
        if (!image.defined()) return {};
        const StageMemory need = memory.image(size);
        const WanVae& encoder = networks.picture_encoder(need);
        return stages.run("image", need.arrays, [&] {
            const Tensor fitted = fit_image(image, size);
            Tensor pixels({1, size.height, size.width, 3});
            for (Index i = 0; i < pixels.numel(); ++i)
                pixels.data<float>()[i] =
                    static_cast<float>(fitted.data<std::uint8_t>()[i]) / 255.0F * 2.0F - 1.0F;
            return on.download(encoder.encode(on.upload(pixels), on));
        });
    }

    /// A driving sound's latents, on the host, as many as the item has.
    Tensor driving_latents(const Item& item, const Tensor& audio) {
        const StageMemory need = memory.audio(item.audio_latents);
        const AudioVae& vae = networks.sound_vae(need);
        return stages.run("audio", need.arrays, [&] {
            std::optional<NoiseStream> posterior;
            if (!item.audio_posterior_mean) posterior.emplace(item.seed, "audio.posterior");
            Tensor latent = vae.encode_driving(audio, posterior, on);
            if (latent.size(0) != item.audio_latents)
                throw_input_error("item \"{}\": the driving sound gives {} latents ({} wanted)",
                                  item.name, latent.size(0), item.audio_latents);
            return latent;
        });
    }

    /// Runs a denoise stage with its network, which has the rotations of both prompts.
    template <class Work>
    auto denoised(const std::string& stage, const std::string& variant, const Item& item, Size size,
                  const Given& given, const Work& work) {
        static_cast<void>(networks.config_of(variant));  // is there one?
        const StageMemory need = memory.denoise(variant, size, item.audio_latents);
        Transformer& network = networks.transformer(variant, need);
        for (const auto& text : {given.text, given.negative})
            if (text) network.prepare(sequence_of(size, item.audio_latents, text->size(0)));
        group.allow_late(loading_patience);
        return stages.run(stage, need.arrays, [&] { return work(network); });
    }

    /// The latents of an item's base stage.
    Latents base(const Item& item, const Given& given, const Tensor& image,
                 const ProgressSink& progress) {
        return denoised(
            "base", item.variant, item, item.base_size, given, [&](Transformer& network) {
                const OnDevice device(given, image, on);
                const bool driven = given.audio.defined();
                Tensor audio = driven
                                   ? on.upload(given.audio)
                                   : noise(item, "audio", {item.audio_latents, audio_channels()});
                Tensor video =
                    noise(item, "video", latent_shape(item.base_size, item.audio_latents));
                const StepNoise fresh = [&](std::string_view modality, int step, TensorView out) {
                    on.normal(NoiseStream(item.seed, fmt::format("renoise.{}.{}", modality, step)),
                              0, out);
                };
                denoise_base(network, item.base, device.inputs(driven), fresh, on, video, audio,
                             progress);
                Latents made{.video_base = on.download(video),
                             .video_final = {},
                             .audio = on.download(audio)};
                group.check();
                check_latent(made.video_base, "base picture");
                check_latent(made.audio, "sound");
                return made;
            });
    }

    /// The final picture latent from those of the base stage.
    Tensor refined(const Item& item, const Conditioning& inputs, const Given& given,
                   const Latents& base, const ProgressSink& progress) {
        const Tensor image = image_latent(inputs.image, item.size);
        return denoised("sr", item.sr, item, item.size, given, [&](Transformer& network) {
            const OnDevice device(given, image, on);
            SrStart start =
                start_sr(item.super, on.upload(base.video_base), on.upload(base.audio),
                         noise(item, "sr.video", latent_shape(item.size, item.audio_latents)),
                         noise(item, "sr.audio", base.audio.shape()), on);
            denoise_sr(network, item.super, device.inputs(inputs.audio.defined()), on, start,
                       progress);
            Tensor final_video = on.download(start.video);
            group.check();
            check_latent(final_video, "final picture");
            return final_video;
        });
    }

    /// Channels of a sound's latent.
    Index audio_channels() const { return networks.architecture().audio.decoder.latent_dim; }

    /// Into how many strips a picture is cut while it is decoded. Networks that are not needed now go before
    /// the picture is cut.
    Index strips_of(const Shape& latent, const PictureDecode& how) {
        const std::array<Index, 5> key = {static_cast<Index>(how.decoder), how.tiled ? 1 : 0,
                                          latent[1], latent[2], latent[3]};
        if (const auto found = strips.find(key); found != strips.end()) return found->second;
        Index count = memory.most_strips(how.decoder, latent[2]);
        if (!how.tiled) {
            networks.picture_decoder(how.decoder, memory.decode(how.decoder, latent, 1));
            count = strips_that_fit(networks.memory_left(), count, [&](Index cut) {
                return memory.decode(how.decoder, latent, cut).arrays;
            });
            if (count > 1) log_info("memory is short, decoding in {} strips", count);
        }
        return strips.emplace(key, count).first->second;
    }
};

Renderer::Renderer(const ModelChoice& choice, Backend& on) : Renderer(choice, on, solo_group()) {}

Renderer::Renderer(const ModelChoice& choice, Backend& on, Group& group)
    : state_(std::make_unique<State>(choice, on, group)) {}

Renderer::~Renderer() = default;

Latents Renderer::denoise(const Item& item, const Conditioning& inputs,
                          const ProgressSink& progress) {
    check_item(item);
    State& s = *state_;
    const auto report = [&](std::string_view stage) {
        if (progress) progress({std::string(stage), 0, 1});
    };
    report("text");
    State::Given given = s.prompts(item);
    if (inputs.audio.defined()) {
        report("audio");
        given.audio = s.driving_latents(item, inputs.audio);
    }
    if (inputs.image.defined()) report("image");
    const Tensor image = s.image_latent(inputs.image, item.base_size);
    Latents latents = s.base(item, given, image, progress);
    if (!item.sr.empty()) latents.video_final = s.refined(item, inputs, given, latents, progress);
    return latents;
}

Latents Renderer::refine(const Item& item, const Conditioning& inputs, Latents base,
                         const ProgressSink& progress) {
    check_item(item);
    if (item.sr.empty())
        throw_input_error("item \"{}\" has no second stage to start from base latents", item.name);
    State& s = *state_;
    const auto check_shape = [&](const Tensor& latent, const Shape& wanted, const char* what) {
        if (!latent.defined() || !(latent.shape() == wanted))
            throw_input_error("item \"{}\": its base latents hold {} of shape {} (must be {})",
                              item.name, what, to_string(latent.shape()), to_string(wanted));
    };
    check_shape(base.video_base, latent_shape(item.base_size, item.audio_latents), "a picture");
    check_shape(base.audio, {item.audio_latents, s.audio_channels()}, "a sound");
    check_latent(base.video_base, "base picture");
    check_latent(base.audio, "sound");
    if (progress) progress({"text", 0, 1});
    base.video_final = s.refined(item, inputs, s.prompts(item), base, progress);
    return base;
}

void Renderer::decode_video(const Tensor& latent, const PictureDecode& how, const FrameSink& sink,
                            const ProgressSink& progress) {
    const int frames = how.frames;
    State& s = *state_;
    Index done = 0;
    const auto report = [&] {
        if (progress) progress({"decode", static_cast<int>(done), frames});
    };
    report();
    const Index strips = s.decoded_strips = s.strips_of(latent.shape(), how);
    const StageMemory need = s.memory.decode(how.decoder, latent.shape(), strips);
    const Networks::PictureDecoding decode = s.networks.picture_decoder(how.decoder, need);
    s.stages.run("decode", need.arrays, [&] {
        const Tensor on_device = s.on.upload(latent);
        PictureRelay relay(s.on, 16 * latent.size(2), 16 * latent.size(3), how.planes, sink);
        const PictureSink pictures = [&](ConstTensorView chunk) {
            const Index wanted = std::min<Index>(chunk.size(0), frames - done);
            if (wanted <= 0) return;
            relay.add(chunk.rows(0, wanted));
            done += wanted;
            report();
        };
        decode(on_device, pictures, strips);
        relay.finish();
    });
    if (done < frames)
        throw BadOutputError(fmt::format("the latent holds {} pictures ({} wanted)", done, frames));
}

std::future<Tensor> Renderer::decode_audio(const Tensor& latent) {
    State& s = *state_;
    const StageMemory need = s.memory.decode_audio(latent.size(0));
    const AudioVae& vae = s.networks.sound_vae(need);
    return s.stages.run("decode audio", need.arrays, [&] {
        return resample_aside(s.on.download(vae.decode(s.on.upload(latent), s.on)));
    });
}

StageSeconds Renderer::take_timings() {
    StageSeconds taken = state_->stages.take();
    taken.strips = std::exchange(state_->decoded_strips, 0);
    return taken;
}

}  // namespace gallop
