#pragma once

#include <vector>

#include "core/reader.hpp"
#include "model/video_layers.hpp"

namespace gallop {

/// The Wan2.2 video VAE; the defaults are the published network. Source: vae2_2.py of Wan2.2.
struct WanVaeConfig {
    Index dim = 160;      ///< the encoder's narrowest width
    Index dec_dim = 256;  ///< the decoder's
    Index z_dim = video_latent_channels;
    std::vector<Index> dim_mult{1, 2, 4,
                                4};  ///< width of each stage; every stage but the last halves Y, X
    Index num_res_blocks = 2;        ///< a stage; the decoder has one more
    std::vector<bool> temporal_downsample{false, true, true};  ///< whether a stage halves time too
};

/// Reads the configuration (the published file has none; `temperal_downsample` is spelt as there).
WanVaeConfig read_wan_vae(Reader& in);

/// The halves can be had alone: the pipeline encodes one picture and mostly decodes by the turbo
/// decoder.
enum class WanPart { encoder, decoder, both };

/// Every tensor of the part, kernels in `dtype`.
std::vector<TensorSpec> specs(const WanVaeConfig& config, WanPart part = WanPart::both,
                              DType dtype = DType::f32);

/// Encoder and full causal decoder. Time is cut into chunks, and each causal convolution keeps the
/// last frames it saw, so that memory does not grow with the clip; the cuts don't show in the
/// result.
class WanVae {
public:
    /// `weights`: loaded by `specs(config, part, dtype)`; activations have that dtype too.
    WanVae(WanVaeConfig config, Weights weights, DType dtype = DType::f32);

    /// The posterior's mean, normalised. pictures: [F, Y, X, 3] f32 in −1 … 1, Y and X multiples of
    /// 16 (in general 2^stages), F = 1 + 4k (in general 1 + k·2^halvings) → [48, 1 + k, Y/16, X/16]
    /// f32.
    Tensor encode(ConstTensorView pictures, Backend& on) const;

    /// Decodes a normalised latent [48, T, Y, X] f32 → 4(T − 1) + 1 pictures of 16Y × 16X, clamped
    /// to −1 … 1, handed to `sink` as they are finished. With more than one strip (see Strip) the
    /// last stages go over the whole clip once a strip; what is between waits in host memory, and
    /// pictures come only once all strips are done.
    void decode(ConstTensorView latent, Backend& on, const PictureSink& sink,
                Index strips = 1) const;
    /// The most strips worth cutting a picture of so many latent rows into.
    Index most_strips(Index latent_rows) const;
    /// A clip of so many latent frames takes as much memory while it is decoded as any longer one does, but
    /// for the latents themselves. latent: [48, T, Y, X].
    Index telling_frames(const Shape& latent) const;

    const WanVaeConfig& config() const { return config_; }

private:
    WanVaeConfig config_;
    Weights weights_;
    DType dtype_;
};

}  // namespace gallop
