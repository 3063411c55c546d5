#include "pipeline/memory.hpp"

#include <algorithm>

#include "model/fp8.hpp"
#include "ops/dry.hpp"
#include "pipeline/picture_relay.hpp"

namespace gallop {
namespace {

/// The decoders' arrays don't grow with the clip beyond so many latent frames: a first chunk and two
/// of the largest that follow.
constexpr Index telling_frames = 17;

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
    return peak_of(*on, [&] {
        const Tensor z =
            on->empty({latent[0], std::min(latent[1], telling_frames), latent[2], latent[3]});
        const FrameSink nobody = [](ConstTensorView) {};
        PictureRelay relay(*on, 16 * latent[2], 16 * latent[3], {}, nobody);
        network.decode(
            z, *on, [&](ConstTensorView pictures) { relay.add(pictures); }, strips);
        relay.finish();
    });
}

}  // namespace

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
    network.prepare(shape);
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
    constexpr std::size_t latents = 12;
    const Index values =
        shape.video() * config.video_in_channels + shape.audio * config.audio_in_channels;
    return latents * static_cast<std::size_t>(values) * sizeof(float);
}

std::size_t stage_bytes(std::size_t arrays) {
    return arrays + arrays / 16 + (std::size_t{64} << 20);
}

Index strips_that_fit(std::optional<std::size_t> left, Index most,
                      const std::function<std::size_t(Index strips)>& peak) {
    if (!left) return 1;
    for (Index strips = 1; strips < most; ++strips)
        if (with_workspaces(peak(strips)) <= *left) return strips;
    return most;
}

void Residents::came(const std::string& name, std::function<void()> leave) {
    all_.emplace_back(name, std::move(leave));
}

void Residents::used(const std::string& name) {
    const auto found = std::find_if(all_.begin(), all_.end(),
                                    [&](const auto& entry) { return entry.first == name; });
    if (found != all_.end()) all_.splice(all_.end(), all_, found);
}

std::vector<std::string> Residents::make_room(
    std::size_t bytes, const std::string& kept,
    const std::function<std::optional<std::size_t>()>& left) {
    std::vector<std::string> gone;
    for (auto entry = all_.begin(); entry != all_.end();) {
        const auto have = left();
        if (!have || *have >= bytes) break;
        if (entry->first == kept) {
            ++entry;
            continue;
        }
        entry->second();
        gone.push_back(entry->first);
        entry = all_.erase(entry);
    }
    return gone;
}

}  // namespace gallop
