#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "model/bundle.hpp"
#include "model/tokenizer.hpp"
#include "pipeline/memory_model.hpp"
#include "pipeline/residents.hpp"
#include "pipeline/stage_runner.hpp"

namespace gallop {

/// The networks of a model folder on one backend. Each is loaded when it is first needed and stays while
/// there is room: where a stage doesn't fit beside what is there, the networks that were unused for longest
/// leave, and come back when they are needed.
class Networks {
public:
    /// Decodes a latent [48, T, Y, X] in so many strips.
    using PictureDecoding =
        std::function<void(ConstTensorView latent, const PictureSink& sink, Index strips)>;

    /// Reads the folder's architecture; no weights yet. All but `choice` must outlive it. Throws InputError.
    Networks(const ModelChoice& choice, Backend& on, Group& group, StageRunner& stages);
    Networks(const Networks&) = delete;
    Networks& operator=(const Networks&) = delete;

    const Architecture& architecture() const { return bundle_.architecture; }
    /// The variant of that name. Throws InputError.
    const TransformerConfig& config_of(const std::string& variant) const {
        return bundle_.variant(variant).network;
    }
    MemoryModel& memory() { return memory_; }
    /// Bytes that could still be had of the device; nothing where nobody knows.
    std::optional<std::size_t> memory_left() const;

    const Tokenizer& tokenizer();

    // A network on the device, and beside it room for the arrays of the stage that needs it: `need` is the
    // memory model's word on it. Good until another one is asked for. Throw InputError when the folder
    // doesn't hold it.
    TextEncoder& text_encoder(const StageMemory& need);
    WanVae& picture_encoder(const StageMemory& need);
    AudioVae& sound_vae(const StageMemory& need);
    Transformer& transformer(const std::string& variant, const StageMemory& need);
    PictureDecoding picture_decoder(VideoDecoder decoder, const StageMemory& need);

private:
    template <class Network, class Load>
    Network& resident(std::optional<Network>& slot, const std::string& name,
                      const StageMemory& need, const Load& load);
    WanVae load_wan(WanPart part);
    void make_room(std::size_t bytes, const std::string& kept);

    Bundle bundle_;
    Backend& on_;
    Group& group_;
    StageRunner& stages_;
    MemoryModel memory_;
    Residents residents_;
    std::optional<Tokenizer> tokenizer_;
    std::optional<TextEncoder> text_encoder_;
    std::map<std::string, std::optional<Transformer>> transformers_;
    std::optional<WanVae> wan_encoder_, wan_decoder_;
    std::optional<TurboVae> turbo_;
    std::optional<AudioVae> sound_vae_;
};

}  // namespace gallop
