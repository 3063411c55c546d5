#pragma once

#include <string_view>

#include "core/tensor.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// How positions are counted. Base and distilled models use v2, super-resolution v1.
/// Source: MagiDataProxy in data_proxy.py of daVinci-MagiHuman (`coords_style`).
enum class CoordsStyle { v1, v2 };

/// "v1" or "v2". Throws InputError otherwise.
CoordsStyle coords_style_of(std::string_view name);

/// Sizes of one token sequence: video patches, then audio, then text.
struct SequenceShape {
    Index frames = 1;   ///< T, latent frames
    Index rows = 1;     ///< h/2, patch rows
    Index columns = 1;  ///< w/2, patch columns
    Index audio = 0;    ///< A
    Index text = 0;     ///< L

    Index per_frame() const { return rows * columns; }
    Index video() const { return frames * per_frame(); }
    Index tokens() const { return video() + audio + text; }
    bool operator==(const SequenceShape&) const = default;
};

/// The nine numbers (t, y, x, T, H, W, Tr, Hr, Wr) of every token: position, size of its own grid,
/// size of the reference grid. [tokens, 9] f32, host.
Tensor token_coordinates(const SequenceShape& shape, CoordsStyle style);

/// Rotation angles of every token from its coordinates: sines, then cosines, of
/// (position − centre)·scale·band for the axes t, y, x and each band. coordinates: [S, 9] f32,
/// bands: [B] f32; result [S, 6·B] f32, host. Source: ElementWiseFourierEmbed in dit_module.py.
Tensor rope_table(const Tensor& coordinates, std::span<const float> bands);

/// Cuts a latent into 1×2×2 patches, channel slowest. latent: [C, T, h, w] f32 → [T·h/2·w/2, 4·C]
/// f32.
Tensor patchify(ConstTensorView latent, Backend& on);

/// The inverse for a network output, whose patches have the channel fastest. tokens: [T·h/2·w/2,
/// 4·C] f32 → [C, T, h, w] f32.
Tensor unpatchify(ConstTensorView tokens, const SequenceShape& shape, Backend& on);

}  // namespace gallop
