#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/clip.hpp"
#include "core/random.hpp"
#include "core/reader.hpp"
#include "model/checkpoint.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// One half of the "Oobleck" autoencoder. Source: OobleckEncoder and OobleckDecoder in
/// models/autoencoders.py of stable-audio-tools.
struct OobleckConfig {
    Index audio_channels = 2;
    Index channels = 128;   ///< narrowest width
    Index latent_dim = 64;  ///< of its latent side; the encoder's holds mean and scale
    std::vector<Index> c_mults{1, 2, 4, 8, 16};  ///< width behind each stride
    std::vector<Index> strides{2, 4, 4, 8, 8};
    bool snake = true;        ///< else ELU
    bool final_tanh = false;  ///< of the decoder
};

/// The sound VAE; the defaults are Stable Audio Open 1.0.
struct AudioVaeConfig {
    OobleckConfig encoder{.latent_dim = 128};
    OobleckConfig decoder;
    /// Samples a latent: the product of the strides.
    Index ratio() const;
};

/// Where the published file keeps the VAE's tensors.
inline constexpr std::string_view audio_vae_prefix = "pretransform.model.";

/// Reads `model_config.json`. What is not the autoencoder is let pass.
AudioVaeConfig read_audio_vae(Reader& in);

/// Every tensor as stored (weight norm not folded), names without the prefix.
std::vector<TensorSpec> specs(const AudioVaeConfig& config);

/// The same as the network multiplies by them: `weight` in place of `weight_g` and `weight_v`.
std::vector<TensorSpec> folded_specs(const AudioVaeConfig& config);

/// w = g·v/‖v‖, the norm over all axes but the first, computed in double. g: [d₀, 1, 1], v: [d₀, …]
/// f32 on the host.
Tensor fold_weight_norm(ConstTensorView g, ConstTensorView v);

/// mean + (softplus(scale) + 1e-4)·noise. mean_scale: [A, 2·C] f32 on the host; noise: A·C normals,
/// or none: the mean. → [A, C].
Tensor sample_posterior(ConstTensorView mean_scale, std::span<const float> noise);

/// Joins latents of overlapping windows by a linear cross-fade. windows: [n, C] each, the same n;
/// each begins n − ⌊n/2⌋ latents behind the one before. → [(count − 1)·(n − ⌊n/2⌋) + n, C]. Source:
/// merge_overlapping_vae_features in video_process.py of daVinci-MagiHuman.
Tensor cross_fade(std::span<const Tensor> windows);

/// In how many windows a driving sound is encoded: each begins half a window behind the one before,
/// until one reaches the end. Source: load_audio_and_encode in video_process.py of
/// daVinci-MagiHuman.
Index driving_windows(Index samples, Index window = driving_window);

/// Sound to latents and back.
class AudioVae {
public:
    /// `stored`: loaded by `specs(config)`. Folds the weight norm, layer by layer.
    AudioVae(AudioVaeConfig config, Weights stored, Backend& on);
    /// `folded`: the tensors of `folded_specs(config)`.
    AudioVae(AudioVaeConfig config, Weights folded)
        : config_(std::move(config)), weights_(std::move(folded)) {}

    /// sound: [channels, S] f32 in about −1 … 1, at 51,200 Hz for our use → mean and scale side by
    /// side, [A, 2·C] f32, A = ⌊S/ratio⌋ for even strides. Samples that fill no latent of their own
    /// still count: the last latents hear them where there would be silence.
    Tensor encode(ConstTensorView sound, Backend& on) const;

    /// Latents of a driving sound. mono: [S] f32 at 51,200 Hz on the host, given to every channel.
    /// What is longer than `window` samples is encoded in windows of that length, half overlapping,
    /// the last one filled up with silence, and cross-faded. posterior: the noise to sample with,
    /// or none for the mean. → [A, C] f32 on the host, A = ⌊S/ratio⌋ in one window, ⌈S/ratio⌉ in more.
    /// Throws InputError when the sound is shorter than one latent.
    Tensor encode_driving(ConstTensorView mono, const std::optional<NoiseStream>& posterior,
                          Backend& on, Index window = driving_window) const;

    /// latent: [A, C] f32 → [channels, S] f32, S = A·ratio for even strides.
    Tensor decode(ConstTensorView latent, Backend& on) const;

    const AudioVaeConfig& config() const { return config_; }

private:
    AudioVaeConfig config_;
    Weights weights_;
};

}  // namespace gallop
