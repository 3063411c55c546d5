#pragma once

#include <filesystem>

#include "core/tensor.hpp"

namespace gallop {

/// What a contact sheet shows of a clip: its first, middle and last picture side by side, each at
/// most 192 × 112, and beneath them its sound as a waveform (both channels in one, full scale the
/// whole height). [Y, X, 3] u8 RGB. Throws InputError when the file is no clip or is damaged.
Tensor contact_strip(const std::filesystem::path& clip);

/// Writes a JPEG through AtomicFile. image: [Y, X, 3] u8 RGB, its sides even. The same input gives the same bytes.
/// Throws Error.
void write_jpeg(const std::filesystem::path& path, ConstTensorView image);

}  // namespace gallop
