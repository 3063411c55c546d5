#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>

#include "core/tensor.hpp"

namespace gallop {

using Attribute = std::variant<std::string, std::int64_t, double>;
using Attributes = std::map<std::string, Attribute>;

/// What a latents file holds.
struct LatentsFile {
    Tensor
        video_base;  ///< [48, T, Y, X] f32; undefined when the file has none; likewise the others
    Tensor video_final;          ///< [48, T, Y, X] f32, after super-resolution
    Tensor audio;                ///< [A, 64] f32
    Attributes attributes;       ///< of the file: whatever makes it self-describing
    DType stored = DType::bf16;  ///< how the numbers are kept: bf16 or f32
};

/// Writes latents as HDF5 through a temporary name: data sets `video_base`, `video_final` (one
/// chunk a latent frame) and `audio`, shuffled and deflated; undefined ones are left out. HDF5 has
/// no bfloat16: it is kept as u16 with the attribute dtype = "bfloat16". A line with a check sum
/// follows what HDF5 reads. The same input gives the same bytes. Throws Error.
void write_latents(const std::filesystem::path& path, const LatentsFile& latents);

/// Reads them back, as f32. Throws InputError when the file is not ours, damaged or cut off.
LatentsFile read_latents(const std::filesystem::path& path);

}  // namespace gallop
