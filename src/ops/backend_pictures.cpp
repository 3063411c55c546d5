// The checks of what is asked about pictures, sound and their latents.

#include <algorithm>
#include <array>

#include "ops/backend.hpp"
#include "ops/backend_checks.hpp"

namespace gallop {

Tensor Backend::prepare_conv(ConstTensorView kernel, DType dtype) {
    check_f32(kernel, "kernel");
    const Shape& shape = kernel.shape();
    CHECK(shape.rank() >= 3 && shape.rank() <= 5, "a kernel of shape {}", to_string(shape));
    std::array<Index, 5> extents{shape[0], shape[1], 1, 1, 1};
    std::copy(shape.begin() + 2, shape.end(), extents.end() - (shape.end() - shape.begin() - 2));
    return do_prepare_conv(kernel.reshape(Shape(extents)), dtype);
}

Shape Backend::conv_shape(const Shape& x, const Shape& kernel, const ConvSpec& spec) {
    CHECK(x.rank() == 4 && kernel.rank() == 5 && x[3] == kernel[1], "convolution of {} by {}",
          to_string(x), to_string(kernel));
    std::array<Index, 3> out{};
    for (std::size_t i = 0; i < 3; ++i) {
        const Index reach = (kernel[2 + i] - 1) * spec.dilation[i] + 1;
        const Index padded = x[i] + spec.pad_before[i] + spec.pad_after[i];
        CHECK(padded >= reach, "axis {} of {} is shorter than the kernel {}", i, to_string(x),
              to_string(kernel));
        out[i] = (padded - reach) / spec.stride[i] + 1;
    }
    return {out[0], out[1], out[2], kernel[0]};
}

void Backend::conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                   const ConvSpec& spec, TensorView y) {
    check_float(x, "x");
    CHECK(kernel.dtype() == x.dtype() && y.dtype() == x.dtype(), "convolution of {} by {} to {}",
          name_of(x.dtype()), name_of(kernel.dtype()), name_of(y.dtype()));
    const Shape expected = conv_shape(x.shape(), kernel.shape(), spec);
    CHECK(y.shape() == expected, "convolution gives {}, y is {}", to_string(expected),
          to_string(y.shape()));
    if (bias.defined()) {
        CHECK(bias.dtype() == x.dtype(), "a bias in {} for a convolution in {}",
              name_of(bias.dtype()), name_of(x.dtype()));
        CHECK(bias.numel() == kernel.size(0), "bias of {} for {} channels", bias.numel(),
              kernel.size(0));
    }
    do_conv(x, kernel, bias, spec, y);
}

void Backend::conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                             Index stride, Index pad, TensorView y) {
    check_f32(x, "x");
    check_f32(kernel, "kernel");
    check_f32(y, "y");
    check_rank(x, 2, "x");
    check_rank(kernel, 3, "kernel");
    check_rank(y, 2, "y");
    const Index length = (x.size(0) - 1) * stride - 2 * pad + kernel.size(2);
    CHECK(x.size(1) == kernel.size(0) && y.size(1) == kernel.size(1) && y.size(0) == length,
          "transposed convolution of {} by {} gives {} rows, y is {}", to_string(x.shape()),
          to_string(kernel.shape()), length, to_string(y.shape()));
    if (bias.defined())
        CHECK(bias.numel() == kernel.size(1), "bias of {} for {} channels", bias.numel(),
              kernel.size(1));
    do_conv_transpose(x, kernel, bias, stride, pad, y);
}

void Backend::upsample_nearest(ConstTensorView x, TensorView y) {
    check_rank(x, 4, "x");
    CHECK(x.dtype() == y.dtype() &&
              y.shape() == Shape({x.size(0), 2 * x.size(1), 2 * x.size(2), x.size(3)}),
          "twice {} is not {}", to_string(x.shape()), to_string(y.shape()));
    do_upsample_nearest(x, y);
}

void Backend::combine(std::span<const Term> terms, TensorView y) {
    check_f32(y, "y");
    CHECK(!terms.empty() && terms.size() <= 6, "a sum of {} terms (1 to 6)", terms.size());
    for (const Term& term : terms) {
        check_f32(term.x, "a term");
        check_same_shape(term.x, y);
    }
    do_combine(terms, y);
}

void Backend::guide(ConstTensorView neg, ConstTensorView pos, std::span<const float> scales,
                    TensorView y) {
    for (const ConstTensorView& part : {neg, pos, ConstTensorView(y)}) {
        check_f32(part, "velocity");
        check_rank(part, 4, "velocity");
        check_same_shape(part, y);
    }
    CHECK(static_cast<Index>(scales.size()) == y.size(1), "{} scales for {} frames", scales.size(),
          y.size(1));
    do_guide(neg, pos, scales, y);
}

void Backend::set_first_frame(ConstTensorView frame, TensorView latent) {
    check_f32(frame, "frame");
    check_f32(latent, "latent");
    check_rank(latent, 4, "latent");
    CHECK(latent.size(1) > 0 &&
              frame.shape() == Shape({latent.size(0), 1, latent.size(2), latent.size(3)}),
          "first frame of shape {} for a latent {}", to_string(frame.shape()),
          to_string(latent.shape()));
    do_set_first_frame(frame, latent);
}

void Backend::upsample_bilinear(ConstTensorView x, TensorView y) {
    check_f32(x, "x");
    check_f32(y, "y");
    check_rank(x, 4, "x");
    check_rank(y, 4, "y");
    CHECK(x.size(0) == y.size(0) && x.size(1) == y.size(1), "upsampling {} to {}",
          to_string(x.shape()), to_string(y.shape()));
    do_upsample_bilinear(x, y);
}

void Backend::affine_channels(ConstTensorView x, ConstTensorView scale, ConstTensorView shift,
                              TensorView y) {
    check_f32(x, "x");
    check_f32(y, "y");
    check_same_shape(x, y);
    CHECK(scale.numel() == x.shape().back() && shift.numel() == x.shape().back(),
          "{} scales and {} shifts for {} channels", scale.numel(), shift.numel(),
          x.shape().back());
    do_affine_channels(x, scale, shift, y);
}

void Backend::normal(const NoiseStream& stream, std::uint64_t first, TensorView y) {
    check_f32(y, "y");
    do_normal(stream, first, y);
}

bool Backend::all_finite(ConstTensorView x) {
    check_float(x, "x");
    return do_all_finite(x);
}

void Backend::to_rgb8(ConstTensorView x, TensorView y) {
    check_float(x, "x");
    check_same_shape(x, y);
    CHECK(y.dtype() == DType::u8 && x.shape().rank() == 4 && x.size(3) == 3,
          "pictures of shape {} to {}", to_string(x.shape()), name_of(y.dtype()));
    do_to_rgb8(x, y);
}

void Backend::to_yuv(ConstTensorView rgb, const YuvFormat& format, TensorView planes) {
    CHECK(rgb.dtype() == DType::u8 && rgb.shape().rank() == 4 && rgb.size(3) == 3 &&
              planes.dtype() == DType::u8 && (format.bits == 8 || format.bits == 10),
          "pictures of shape {} {} to planes of {} bits", name_of(rgb.dtype()),
          to_string(rgb.shape()), format.bits);
    const auto halves = [](Index extent) { return extent >= 16 && extent % 2 == 0; };
    CHECK(
        (!format.half_rows || halves(rgb.size(1))) && (!format.half_columns || halves(rgb.size(2))),
        "pictures of shape {} (even extents of 16 and more where chroma is halved)",
        to_string(rgb.shape()));
    CHECK(planes.shape() == Shape({rgb.size(0), format.bytes(rgb.size(2), rgb.size(1))}),
          "planes of shape {} for pictures of shape {}", to_string(planes.shape()),
          to_string(rgb.shape()));
    do_to_yuv(rgb, format, planes);
}

}  // namespace gallop
