#pragma once

#include <array>
#include <map>
#include <string>

#include "model/architecture.hpp"
#include "pipeline/item.hpp"
#include "pipeline/memory.hpp"
#include "pipeline/model_choice.hpp"

namespace gallop {

/// What a stage takes of a device.
struct StageMemory {
    std::size_t weights = 0;  ///< bytes of its network, as it is loaded
    std::size_t arrays = 0;   ///< of one run's arrays, at the peak
    bool operator==(const StageMemory&) const = default;
};

/// What a network's transformers are loaded for: one member of a tensor-parallel group.
struct Member {
    int rank = 0;
    int size = 1;
    Index unit = 1;  ///< of matrices, see Backend::matrix_unit
};

/// What each stage takes of each device, for one model folder and one way to compute: a renderer reserves
/// it, a plan predicts it. Each shape is run dry once.
class MemoryModel {
public:
    /// `networks` must outlive it.
    MemoryModel(const Architecture& networks, Precision precision, Fp8Choice fp8,
                const Member& member = {});

    /// A transformer's tensors as they are loaded. Throws InputError when the member's share or the choice of
    /// layers doesn't fit the network.
    std::vector<TensorSpec> transformer_table(const std::string& variant) const;
    /// How the text encoder runs.
    TextEncoderOptions text_options() const;
    DType dtype() const { return compute_dtype(precision_); }

    /// A prompt of so many tokens; those that the transformers would take whole are all counted as the
    /// longest.
    StageMemory text(Index tokens);
    /// A picture that a clip of this size begins with.
    StageMemory image(Size size);
    /// A sound that drives a clip of so many latents, its last samples, which fill no latent of their
    /// own, included.
    StageMemory audio(Index latents);
    /// Denoising with the longest text: stages of one size take blocks of one size, whatever the prompt.
    StageMemory denoise(const std::string& variant, Size size, Index audio_latents);
    /// Decoding a picture latent [48, T, Y, X].
    StageMemory decode(VideoDecoder decoder, const Shape& latent, Index strips);
    /// Into how many strips at most a picture of so many latent rows is cut.
    Index most_strips(VideoDecoder decoder, Index latent_rows) const;
    StageMemory decode_audio(Index latents);

private:
    using Shapes = std::array<Index, 5>;
    template <class Made>
    StageMemory once(const std::string& stage, const Shapes& shape, const Made& made);

    const Architecture& networks_;
    Precision precision_;
    Fp8Choice fp8_;
    Member member_;
    std::map<std::pair<std::string, Shapes>, StageMemory> known_;
};

/// The sequence of a stage on pictures of a size, with so many rows of text.
SequenceShape sequence_of(Size size, Index audio_latents, Index text);

/// Latent extents of a clip's picture.
Shape latent_shape(Size size, Index audio_latents);

}  // namespace gallop
