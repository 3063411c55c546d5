#pragma once

#include <cstdint>
#include <functional>

#include "core/tensor.hpp"

namespace gallop {

/// 25 pictures and 44,100 stereo samples a second, in every clip.
inline constexpr int frames_per_second = 25;
inline constexpr int sample_rate = 44100;
inline constexpr int samples_per_frame = sample_rate / frames_per_second;  // 1764

/// Driving sound is heard at 51,200 samples a second, so that a latent of 2048 is a picture long.
inline constexpr int samples_per_latent = 2048;
inline constexpr int driving_sample_rate = samples_per_latent * frames_per_second;
/// Samples that are encoded at once of a long driving sound: 29 s.
/// Source: load_audio_and_encode in video_process.py of daVinci-MagiHuman.
inline constexpr Index driving_window = Index{29} * driving_sample_rate;

/// Takes pictures in order as they are decoded, in host memory, any n ≥ 1: [n, Y, X, 3] u8 RGB, or planes,
/// [n, B] u8, see YuvFormat. One call at a time, each maybe on another thread than the decoder's; the array
/// is gone when it returns.
using FrameSink = std::function<void(ConstTensorView frames)>;

}  // namespace gallop
