#pragma once

#include <future>

#include "core/tensor.hpp"

namespace gallop {

/// The decoder makes sound of 51,200 samples a second, 25 · 2048; this is what turns it into
/// 44,100.
inline constexpr Index resample_up = 441;
inline constexpr Index resample_down = 512;

/// Band-limited resampling of whole signals taken as periodic: their spectrum is cut or padded with
/// zeros, the two values at the Nyquist frequency joined or split. x: [C, S] f32 on the host, S ≥ 1
/// → [C, samples] f32; computed in double. Source: scipy.signal.resample.
Tensor resample(ConstTensorView x, Index samples);

/// The decoder's sound [C, S] f32 at 44,100 samples a second. Another thread works on it, some 40 ms for five
/// seconds: meanwhile the device decodes the pictures.
std::future<Tensor> resample_aside(Tensor sound);

}  // namespace gallop
