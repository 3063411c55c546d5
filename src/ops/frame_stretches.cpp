#include "ops/frame_stretches.hpp"

#include <algorithm>

namespace gallop {

std::vector<FrameStretch> frame_stretches(const Shape& x, Index kernel, const ConvSpec& spec,
                                          const Shape& y, Index most_x, Index most_y) {
    const Index frames = y[0];
    const Index stride = spec.stride[0];
    const Index reach = (kernel - 1) * spec.dilation[0] + 1;
    const auto per_frame = [](const Shape& of) {
        return std::max<Index>(of[1] * of[2] * of[3], 1);
    };
    const Index inputs = most_x / per_frame(x);
    const Index longest = std::max<Index>(
        std::min(most_y / per_frame(y), inputs < reach ? 0 : (inputs - reach) / stride + 1), 1);
    const Index count = (frames + longest - 1) / longest;
    std::vector<FrameStretch> made;
    for (Index i = 0; i < count; ++i) {
        const Index begin = frames * i / count;
        const Index end = frames * (i + 1) / count;
        made.push_back({begin, end, begin * stride, (end - 1) * stride + reach});
    }
    return made;
}

}  // namespace gallop
