#include "pipeline/memory_model.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "model/text_features.hpp"

namespace gallop {

MemoryModel::MemoryModel(const Architecture& networks, Precision precision, Fp8Choice fp8,
                         const Member& member)
    : networks_(networks), precision_(precision), fp8_(std::move(fp8)), member_(member) {}

std::vector<TensorSpec> MemoryModel::transformer_table(const std::string& variant) const {
    const TransformerConfig& config = networks_.variants.at(variant).network;
    auto table =
        sharded_specs(config, dtype(), shard_of(config, member_.rank, member_.size, member_.unit));
    if (precision_ == Precision::fp8) choose_fp8(table, config.num_layers, fp8_, variant);
    return table;
}

TextEncoderOptions MemoryModel::text_options() const {
    return {.compute = dtype(), .fp8 = precision_ == Precision::fp8 && fp8_.text_encoder};
}

template <class Made>
StageMemory MemoryModel::once(const std::string& stage, const Shapes& shape, const Made& made) {
    const auto found = known_.find({stage, shape});
    return found != known_.end() ? found->second
                                 : known_.emplace(std::pair(stage, shape), made()).first->second;
}

StageMemory MemoryModel::text(Index tokens) {
    const Index rows = std::max(tokens, max_text_rows);
    return once("text", {rows}, [&] {
        const TextEncoderOptions how = text_options();
        return StageMemory{weight_bytes(text_encoder_specs(networks_.text, how.compute, how.fp8)),
                           text_peak(networks_.text, how, rows)};
    });
}

StageMemory MemoryModel::image(Size size) {
    return once("image", {size.height, size.width}, [&] {
        return StageMemory{weight_bytes(specs(networks_.wan, WanPart::encoder, dtype())),
                           encode_peak(networks_.wan, dtype(), size.height, size.width)};
    });
}

StageMemory MemoryModel::audio(Index latents) {
    return once("audio", {latents}, [&] {
        const Index most_samples = (latents + 1) * networks_.audio.ratio() - 1;
        return StageMemory{weight_bytes(specs(networks_.audio)),
                           encode_peak(networks_.audio, most_samples)};
    });
}

StageMemory MemoryModel::denoise(const std::string& variant, Size size, Index audio_latents) {
    return once(variant, {size.height, size.width, audio_latents}, [&] {
        const TransformerConfig& config = networks_.variants.at(variant).network;
        const SequenceShape shape = sequence_of(size, audio_latents, max_text_rows);
        const auto table = transformer_table(variant);
        return StageMemory{weight_bytes(table), forward_peak(config, table, shape, member_.size) +
                                                    sampler_bytes(config, shape)};
    });
}

StageMemory MemoryModel::decode(VideoDecoder decoder, const Shape& latent, Index strips) {
    const Index which = decoder == VideoDecoder::turbo ? 0 : 1;
    return once("decode", {which, latent[1], latent[2], latent[3], strips}, [&] {
        if (decoder == VideoDecoder::turbo)
            return StageMemory{weight_bytes(specs(networks_.turbo, dtype())),
                               decode_peak(networks_.turbo, dtype(), latent, strips)};
        return StageMemory{weight_bytes(specs(networks_.wan, WanPart::decoder, dtype())),
                           decode_peak(networks_.wan, dtype(), latent, strips)};
    });
}

Index MemoryModel::most_strips(VideoDecoder decoder, Index latent_rows) const {
    return decoder == VideoDecoder::turbo ? TurboVae(networks_.turbo, {}).most_strips(latent_rows)
                                          : WanVae(networks_.wan, {}).most_strips(latent_rows);
}

StageMemory MemoryModel::decode_audio(Index latents) {
    return once("decode audio", {latents}, [&] {
        return StageMemory{weight_bytes(specs(networks_.audio)),
                           decode_peak(networks_.audio, latents)};
    });
}

SequenceShape sequence_of(Size size, Index audio_latents, Index text) {
    return {(audio_latents - 1) / 4 + 1, size.height / 32, size.width / 32, audio_latents, text};
}

Shape latent_shape(Size size, Index audio_latents) {
    return {video_latent_channels, (audio_latents - 1) / 4 + 1, size.height / 16, size.width / 16};
}

}  // namespace gallop
