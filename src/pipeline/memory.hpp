#pragma once

#include <functional>
#include <optional>

#include "model/audio_vae.hpp"
#include "model/text_encoder.hpp"
#include "model/transformer.hpp"
#include "model/turbo_vae.hpp"
#include "model/wan_vae.hpp"

namespace gallop {

// How large a block of device memory (see MemoryStage) holds all arrays of one stage, beyond the
// networks' weights and what the device's libraries need of their own. Found by running the networks dry
// (see DryBackend): what they allocate there, in that order, is what they allocate on a device.

/// Encoding a prompt of so many tokens.
std::size_t text_peak(const TextEncoderConfig& config, const TextEncoderOptions& options,
                      Index tokens);
/// Encoding one picture of so many pixels.
std::size_t encode_peak(const WanVaeConfig& config, DType dtype, Index rows, Index columns);
/// Encoding a driving sound of so many samples, window by window.
std::size_t encode_peak(const AudioVaeConfig& config, Index samples);
/// Decoding a normalised latent [48, T, Y, X] into bytes of RGB, with a PictureRelay.
std::size_t decode_peak(const TurboVaeConfig& config, DType dtype, const Shape& latent,
                        Index strips);
std::size_t decode_peak(const WanVaeConfig& config, DType dtype, const Shape& latent, Index strips);
/// Decoding so many latents of sound.
std::size_t decode_peak(const AudioVaeConfig& config, Index latents);
/// One forward for one member of a group of `gpus`. `table`: its weights as they are loaded, sharded,
/// padded and in E4M3 or not.
std::size_t forward_peak(const TransformerConfig& config, const std::vector<TensorSpec>& table,
                         const SequenceShape& shape, int gpus = 1);
/// What a sampler that is denoising latents of this shape has beside a forward: them and its past
/// predictions, the features of a second prompt.
std::size_t sampler_bytes(const TransformerConfig& config, const SequenceShape& shape);

/// What loaded weights take, the scales of E4M3 rows among them.
std::size_t weight_bytes(const std::vector<TensorSpec>& table);

/// What must be free for a stage whose arrays take so many bytes: an eighth more for what a pool keeps in
/// pieces of the wrong sizes, and 1 GiB for workspaces and what the libraries hold.
std::size_t with_workspaces(std::size_t bytes);
/// The block for a stage whose arrays take so many bytes: with room for the largest workspace, and for what
/// a device lays out otherwise than the dry run. No more than `with_workspaces`.
std::size_t stage_bytes(std::size_t arrays);

/// The fewest strips, up to `most`, with which a decode fits into `left` bytes, workspaces included;
/// `most` where none does, 1 where nobody knows what is left.
Index strips_that_fit(std::optional<std::size_t> left, Index most,
                      const std::function<std::size_t(Index strips)>& peak);

}  // namespace gallop
