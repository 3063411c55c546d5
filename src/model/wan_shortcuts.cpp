#include "model/wan_shortcuts.hpp"

#include <array>
#include <utility>

namespace gallop {

Tensor average_down(ConstTensorView x, Index ft, Index fs, Index out, Backend& on) {
    const Shape& s = x.shape();
    const Index frames = (s[0] + ft - 1) / ft;
    const Index folded = s[3] * ft * fs * fs;
    CHECK(folded % out == 0 && s[1] % fs == 0 && s[2] % fs == 0, "averaging {} by {} × {} to {}",
          to_string(s), ft, fs, out);
    Tensor whole;
    if (frames * ft != s[0]) {
        whole = on.zeros({frames * ft, s[1], s[2], s[3]}, x.dtype());
        on.copy(x, whole.rows(frames * ft - s[0], frames * ft));
        x = whole;
    }
    Tensor columns = on.empty({frames, s[1] / fs, s[2] / fs, folded}, x.dtype());
    // t, it, y, iy, x, ix, c → t, y, x, c, it, iy, ix
    on.permute(x, {frames, ft, s[1] / fs, fs, s[2] / fs, fs, s[3]}, std::array{0, 2, 4, 6, 1, 3, 5},
               columns);
    whole = Tensor();
    Tensor y = on.empty({frames, s[1] / fs, s[2] / fs, out}, x.dtype());
    on.mean_channels(columns, folded / out, y);
    return y;
}

Tensor duplicate_up(ConstTensorView x, Index ft, Index fs, Index out, bool first_chunk,
                    Backend& on) {
    const Shape& s = x.shape();
    const Index folded = out * ft * fs * fs;
    CHECK(folded % s[3] == 0, "repeating the channels of {} to {} × {}", to_string(s), out,
          ft * fs * fs);
    Tensor columns = on.empty({s[0], s[1], s[2], folded}, x.dtype());
    on.repeat_channels(x, folded / s[3], columns);
    Tensor y = on.empty({s[0] * ft, s[1] * fs, s[2] * fs, out}, x.dtype());
    // t, y, x, c, it, iy, ix → t, it, y, iy, x, ix, c
    on.permute(columns, {s[0], s[1], s[2], out, ft, fs, fs}, std::array{0, 4, 1, 5, 2, 6, 3}, y);
    if (!first_chunk || ft == 1) return y;
    Tensor rest = on.empty({s[0] * ft - (ft - 1), s[1] * fs, s[2] * fs, out}, x.dtype());
    on.copy(std::as_const(y).rows(ft - 1, s[0] * ft), rest);
    return rest;
}

}  // namespace gallop
