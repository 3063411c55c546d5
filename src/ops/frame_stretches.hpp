#pragma once

#include <vector>

#include "ops/backend.hpp"

namespace gallop {

/// A run of a convolution's frames.
struct FrameStretch {
    Index begin, end;   ///< of the result
    Index first, last;  ///< of the input: all that these frames depend on
};

/// Cuts a convolution without padding in time, x [T, Y, X, I] → y [T', Y', X', O], into as few stretches of
/// nearly equal length as keep the elements of each input at `most_x` or below and those of each result at
/// `most_y`; a frame that alone has more is a stretch of its own. kernel: its extent in time.
std::vector<FrameStretch> frame_stretches(const Shape& x, Index kernel, const ConvSpec& spec,
                                          const Shape& y, Index most_x, Index most_y);

}  // namespace gallop
