#include "model/video_layers.hpp"

#include <algorithm>
#include <array>

namespace gallop {
namespace {

constexpr std::array<float, video_latent_channels> latent_mean{
    -0.2289F, -0.0052F, -0.1323F, -0.2339F, -0.2799F, 0.0174F,  0.1838F,  0.1557F,
    -0.1382F, 0.0542F,  0.2813F,  0.0891F,  0.1570F,  -0.0098F, 0.0375F,  -0.1825F,
    -0.2246F, -0.1207F, -0.0698F, 0.5109F,  0.2665F,  -0.2108F, -0.2158F, 0.2502F,
    -0.2055F, -0.0322F, 0.1109F,  0.1567F,  -0.0729F, 0.0899F,  -0.2799F, -0.1230F,
    -0.0313F, -0.1649F, 0.0117F,  0.0723F,  -0.2839F, -0.2083F, -0.0520F, 0.3748F,
    0.0152F,  0.1957F,  0.1433F,  -0.2944F, 0.3573F,  -0.0548F, -0.1681F, -0.0667F};

constexpr std::array<float, video_latent_channels> latent_std{
    0.4765F, 1.0364F, 0.4514F, 1.1677F, 0.5313F, 0.4990F, 0.4818F, 0.5013F, 0.8158F, 1.0344F,
    0.5894F, 1.0901F, 0.6885F, 0.6165F, 0.8454F, 0.4978F, 0.5759F, 0.3523F, 0.7135F, 0.6804F,
    0.5833F, 1.4146F, 0.8986F, 0.5659F, 0.7069F, 0.5338F, 0.4889F, 0.4917F, 0.4069F, 0.4999F,
    0.6866F, 0.4093F, 0.5709F, 0.6065F, 0.6415F, 0.4944F, 0.5726F, 1.2042F, 0.5458F, 1.6887F,
    0.3971F, 1.0600F, 0.3943F, 0.5537F, 0.5444F, 0.4089F, 0.7468F, 0.7744F};

Tensor uploaded(std::span<const float> values, Backend& on) {
    return on.upload(Tensor::of<float>({static_cast<Index>(values.size())}, values));
}

/// Elements of the enlarged picture that `upsample` makes at once.
constexpr Index upsample_block = Index{1} << 24;

}  // namespace

Tensor denormalised(ConstTensorView latent, DType dtype, Backend& on) {
    const Shape& s = latent.shape();
    CHECK(s.rank() == 4 && s[0] == video_latent_channels && latent.numel() > 0,
          "a video latent of shape {} ([{}, T, Y, X])", to_string(s), video_latent_channels);
    Tensor z = on.empty({s[1], s[2], s[3], s[0]});
    on.permute(latent, s, std::array{1, 2, 3, 0}, z);
    on.affine_channels(z, uploaded(latent_std, on), uploaded(latent_mean, on), z);
    if (dtype == DType::f32) return z;
    Tensor rounded = on.empty(z.shape(), dtype);
    on.copy(z, rounded);
    return rounded;
}

Tensor normalised(ConstTensorView mean, Backend& on) {
    const Shape& s = mean.shape();
    std::array<float, video_latent_channels> scale{};
    std::array<float, video_latent_channels> shift{};
    for (std::size_t c = 0; c < scale.size(); ++c) {
        scale[c] = 1.0F / latent_std[c];
        shift[c] = -latent_mean[c] * scale[c];
    }
    Tensor wide = on.empty(s);
    on.copy(mean, wide);
    on.affine_channels(wide, uploaded(scale, on), uploaded(shift, on), wide);
    Tensor latent = on.empty({s[3], s[0], s[1], s[2]});
    on.permute(wide, s, std::array{3, 0, 1, 2}, latent);
    return latent;
}

Tensor unfold_pixels(ConstTensorView x, Backend& on) {
    const Shape& s = x.shape();
    Tensor y = on.empty({s[0], 2 * s[1], 2 * s[2], s[3] / 4}, x.dtype());
    // t, y, x, c, ix, iy → t, y, iy, x, ix, c
    on.permute(x, {s[0], s[1], s[2], s[3] / 4, 2, 2}, std::array{0, 1, 5, 2, 4, 3}, y);
    return y;
}

Tensor fold_pixels(ConstTensorView x, Backend& on) {
    const Shape& s = x.shape();
    Tensor y = on.empty({s[0], s[1] / 2, s[2] / 2, s[3] * 4}, x.dtype());
    // t, y, iy, x, ix, c → t, y, x, c, ix, iy
    on.permute(x, {s[0], s[1] / 2, 2, s[2] / 2, 2, s[3]}, std::array{0, 1, 3, 5, 4, 2}, y);
    return y;
}

std::vector<Strip> cut(Index rows, Index strips, Index reach) {
    std::vector<Strip> made;
    for (Index i = 0; i < strips; ++i) {
        const Index begin = rows * i / strips;
        const Index end = rows * (i + 1) / strips;
        if (begin < end)
            made.push_back({begin, end, std::min(reach, begin), std::min(reach, rows - end)});
    }
    return made;
}

Tensor picture_rows(ConstTensorView x, Index begin, Index end, Backend& on) {
    const Shape& s = x.shape();
    Tensor y = on.empty({s[0], end - begin, s[2], s[3]}, x.dtype());
    const ConstTensorView lines = x.reshape({s[0] * s[1], s[2] * s[3]});
    const TensorView kept = y.view().reshape({s[0] * (end - begin), s[2] * s[3]});
    for (Index t = 0; t < s[0]; ++t)
        on.copy(lines.rows(t * s[1] + begin, t * s[1] + end),
                kept.rows(t * (end - begin), (t + 1) * (end - begin)));
    return y;
}

void add_conv(std::vector<TensorSpec>& table, const std::string& name, Shape shape, DType dtype) {
    table.push_back({.name = name + ".weight", .shape = shape, .dtype = dtype, .conv = true});
    table.push_back({.name = name + ".bias", .shape = {shape[0]}, .dtype = dtype});
}

void VideoLayers::conv(const std::string& name, ConstTensorView x, const ConvSpec& spec,
                       TensorView y) const {
    on_.conv(x, weights_[name + ".weight"], weights_[name + ".bias"], spec, y);
}

Tensor VideoLayers::conv(const std::string& name, ConstTensorView x, const ConvSpec& spec) const {
    Tensor y = empty(Backend::conv_shape(x.shape(), weights_[name + ".weight"].shape(), spec));
    conv(name, x, spec, y);
    return y;
}

Tensor VideoLayers::upsample(const std::string& name, ConstTensorView x) const {
    const Shape& s = x.shape();
    const Index out = weights_[name + ".weight"].size(0);
    Tensor y = empty({s[0], 2 * s[1], 2 * s[2], out});
    const Index frame = 4 * s[1] * s[2] * s[3];
    const Index frames = std::clamp<Index>(upsample_block / frame, 1, s[0]);
    for (Index begin = 0; begin < s[0]; begin += frames) {
        const Index end = std::min(s[0], begin + frames);
        Tensor large = empty({end - begin, 2 * s[1], 2 * s[2], s[3]});
        on_.upsample_nearest(x.rows(begin, end), large);
        conv(name, large, around, y.rows(begin, end));
    }
    return y;
}

Tensor VideoLayers::interleave_frames(ConstTensorView x) const {
    const Shape& s = x.shape();
    Tensor y = empty({2 * s[0], s[1], s[2], s[3] / 2});
    on_.permute(x, {s[0], s[1] * s[2], 2, s[3] / 2}, std::array{0, 2, 1, 3}, y);
    return y;
}

}  // namespace gallop
