#pragma once

#include <filesystem>
#include <optional>

#include "core/tensor.hpp"

namespace gallop {

/// Samples a second that the audio VAE is given. Source: 51200 / 2048 = 25 latents a second.
inline constexpr int driving_sample_rate = 51200;

/// Decodes a sound file of any kind FFmpeg knows → [S] f32, mono at 51,200 Hz, within [−1, 1): the
/// very samples of `ffmpeg -ac 1 -ar 51200 -f s16le`, divided by 32768. With `seconds`, only the
/// first so many; without, at most one hour. Throws InputError when there is no sound in it or none
/// can be decoded. Source: the driving audio of daVinci-MagiHuman.
Tensor load_audio(const std::filesystem::path& path, std::optional<double> seconds = {});

}  // namespace gallop
