#include "pipeline/memory.hpp"

#include <algorithm>

#include "core/memory_use.hpp"
#include "model/fp8.hpp"
#include "ops/dry.hpp"
#include "ops/workspace.hpp"
#include "pipeline/picture_relay.hpp"

namespace gallop {
namespace {

/// A network's weights that hold nothing.
Weights dry_weights(const std::vector<TensorSpec>& specs, Backend& on) {
    Weights weights;
    for (const TensorSpec& spec : specs) {
        if (spec.optional) continue;
        if (spec.dtype == DType::f8_e4m3)
            weights.put(spec.name + std::string(fp8_scale_suffix), on.empty({spec.shape[0]}));
        std::array<Index, 5> kernel{1, 1, 1, 1, 1};  // as prepare_conv gives it
        std::copy(spec.shape.begin(),
                  spec.shape.begin() + std::min<std::size_t>(2, spec.shape.rank()), kernel.begin());
        std::copy_backward(spec.shape.begin() + std::min<std::size_t>(2, spec.shape.rank()),
                           spec.shape.end(), kernel.end());
        weights.put(spec.name, on.empty(spec.conv ? Shape(kernel) : spec.shape, spec.dtype));
    }
    return weights;
}

/// The block that `work` needs for its arrays.
template <class Work>
std::size_t peak_of(DryBackend& on, const Work& work) {
    const MemoryStage stage(&on.counted(), std::size_t{1} << 46);  // nobody writes there
    work();
    return stage.extent();
}

template <class Network, class Config>
std::size_t decoding(const Config& config, const std::vector<TensorSpec>& table, DType dtype,
                     const Shape& latent, Index strips) {
    const auto on = make_dry_backend();
    const Network network(config, dry_weights(table, *on), dtype);
    const Index frames = std::min(latent[1], network.telling_frames(latent));
    // The others are there twice, as they came and as the network takes them.
    const Index others = (latent[1] - frames) * latent[0] * latent[2] * latent[3];
    const std::size_t held = static_cast<std::size_t>(others) * (sizeof(float) + size_of(dtype));
    return held + peak_of(*on, [&] {
               const Tensor z = on->empty({latent[0], frames, latent[2], latent[3]});
               const FrameSink nobody = [](ConstTensorView) {};
               PictureRelay relay(*on, 16 * latent[2], 16 * latent[3], {}, nobody);
               network.decode(
                   z, *on, [&](ConstTensorView pictures) { relay.add(pictures); }, strips);
               relay.finish();
           });
}

}  // namespace

std::size_t text_peak(const TextEncoderConfig& config, const TextEncoderOptions& options,
                      Index tokens) {
    const auto on = make_dry_backend();
    const auto table = text_encoder_specs(config, options.compute, options.fp8);
    const TextEncoder network(config, dry_weights(table, *on), options, *on);
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    return peak_of(*on, [&] { network.encode(ids); });
}

std::size_t encode_peak(const WanVaeConfig& config, DType dtype, Index rows, Index columns) {
    const auto on = make_dry_backend();
    const auto table = specs(config, WanPart::encoder, dtype);
    const WanVae network(config, dry_weights(table, *on), dtype);
    return peak_of(*on, [&] { network.encode(on->empty({1, rows, columns, 3}), *on); });
}

std::size_t encode_peak(const AudioVaeConfig& config, Index samples) {
    const auto on = make_dry_backend();
    const AudioVae network(config, dry_weights(folded_specs(config), *on));
    const Shape window{config.encoder.audio_channels, std::min(samples, driving_window)};
    return peak_of(*on, [&] { network.encode(on->empty(window), *on); });
}

std::size_t decode_peak(const AudioVaeConfig& config, Index latents) {
    const auto on = make_dry_backend();
    const AudioVae network(config, dry_weights(folded_specs(config), *on));
    return peak_of(*on, [&] {
        network.decode(on->empty({latents, config.decoder.latent_dim}), *on);
    });
}

std::size_t decode_peak(const TurboVaeConfig& config, DType dtype, const Shape& latent,
                        Index strips) {
    return decoding<TurboVae>(config, specs(config, dtype), dtype, latent, strips);
}

std::size_t decode_peak(const WanVaeConfig& config, DType dtype, const Shape& latent,
                        Index strips) {
    return decoding<WanVae>(config, specs(config, WanPart::decoder, dtype), dtype, latent, strips);
}

std::size_t forward_peak(const TransformerConfig& config, const std::vector<TensorSpec>& table,
                         const SequenceShape& shape, int gpus) {
    const auto on = make_dry_backend();
    const auto group = make_dry_group(gpus);
    Transformer network(config, dry_weights(table, *on), *on, *group);
    // Nobody reads the table: its angles aren't worth computing.
    network.prepare(shape, on->empty({shape.tokens(), 6 * config.bands()}));
    return peak_of(*on, [&] {
        const Tensor video = on->empty(
            {config.video_in_channels / 4, shape.frames, 2 * shape.rows, 2 * shape.columns});
        const Tensor audio = on->empty({shape.audio, config.audio_in_channels});
        const Tensor text = on->empty({shape.text, config.text_in_channels});
        network.forward({video, audio, text});
    });
}

std::size_t weight_bytes(const std::vector<TensorSpec>& table) {
    std::size_t bytes = 0;
    for (const TensorSpec& spec : table) {
        bytes += static_cast<std::size_t>(spec.shape.numel()) * size_of(spec.dtype);
        if (spec.dtype == DType::f8_e4m3)
            bytes += static_cast<std::size_t>(spec.shape[0]) * sizeof(float);
    }
    return bytes;
}

std::size_t with_workspaces(std::size_t bytes) {
    return bytes + bytes / 8 + (std::size_t{1} << 30);
}

std::size_t sampler_bytes(const TransformerConfig& config, const SequenceShape& shape) {
    // Velocities of two passes, three predictions, the last sample, noise, and what the second stage begins
    // with.
    constexpr Index latents = 12;
    const Index values = latents * (shape.video() * config.video_in_channels +
                                    shape.audio * config.audio_in_channels) +
                         shape.text * config.text_in_channels;
    return static_cast<std::size_t>(values) * sizeof(float);
}

std::size_t stage_bytes(std::size_t arrays) { return arrays + arrays / 16 + most_workspace; }

Index strips_that_fit(std::optional<std::size_t> left, Index most,
                      const std::function<std::size_t(Index strips)>& peak) {
    if (!left) return 1;
    for (Index strips = 1; strips < most; ++strips)
        if (with_workspaces(peak(strips)) <= *left) return strips;
    return most;
}

}  // namespace gallop
