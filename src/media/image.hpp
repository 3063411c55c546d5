#pragma once

#include <filesystem>

#include "core/tensor.hpp"

namespace gallop {

/// Reads a still picture (or the first one of several) of any kind FFmpeg decodes → [Y, X, 3] u8
/// RGB, upright by its EXIF orientation. Alpha is dropped, grey repeated, 16 bits cut to 8. At most
/// 200 million pixels. Throws InputError when it is not a picture, is too large or damaged.
Tensor load_image(const std::filesystem::path& path);

/// Turns a picture [Y, X, 3] u8 stored under an EXIF orientation (1 … 8) upright.
Tensor upright(ConstTensorView image, int orientation);

/// Writes a PNG through AtomicFile. image: [Y, X, 3] u8 RGB. Throws Error.
void write_png(const std::filesystem::path& path, ConstTensorView image);

}  // namespace gallop
