#pragma once

#include <cstddef>
#include <span>

namespace gallop {

/// How an image file wants to be turned: the Orientation tag (1 … 8) of the EXIF block in a JPEG
/// (APP1), PNG (eXIf), WebP (EXIF) or TIFF file. 1, upright, when there is none or it makes no
/// sense. Safe on any bytes. Source: EXIF 2.32, section 4.6.4 (tag 0x0112); TIFF 6.0, section 2.
int exif_orientation(std::span<const std::byte> file);

/// True for a JPEG whose picture data ends without the end marker: the file was cut off.
bool is_cut_off_jpeg(std::span<const std::byte> file);

}  // namespace gallop
