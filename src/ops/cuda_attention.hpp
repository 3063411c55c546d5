#pragma once

#include "core/cuda.hpp"
#include "ops/backend.hpp"
#include "ops/cuda_dnn.hpp"
#include "ops/cuda_gemm.hpp"

namespace gallop {

/// Attention on the GPU: of one wide head by matrix products, else by cuDNN where it can, else by the own
/// kernel. All work goes to one stream of the current device.
class CudaAttention {
public:
    /// `on` serves scratch and moves arrays; `cudnn` may be null. All of them use `stream` and must outlive
    /// this.
    CudaAttention(Backend& on, cudaStream_t stream, CudaGemm& gemm, Cudnn* cudnn)
        : on_(on), stream_(stream), gemm_(gemm), cudnn_(cudnn) {}

    /// As Backend::attention. Throws Error for heads that no way can take, DeviceError,
    /// OutOfMemoryError.
    void run(ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionMask& mask,
             float scale, float soft_cap, TensorView y);

private:
    /// One wide head, as the full decoder's, of 1024 values: all scores of some queries at a time.
    void by_products(ConstTensorView q, ConstTensorView k, ConstTensorView v, float scale,
                     float soft_cap, TensorView y);
    /// Frame-local attention as dense ones. False when one of them can't be done so.
    bool by_slices(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                   const AttentionMask& mask, float scale, TensorView y);

    Backend& on_;
    cudaStream_t stream_;
    CudaGemm& gemm_;
    Cudnn* cudnn_;
};

}  // namespace gallop
