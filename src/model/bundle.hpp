#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "model/architecture.hpp"

namespace gallop {

/// A model folder with the published files under their published names:
///
///     base/ distill/ 540p_sr/ 1080p_sr/    a transformer each: shards and index
///     turbo_vae/                           a .json and a .ckpt
///     Wan2.2_VAE.pth                       or Wan2.2-TI2V-5B/Wan2.2_VAE.pth
///     stable-audio-open-1.0/               model.safetensors and model_config.json
///     t5gemma-9b-9b-ul2/                   shards, config.json, tokenizer.model,
///     tokenizer_config.json gallop.yaml                          its architecture; without it, the
///     published 15B
///
/// A folder that a request does not need may be missing.
struct Bundle {
    std::filesystem::path folder;
    /// From the architecture file; what lies beside the weights as JSON goes before it.
    Architecture architecture;

    // Where a network's weights are, ready for Checkpoint::open. Throw InputError when they are not
    // there, with the path that was looked for.
    std::filesystem::path dit(std::string_view variant) const;
    std::filesystem::path wan_vae() const;
    std::filesystem::path turbo_vae() const;
    std::filesystem::path audio_vae() const;
    /// The folder, for TextEncoder and Tokenizer.
    std::filesystem::path text_encoder() const;
    /// The variant of that name. Throws InputError that names those there are.
    const DitVariant& variant(std::string_view name) const;
};

/// Names of a bundle's parts.
namespace bundle_names {
inline constexpr const char* architecture = "gallop.yaml";
inline constexpr const char* turbo = "turbo_vae";
inline constexpr const char* turbo_config = "TurboV3-Wan22-TinyShallow_7_7.json";
inline constexpr const char* turbo_weights = "checkpoint-340000.ckpt";
inline constexpr const char* wan_weights = "Wan2.2_VAE.pth";
inline constexpr const char* wan_repository = "Wan2.2-TI2V-5B";
inline constexpr const char* audio = "stable-audio-open-1.0";
inline constexpr const char* audio_config = "model_config.json";
inline constexpr const char* text = "t5gemma-9b-9b-ul2";
inline constexpr const char* text_config = "config.json";
}  // namespace bundle_names

/// Opens a model folder; no weights are read. `architecture_file`: instead of the folder's own.
/// Throws InputError when there is no such folder or a configuration in it is wrong.
Bundle open_bundle(const std::filesystem::path& folder,
                   const std::filesystem::path& architecture_file = {});

}  // namespace gallop
