#pragma once

#include "ops/backend.hpp"

namespace gallop {

/// The encoder stages' shortcut: ft frames × fs × fs pixels are folded into channels in the order
/// (c, it, iy, ix) and runs of neighbouring channels averaged. Missing frames in front are zeros.
/// x: [T, Y, X, C] → [⌈T/ft⌉, Y/fs, X/fs, out].
Tensor average_down(ConstTensorView x, Index ft, Index fs, Index out, Backend& on);

/// The decoder stages' shortcut: channels are repeated so that the inverse fold gives `out`
/// channels. x: [T, Y, X, C] → [T·ft, Y·fs, X·fs, out], without the first ft − 1 frames on the
/// first chunk.
Tensor duplicate_up(ConstTensorView x, Index ft, Index fs, Index out, bool first_chunk,
                    Backend& on);

}  // namespace gallop
