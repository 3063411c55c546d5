#pragma once

#include <cstdint>
#include <functional>

#include "core/tensor.hpp"

namespace gallop {

/// 25 pictures and 44,100 stereo samples a second, in every clip.
inline constexpr int frames_per_second = 25;
inline constexpr int sample_rate = 44100;
inline constexpr int samples_per_frame = sample_rate / frames_per_second;  // 1764

/// Takes pictures in order as they are decoded, in host memory, any n ≥ 1: [n, Y, X, 3] u8 RGB, or planes,
/// [n, B] u8, see YuvFormat. One call at a time, each maybe on another thread than the decoder's; the array
/// is gone when it returns.
using FrameSink = std::function<void(ConstTensorView frames)>;

}  // namespace gallop
