#pragma once

#include <vector>

#include "core/reader.hpp"
#include "model/video_layers.hpp"

namespace gallop {

/// Turbo-VAED's decoder; the lists are in encoder order, as its JSON has them, and the decoder
/// walks them backwards. The defaults are the published network. Source: turbo_vaed_module.py of
/// daVinci-MagiHuman.
struct TurboVaeConfig {
    Index latent_channels = video_latent_channels;
    std::vector<Index> channels{64, 128, 256, 512};             ///< per up-block
    std::vector<Index> layers{2, 2, 2, 3, 3};                   ///< per up-block, then the middle
    std::vector<bool> scaling{false, true, true, true};         ///< whether the up-block enlarges
    std::vector<bool> spatial_only{false, true, false, false};  ///< … in space only
    bool unpatchify =
        true;  ///< the last enlargement folds channels into pixels; else a convolution does
    float shortcut_eps = 1e-6F;
    Index temporal_ratio =
        4;                  ///< pictures a latent frame, for what is dropped where chunks overlap
    Index first_chunk = 7;  ///< latent frames
    Index step = 7;         ///< latent frames of each further chunk
};

/// Reads an architecture file's section, whose keys are those of `turbo_vae.json`; absent ones have the
/// published values. Keys without a meaning for decoding are let pass.
TurboVaeConfig read_turbo_vae(Reader& in);
/// Reads `turbo_vae.json` itself: absent keys have the values that the authors' class gives them, which
/// are not those of the published network.
TurboVaeConfig read_turbo_vae_json(Reader& in);

/// Every tensor of the decoder, kernels in `dtype`.
std::vector<TensorSpec> specs(const TurboVaeConfig& config, DType dtype = DType::f32);

/// Looks whether a checkpoint holds the decoder, by its headers alone. Throws InputError as
/// Checkpoint::require.
void require_turbo_vae(const Checkpoint& file, const TurboVaeConfig& config, DType dtype);
/// Loads the decoder's tensors from a checkpoint; what else it holds is let pass. Names may have
/// `module.` in front, and lack `decoder.` where none in the file begins with a part's name. Throws
/// InputError as Checkpoint::load.
Weights load_turbo_vae(const Checkpoint& file, const TurboVaeConfig& config, DType dtype,
                       Backend& on);

/// The small non-causal decoder for video latents.
class TurboVae {
public:
    /// `weights`: loaded by `specs(config, dtype)`; activations have that dtype too.
    TurboVae(TurboVaeConfig config, Weights weights, DType dtype = DType::f32);

    /// Decodes a normalised latent [48, T, Y, X] f32 in overlapping chunks; each finished chunk
    /// goes to `sink`. 4(T − 1) + 1 pictures of 16Y × 16X with the published layout of blocks. The
    /// last layers work on `strips` strips of the picture (see Strip).
    void decode(ConstTensorView latent, Backend& on, const PictureSink& sink,
                Index strips = 1) const;
    /// The most strips worth cutting a picture of so many latent rows into.
    Index most_strips(Index latent_rows) const;
    /// A clip of so many latent frames takes as much memory while it is decoded as any longer one does, but
    /// for the latents themselves. latent: [48, T, Y, X].
    Index telling_frames(const Shape& latent) const;

    const TurboVaeConfig& config() const { return config_; }

private:
    TurboVaeConfig config_;
    Weights weights_;
    DType dtype_;
};

/// One call of the decoder network within a chunked decode.
struct TurboChunk {
    Index begin, end;  ///< latent frames given, of the padded latent
    bool first;        ///< the first-chunk rule: each enlargement in time drops its first frame
    Index drop_front, drop_back;  ///< decoded pictures that belong to a neighbour
    bool operator==(const TurboChunk&) const = default;
};

/// How T latent frames are decoded.
struct TurboChunks {
    Index padding;  ///< copies of the last latent frame put behind
    std::vector<TurboChunk> chunks;
};
TurboChunks turbo_chunks(const TurboVaeConfig& config, Index frames);

}  // namespace gallop
