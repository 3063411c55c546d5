#include "pipeline/memory.hpp"

#include <algorithm>

#include "model/shard.hpp"
#include "ops/dry.hpp"

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
        std::array<Index, 5> kernel{1, 1, 1, 1, 1};  // as prepare_conv gives it
        std::copy(spec.shape.begin(),
                  spec.shape.begin() + std::min<std::size_t>(2, spec.shape.rank()), kernel.begin());
        std::copy_backward(spec.shape.begin() + std::min<std::size_t>(2, spec.shape.rank()),
                           spec.shape.end(), kernel.end());
        weights.put(spec.name, on.empty(spec.conv ? Shape(kernel) : spec.shape, spec.dtype));
    }
    return weights;
}

/// The peak of `work` beyond what is held before it.
template <class Work>
std::size_t peak_of(DryBackend& on, const Work& work) {
    const std::size_t before = on.counted().use().now;
    on.counted().restart_peak();
    work();
    return on.counted().use().peak - before;
}

template <class Network, class Config>
std::size_t decoding(const Config& config, const std::vector<TensorSpec>& table, DType dtype,
                     const Shape& latent, Index strips) {
    const auto on = make_dry_backend();
    const Network network(config, dry_weights(table, *on), dtype);
    return peak_of(*on, [&] {
        const Tensor z =
            on->empty({latent[0], std::min(latent[1], telling_frames), latent[2], latent[3]});
        network.decode(
            z, *on, [&](ConstTensorView pictures) { on->empty(pictures.shape(), DType::u8); },
            strips);
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

std::size_t forward_peak(const TransformerConfig& config, DType dtype, const SequenceShape& shape,
                         int gpus) {
    const auto on = make_dry_backend();
    const auto group = make_dry_group(gpus);
    Transformer network(config,
                        dry_weights(sharded_specs(config, dtype, shard_of(config, 0, gpus)), *on),
                        *on, *group);
    return peak_of(*on, [&] {
        const Tensor video = on->empty(
            {config.video_in_channels / 4, shape.frames, 2 * shape.rows, 2 * shape.columns});
        const Tensor audio = on->empty({shape.audio, config.audio_in_channels});
        const Tensor text = on->empty({shape.text, config.text_in_channels});
        network.forward({video, audio, text});
    });
}

Index strips_that_fit(std::optional<std::size_t> left, Index most,
                      const std::function<std::size_t(Index strips)>& peak) {
    if (!left) return 1;
    constexpr std::size_t libraries = std::size_t{512} << 20;  // workspaces of the convolutions
    for (Index strips = 1; strips < most; ++strips)
        if (const std::size_t bytes = peak(strips); bytes + bytes / 8 + libraries <= *left)
            return strips;
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
