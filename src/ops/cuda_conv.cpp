#include "ops/cuda_conv.hpp"

#include <algorithm>
#include <array>

#include "ops/cuda_arrays.hpp"
#include "ops/frame_stretches.hpp"

namespace gallop {

using kernels::launch;

Tensor CudaConvolution::prepare(ConstTensorView kernel, DType dtype) {
    CHECK(kernel.device() == Device::cpu, "prepare_conv takes a host array");
    const Tensor stored = on_.upload(kernel);
    Tensor moved = on_.empty(kernel.shape());
    if (for_cudnn(dtype))
        on_.permute(stored, kernel.shape(), std::array{0, 2, 3, 4, 1}, moved);
    else
        on_.permute(stored, kernel.shape(), std::array{2, 3, 4, 1, 0}, moved);
    if (dtype == DType::f32) return moved;
    Tensor rounded = on_.empty(kernel.shape(), dtype);
    on_.copy(moved, rounded);
    return rounded;
}

void CudaConvolution::run(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                          const ConvSpec& spec, TensorView y) {
    if (!for_cudnn(x.dtype())) return by_kernel(x, kernel, bias, spec, y);
    for (const ConstTensorView& part : {x, kernel, ConstTensorView(y)}) check_on_gpu(part);
    const auto by_library = [&](ConstTensorView added) {
        return by_cudnn(x, kernel, added, spec, y) || by_cudnn_padded(x, kernel, added, spec, y);
    };
    if (by_library(bias)) return;
    if (bias.defined() && by_library({})) return add_bias(bias, y);
    const Shape& s = kernel.shape();
    Tensor moved = on_.empty(s, kernel.dtype());
    on_.permute(kernel, {s[0], s[2], s[3], s[4], s[1]}, std::array{1, 2, 3, 4, 0}, moved);
    by_kernel(x, moved, bias, spec, y);
}

bool CudaConvolution::by_cudnn(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                               const ConvSpec& spec, TensorView y) {
    const bool fits = x.numel() <= Cudnn::most_elements_of(x.shape()) &&
                      y.numel() <= Cudnn::most_elements_of(y.shape());
    if (fits && spec.pad_before[0] == spec.pad_after[0])
        return cudnn_->convolve(x, kernel, bias, spec, y);
    if (spec.pad_before[0] + spec.pad_after[0] == 0) return by_frames(x, kernel, bias, spec, y);
    // Zeros on one side in time (a causal convolution), or of what is cut, are frames of the input.
    const Index before = spec.pad_before[0];
    const Index frames = x.size(0);
    Tensor padded = on_.empty(
        {before + frames + spec.pad_after[0], x.size(1), x.size(2), x.size(3)}, x.dtype());
    const auto clear = [&](TensorView part) {
        if (part.bytes() > 0)
            check_cuda(cudaMemsetAsync(part.raw(), 0, part.bytes(), stream_), "filling with zeros");
    };
    clear(padded.rows(0, before));
    on_.copy(x, padded.rows(before, before + frames));
    clear(padded.rows(before + frames, padded.size(0)));
    ConvSpec unpadded = spec;
    unpadded.pad_before[0] = unpadded.pad_after[0] = 0;
    return by_frames(padded, kernel, bias, unpadded, y);
}

bool CudaConvolution::by_cudnn_padded(ConstTensorView x, ConstTensorView kernel,
                                      ConstTensorView bias, const ConvSpec& spec, TensorView y) {
    const Shape& s = kernel.shape();
    const Index ins = Cudnn::whole_channels(s[1]);
    const Index outs = Cudnn::whole_channels(s[0]);
    ConvSpec around = spec;
    std::array<Index, 4> before{};
    std::array<Index, 4> extents{x.size(0), x.size(1), x.size(2), ins};
    for (std::size_t axis = 1; axis < 3; ++axis) {
        if (spec.pad_before[axis] == spec.pad_after[axis]) continue;
        before[axis] = spec.pad_before[axis];
        extents[axis] += spec.pad_before[axis] + spec.pad_after[axis];
        around.pad_before[axis] = around.pad_after[axis] = 0;
    }
    const Shape wide{extents[0], extents[1], extents[2], extents[3]};
    if (wide == x.shape() && outs == s[0]) return false;
    Tensor wide_x, wide_kernel, wide_bias, wide_y;
    if (!(wide == x.shape())) x = wide_x = padded(x, x.shape(), wide, before);
    if (ins != s[1] || outs != s[0]) {
        // Stored [O, kT, kY, kX, I].
        const Index taps = s[2] * s[3] * s[4];
        wide_kernel = padded(kernel, {s[0], taps, 1, s[1]}, {outs, taps, 1, ins}, {});
        wide_kernel.reshape({outs, ins, s[2], s[3], s[4]});
        kernel = wide_kernel;
    }
    TensorView sums = y;
    if (outs != y.size(3)) {
        if (bias.defined()) {
            wide_bias = on_.zeros({outs}, bias.dtype());
            on_.copy(bias.reshape({y.size(3)}), wide_bias.rows(0, y.size(3)));
            bias = wide_bias;
        }
        wide_y = on_.empty({y.size(0), y.size(1), y.size(2), outs}, y.dtype());
        sums = wide_y;
    }
    if (!by_cudnn(x, kernel, bias, around, sums)) return false;
    const Index pixels = y.size(0) * y.size(1) * y.size(2);
    if (outs != y.size(3))
        on_.columns(sums.reshape({pixels, outs}), 0, y.reshape({pixels, y.size(3)}));
    return true;
}

Tensor CudaConvolution::padded(ConstTensorView x, const Shape& x_shape, const Shape& shape,
                               const std::array<Index, 4>& before) {
    Tensor made = on_.empty(shape, x.dtype());
    kernels::Pad arguments{x.raw(), made.view().raw(), {}, {}, {}};
    std::copy(x_shape.begin(), x_shape.end(), arguments.x_extent);
    std::copy(shape.begin(), shape.end(), arguments.y_extent);
    std::copy(before.begin(), before.end(), arguments.before);
    launch(arguments, stream_);
    return made;
}

bool CudaConvolution::by_frames(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                                const ConvSpec& spec, TensorView y) {
    for (const FrameStretch& part :
         frame_stretches(x.shape(), kernel.size(2), spec, y.shape(),
                         Cudnn::most_elements_of(x.shape()), Cudnn::most_elements_of(y.shape())))
        if (!cudnn_->convolve(x.rows(part.first, part.last), kernel, bias, spec,
                              y.rows(part.begin, part.end)))
            return false;
    return true;
}

ConstTensorView CudaConvolution::as_floats(ConstTensorView bias, Tensor& wide) {
    if (!bias.defined() || bias.dtype() == DType::f32) return bias;
    wide = on_.empty(bias.shape());
    on_.copy(bias, wide);
    return wide;
}

void CudaConvolution::add_bias(ConstTensorView bias, TensorView y) {
    Tensor wide;
    const Index width = y.size(3);
    launch(kernels::Affine{in(y), nullptr, floats(as_floats(bias, wide)), out(y), y.numel() / width,
                           width},
           stream_);
}

void CudaConvolution::by_kernel(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                                const ConvSpec& spec, TensorView y) {
    Tensor wide_bias;
    kernels::Convolution arguments{};
    arguments.x = in(x).data;
    arguments.kernel = in(kernel).data;
    arguments.bias = optional_floats(as_floats(bias, wide_bias));
    arguments.y = out(y).data;
    arguments.half = x.dtype() == DType::bf16;
    arguments.in = x.size(3);
    arguments.out = y.size(3);
    for (std::size_t axis = 0; axis < 3; ++axis) {
        arguments.x_extent[axis] = x.size(axis);
        arguments.kernel_extent[axis] = kernel.size(2 + axis);
        arguments.y_extent[axis] = y.size(axis);
        arguments.stride[axis] = spec.stride[axis];
        arguments.pad[axis] = spec.pad_before[axis];
        arguments.dilation[axis] = spec.dilation[axis];
    }
    launch(arguments, stream_);
}

void CudaConvolution::run_transposed(ConstTensorView x, ConstTensorView kernel,
                                     ConstTensorView bias, Index stride, Index pad, TensorView y) {
    // Stored [I, O, k].
    Tensor by_tap = on_.empty({kernel.size(2), kernel.size(0), kernel.size(1)});
    on_.permute(kernel, kernel.shape(), std::array{2, 0, 1}, by_tap);
    launch(kernels::ConvTranspose{floats(x), by_tap.data<float>(), optional_floats(bias), floats(y),
                                  x.size(0), x.size(1), y.size(1), kernel.size(2), y.size(0),
                                  stride, pad},
           stream_);
}

}  // namespace gallop
