#pragma once

#include <filesystem>
#include <optional>

#include "core/tensor.hpp"

namespace gallop {

/// Decodes a sound file of any kind FFmpeg knows → [S] f32, mono at 51,200 Hz, within [−1, 1): the
/// very samples of `ffmpeg -ac 1 -ar 51200 -f s16le`, divided by 32768. `most`: the first so many
/// samples, or all that there are; without it, all of at most one hour. Throws InputError when there
/// is no sound in it or none can be decoded. Source: the driving audio of daVinci-MagiHuman.
Tensor load_audio(const std::filesystem::path& path, std::optional<Index> most = {});

}  // namespace gallop
