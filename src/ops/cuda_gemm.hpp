#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <cublasLt.h>

#include "core/cuda.hpp"
#include "ops/backend.hpp"
#include "ops/gemm_choices.hpp"

namespace gallop {

/// One matrix product, all on the device: y = x·wᵀ. x: [rows, depth], w: [out, depth], both f32, both
/// bf16 or both f8_e4m3; y: [rows, out], f32, or bf16 when x isn't f32.
struct GemmCall {
    ConstTensorView x, w;
    TensorView y;
    const float* x_scales = nullptr;  ///< [rows], for E4M3: the products are multiplied by both
    const float* w_scales = nullptr;  ///< [out]
    const float* bias = nullptr;      ///< [out], or null; only where x and y are f32
    bool add = false;                 ///< y ← y + x·wᵀ; only where y is f32
};

/// Matrix products by cuBLASLt, all on one stream. Sums are in f32 and in one order for a shape and a
/// version of the library; f32 inputs are multiplied as f32, never as TF32; E4M3 without Hopper's fast
/// accumulation, which keeps 14 bits.
///
/// The order of sums is that of the algorithm which the library suggests first for the shape (rows
/// rounded up to a bucket), among those that don't split the depth. Of its first suggestions the fastest
/// is used that gives the same bits on random rows: what is timed, and what was timed before, never
/// changes a result.
class CudaGemm {
public:
    /// `memory` serves the workspace and must outlive this. `tune`: times suggestions for shapes that
    /// `choices` doesn't know. `most_elements`: products with more in x or y are cut; where an index has 32
    /// bits, libraries are seldom tried beyond them. Throws DeviceError, OutOfMemoryError.
    CudaGemm(Memory& memory, cudaStream_t stream, GemmChoices choices, bool tune,
             Index most_elements = std::numeric_limits<std::int32_t>::max());

    /// Any depth and any alignment that the dtype allows; for E4M3 depth and out are multiples of 16. The
    /// first call of a shape waits for the device. A sum that cuBLASLt won't add to y is added by a kernel,
    /// one of E4M3 that it won't give in f32 comes through bf16, and what it won't multiply in E4M3 at all is
    /// multiplied in bf16. Throws Error when it has no algorithm.
    void run(const GemmCall& call);

private:
    using Lt = Handle<cublasLtHandle_t, cublasLtDestroy>;
    using Algorithms = std::vector<cublasLtMatmulAlgo_t>;
    struct Problem;

    void run_piece(const GemmCall& call);

    /// Nothing when cuBLASLt has none.
    std::optional<cublasLtMatmulAlgo_t> algorithm_for(const GemmCall& call, const GemmKey& key);
    /// The fastest of those suggested, as it was timed before or is now; nothing where none is timed.
    std::optional<cublasLtMatmulAlgo_t> timed(const Algorithms& suggested, const GemmCall& call,
                                              const GemmKey& key);
    /// False, and y is as it was, when cuBLASLt doesn't do it in one call.
    bool run_at_once(const GemmCall& call);
    /// The product in `dtype` first, then converted to y's or added to y, which is f32. False, and y is as it
    /// was, when cuBLASLt has no such product.
    bool run_through(DType dtype, const GemmCall& call);
    /// An E4M3 product of its operands in bf16, which hold them exactly; a kernel applies the scales to the
    /// sums in f32. For what cuBLASLt doesn't multiply with a scale a row: few rows of a great depth (Source:
    /// github.com/pytorch/ao/issues/4582), GPUs before Hopper. False, and y is as it was, when it has no such
    /// product, either.
    bool run_widened(const GemmCall& call);
    /// What the library suggests, best first; at most `most`.
    Algorithms suggestions(const Problem& problem, const GemmKey& key, int most) const;
    bool usable(const Problem& problem, const cublasLtMatmulAlgo_t& algorithm) const;
    /// The best of `algorithms`, timed on random rows.
    std::size_t best_of(const Algorithms& algorithms, const GemmCall& call, const GemmKey& key);
    /// y = x·wᵀ (+ bias) + kept·y, whatever `call.add` says. Throws OutOfMemoryError where there is none for
    /// the algorithm's kernel.
    cublasStatus_t start(const Problem& problem, const GemmCall& call,
                         const cublasLtMatmulAlgo_t& algorithm, float kept);

    Memory& memory_;
    cudaStream_t stream_;
    Lt lt_;
    Tensor workspace_;
    GemmChoices choices_;
    bool tune_;
    Index most_elements_;
    /// By rows, too; nothing: none does it at once.
    std::map<std::pair<GemmKey, Index>, std::optional<cublasLtMatmulAlgo_t>> algorithms_;
};

/// What choices of algorithms hold for: the GPU's model, cuBLASLt's version and the driver's.
std::string gemm_platform(int device);

}  // namespace gallop
