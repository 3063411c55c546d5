#include "pipeline/networks.hpp"

#include "core/log.hpp"

namespace gallop {
namespace {

CountedMemory* counted(Backend& on) { return dynamic_cast<CountedMemory*>(&on.memory()); }

}  // namespace

Networks::Networks(const ModelChoice& choice, Backend& on, Group& group, StageRunner& stages)
    : bundle_(open_bundle(choice.path, choice.arch)),
      on_(on),
      group_(group),
      stages_(stages),
      memory_(bundle_.architecture, choice.precision, choice.fp8,
              {group.rank(), group.size(), on.matrix_unit(compute_dtype(choice.precision))}) {}

std::optional<std::size_t> Networks::memory_left() const {
    const CountedMemory* const memory = counted(on_);
    return memory == nullptr ? std::nullopt : memory->left();
}

void Networks::make_room(std::size_t bytes, const std::string& kept) {
    for (const std::string& name :
         residents_.make_room(bytes, kept, [this] { return memory_left(); }))
        log_info("memory is short, {} leaves the device", name);
}

template <class Network, class Load>
Network& Networks::resident(std::optional<Network>& slot, const std::string& name,
                            const StageMemory& need, const Load& load) {
    const std::size_t arrays = with_workspaces(need.arrays);
    if (slot) {
        residents_.used(name);
        make_room(arrays, name);
        return *slot;
    }
    stages_.run("load", 0, [&] {
        make_room(need.weights + arrays, name);
        slot.emplace(load());
        log_info("loaded {} megabytes={}", name, need.weights >> 20);
        residents_.came(name, need.weights, [&slot] { slot.reset(); });
    });
    return *slot;
}

const Tokenizer& Networks::tokenizer() {
    if (!tokenizer_) tokenizer_.emplace(Tokenizer::open(bundle_.text_encoder()));
    return *tokenizer_;
}

TextEncoder& Networks::text_encoder(const StageMemory& need) {
    return resident(text_encoder_, "text encoder", need, [&] {
        return TextEncoder(bundle_.text_encoder(), memory_.text_options(), on_);
    });
}

WanVae Networks::load_wan(WanPart part) {
    // The other half's tensors are surplus here, not mistakes.
    const WanVaeConfig& config = architecture().wan;
    return {config,
            Checkpoint::open(bundle_.wan_vae())
                .load(specs(config, part, memory_.dtype()), on_, {.strict = false}),
            memory_.dtype()};
}

WanVae& Networks::picture_encoder(const StageMemory& need) {
    return resident(wan_encoder_, "picture encoder", need,
                    [&] { return load_wan(WanPart::encoder); });
}

AudioVae& Networks::sound_vae(const StageMemory& need) {
    return resident(sound_vae_, "sound VAE", need, [&] {
        const AudioVaeConfig& config = architecture().audio;
        return AudioVae(config,
                        Checkpoint::open(bundle_.audio_vae())
                            .load(specs(config), on_, {.prefix = std::string(audio_vae_prefix)}),
                        on_);
    });
}

Transformer& Networks::transformer(const std::string& variant, const StageMemory& need) {
    return resident(transformers_[variant], "transformer " + variant, need, [&] {
        return Transformer(
            config_of(variant),
            Checkpoint::open(bundle_.dit(variant)).load(memory_.transformer_table(variant), on_),
            on_, group_);
    });
}

Networks::PictureDecoding Networks::picture_decoder(VideoDecoder decoder, const StageMemory& need) {
    const auto decoding = [this](const auto& network) -> PictureDecoding {
        return [this, &network](ConstTensorView latent, const PictureSink& sink, Index strips) {
            network.decode(latent, on_, sink, strips);
        };
    };
    if (decoder == VideoDecoder::wan)
        return decoding(resident(wan_decoder_, "full decoder", need,
                                 [&] { return load_wan(WanPart::decoder); }));
    return decoding(resident(turbo_, "turbo decoder", need, [&] {
        const TurboVaeConfig& config = architecture().turbo;
        return TurboVae(
            config,
            load_turbo_vae(Checkpoint::open(bundle_.turbo_vae()), config, memory_.dtype(), on_),
            memory_.dtype());
    }));
}

}  // namespace gallop
