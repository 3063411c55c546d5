#pragma once

#include <array>

#include "core/cuda.hpp"
#include "ops/backend.hpp"
#include "ops/cuda_dnn.hpp"

namespace gallop {

/// Convolutions on the GPU: in bf16 by cuDNN where it can, else by the own kernels. All work goes to one
/// stream of the current device.
class CudaConvolution {
public:
    /// `on` serves scratch and moves arrays; `cudnn` may be null. Both use `stream` and must outlive this.
    CudaConvolution(Backend& on, cudaStream_t stream, Cudnn* cudnn)
        : on_(on), stream_(stream), cudnn_(cudnn) {}

    /// As Backend::prepare_conv. Keeps the shape [O, I, kT, kY, kX]; stores [O, kT, kY, kX, I] for cuDNN,
    /// else [kT, kY, kX, I, O].
    Tensor prepare(ConstTensorView kernel, DType dtype);
    /// As Backend::conv, of a kernel that was prepared here. Throws DeviceError, OutOfMemoryError.
    void run(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias, const ConvSpec& spec,
             TensorView y);
    /// As Backend::conv_transpose. Throws DeviceError.
    void run_transposed(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                        Index stride, Index pad, TensorView y);

private:
    bool for_cudnn(DType dtype) const { return cudnn_ != nullptr && dtype == DType::bf16; }
    /// False when cuDNN has nothing for it.
    bool by_cudnn(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                  const ConvSpec& spec, TensorView y);
    /// In the form that cuDNN has most engines for: channels in multiples of 8, and the zeros at one side of
    /// a picture in memory. False when it is that already, or cuDNN has nothing for it either.
    bool by_cudnn_padded(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                         const ConvSpec& spec, TensorView y);
    /// x amid zeros, in a new array. Shapes are [T, Y, X, C], bf16.
    Tensor padded(ConstTensorView x, const Shape& x_shape, const Shape& shape,
                  const std::array<Index, 4>& before);
    /// Without padding in time: in as few stretches of frames as cuDNN can count and has scratch
    /// memory for. False when it has nothing.
    bool by_frames(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                   const ConvSpec& spec, TensorView y);
    /// Undefined for an undefined one; `wide` holds it where it had to be widened.
    ConstTensorView as_floats(ConstTensorView bias, Tensor& wide);
    /// y += bias, pixel by pixel.
    void add_bias(ConstTensorView bias, TensorView y);
    /// By the own kernel, which reads [kT, kY, kX, I, O].
    void by_kernel(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                   const ConvSpec& spec, TensorView y);

    Backend& on_;
    cudaStream_t stream_;
    Cudnn* cudnn_;
};

}  // namespace gallop
