#pragma once

#include "core/tensor.hpp"
#include "pipeline/item.hpp"

namespace gallop {

/// A rectangle of whole pixels.
struct CropBox {
    Index left, top, right, bottom;
    bool operator==(const CropBox&) const = default;
};

/// The largest centred rectangle of the target's shape, its edges rounded half to even.
/// Source: resizecrop in video_process.py of daVinci-MagiHuman.
CropBox centre_crop(Index width, Index height, Size target);

/// Resizes as Pillow's LANCZOS does: windowed sinc with a = 3, widened when shrinking, columns
/// first, 8-bit values between the two passes, coefficients of 22 bits. image: [Y, X, 3] u8 → [Y',
/// X', 3] u8.
Tensor resize_lanczos(ConstTensorView image, Size size);

/// Crops to the target's shape and resizes; a picture of that size already is left alone.
/// image: [Y, X, 3] u8 on the host → [Y', X', 3] u8.
Tensor fit_image(ConstTensorView image, Size size);

}  // namespace gallop
