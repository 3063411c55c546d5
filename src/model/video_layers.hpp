#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// Takes decoded pictures in order: [n, Y, X, 3] float in about −1 … 1, on the backend, n ≥ 1. The
/// array is only lent for the call.
using PictureSink = std::function<void(ConstTensorView pictures)>;

/// Channels of a video latent, and the mean and standard deviation of each, by which the latents
/// that the DiT sees are normalised. Source: Wan2_2_VAE in vae2_2.py of Wan2.2.
inline constexpr Index video_latent_channels = 48;

/// A normalised latent [48, T, Y, X] f32 → z·std + mean, [T, Y, X, 48] of `dtype`.
Tensor denormalised(ConstTensorView latent, DType dtype, Backend& on);
/// [T, Y, X, 48] float → (μ − mean)/std, [48, T, Y, X] f32.
Tensor normalised(ConstTensorView mean, Backend& on);

/// Pictures from a network that works on quarters of them: channel c·4 + ix·2 + iy of pixel (y, x)
/// is channel c of pixel (2y + iy, 2x + ix). x: [T, Y, X, C·4] → [T, 2Y, 2X, C].
Tensor unfold_pixels(ConstTensorView x, Backend& on);
/// The inverse. x: [T, 2Y, 2X, C] → [T, Y, X, C·4].
Tensor fold_pixels(ConstTensorView x, Backend& on);

/// Adds a convolution's `.weight` (stored as `shape`) and `.bias` to a table, both kept as `dtype`.
void add_conv(std::vector<TensorSpec>& table, const std::string& name, Shape shape, DType dtype);

/// The steps that the video VAEs share, on one set of weights. Arrays are [T, Y, X, C] of one
/// dtype.
class VideoLayers {
public:
    /// Both are borrowed.
    VideoLayers(const Weights& weights, DType dtype, Backend& on)
        : weights_(weights), dtype_(dtype), on_(on) {}

    Backend& on() const { return on_; }
    DType dtype() const { return dtype_; }
    bool has(const std::string& name) const { return weights_.has(name + ".weight"); }
    const Tensor& weight(std::string_view name) const { return weights_[name]; }
    Tensor empty(Shape shape) const { return on_.empty(shape, dtype_); }

    /// The convolution `name` into a new array, or into `y`.
    Tensor conv(const std::string& name, ConstTensorView x, const ConvSpec& spec = {}) const;
    void conv(const std::string& name, ConstTensorView x, const ConvSpec& spec, TensorView y) const;

    /// Nearest neighbour, twice in Y and X, then the 3×3 convolution `name`, padded by zeros. Works
    /// on a few frames at a time: the enlarged copy of a whole clip would be the largest array of a
    /// decoder.
    Tensor upsample(const std::string& name, ConstTensorView x) const;

    /// x: [T, Y, X, 2·C], channel n·C + c of frame t → channel c of frame 2t + n. [2T, Y, X, C]
    Tensor interleave_frames(ConstTensorView x) const;

private:
    const Weights& weights_;
    DType dtype_;
    Backend& on_;
};

/// A decoder spares memory by running its later layers, whose arrays are the large ones, on
/// horizontal strips of the picture one after the other. Each strip is given the rows around it that
/// its pixels depend on, so that the strips don't show in the result (a backend may choose other
/// algorithms for other sizes, and add in another order). This is one strip, in rows of the array that
/// is cut.
struct Strip {
    Index begin, end;    ///< rows that are its own
    Index above, below;  ///< rows of its neighbours in front and behind that it is given
    bool operator==(const Strip&) const = default;
};
/// `rows` rows in `strips` parts of nearly equal height, each with `reach` rows around it where there
/// are any.
std::vector<Strip> cut(Index rows, Index strips, Index reach);
/// The most strips worth cutting: more would mostly compute what the neighbours compute, too.
inline Index most_strips(Index rows, Index reach) {
    return std::max<Index>(1, rows / std::max<Index>(2 * reach, 1));
}

/// Rows begin … end−1 of each picture. x: [T, Y, X, C] → [T, end − begin, X, C].
Tensor picture_rows(ConstTensorView x, Index begin, Index end, Backend& on);

/// A 3×3 kernel's spatial padding, none in time.
inline constexpr ConvSpec around{.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}};

}  // namespace gallop
