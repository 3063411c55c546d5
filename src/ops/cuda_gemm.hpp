#pragma once

#include <map>

#include <cublasLt.h>

#include "core/cuda.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// Matrix products by cuBLASLt, all on one stream. Sums are in f32; f32 inputs are multiplied as f32,
/// never as TF32; partial sums of a split are added in f32.
class CudaGemm {
public:
    /// `memory` serves the workspace and must outlive this. Throws DeviceError, OutOfMemoryError.
    CudaGemm(Memory& memory, cudaStream_t stream);

    /// y = x·wᵀ. x: [rows, depth], w: [out, depth], both f32 or both bf16; y: [rows, out], f32, or bf16
    /// when x is. Any depth and any alignment that the dtype allows. Throws Error when cuBLASLt has no
    /// algorithm.
    void run(ConstTensorView x, ConstTensorView w, TensorView y);

private:
    /// Everything the choice of an algorithm depends on.
    struct Problem {
        Index rows, out, depth;
        DType in_dtype, y_dtype;
        unsigned x_alignment, w_alignment, y_alignment;
        auto operator<=>(const Problem&) const = default;
    };
    using Lt = Handle<cublasLtHandle_t, cublasLtDestroy>;

    cudaStream_t stream_;
    Lt lt_;
    Tensor workspace_;
    std::map<Problem, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace gallop
