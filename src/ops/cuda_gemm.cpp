#include "ops/cuda_gemm.hpp"

#include <cstdint>

namespace gallop {
namespace {

/// What NVIDIA advises for Hopper.
constexpr Index workspace_bytes = Index{32} << 20;

void check_cublas(cublasStatus_t status, const char* what, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
    if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
        return;
    const std::string text =
        fmt::format("{}:{}: {}: {}", file, line, what, cublasLtGetStatusName(status));
    if (status == CUBLAS_STATUS_ALLOC_FAILED) throw OutOfMemoryError(text);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)
        throw Error(text);
    throw DeviceError(text);
}

using Description = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t type_of(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// The largest power of two up to 256 that divides an address.
unsigned alignment_of(const std::byte* data) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    unsigned alignment = 256;
    while (address % alignment != 0) alignment /= 2;
    return alignment;
}

/// A column-major matrix without gaps: cuBLASLt's view of a row-major array with the axes swapped.
Layout layout(DType dtype, Index rows, Index columns) {
    Layout made;
    check_cublas(
        cublasLtMatrixLayoutCreate(made.out(), type_of(dtype), static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), rows),
        "describing a matrix");
    return made;
}

template <class T>
void prefer(const Preference& preference, cublasLtMatmulPreferenceAttributes_t which, T value) {
    check_cublas(
        cublasLtMatmulPreferenceSetAttribute(preference.get(), which, &value, sizeof value),
        "stating a preference");
}

}  // namespace

CudaGemm::CudaGemm(Memory& memory, cudaStream_t stream)
    : stream_(stream), workspace_({workspace_bytes}, DType::u8, memory) {
    check_cublas(cublasLtCreate(lt_.out()), "opening cuBLASLt");
}

void CudaGemm::run(ConstTensorView x, ConstTensorView w, TensorView y) {
    const Problem problem{x.size(0),
                          w.size(0),
                          w.size(1),
                          x.dtype(),
                          y.dtype(),
                          alignment_of(x.raw()),
                          alignment_of(w.raw()),
                          alignment_of(y.raw())};
    // Row-major y = x·wᵀ is column-major yᵀ = (w as [depth, out])ᵀ·(x as [depth, rows]).
    const Layout a = layout(w.dtype(), problem.depth, problem.out);
    const Layout b = layout(x.dtype(), problem.depth, problem.rows);
    const Layout c = layout(y.dtype(), problem.out, problem.rows);
    Description description;
    check_cublas(cublasLtMatmulDescCreate(description.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "describing a product");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    check_cublas(cublasLtMatmulDescSetAttribute(description.get(), CUBLASLT_MATMUL_DESC_TRANSA,
                                                &transpose, sizeof transpose),
                 "describing a product");

    auto found = algorithms_.find(problem);
    if (found == algorithms_.end()) {
        Preference preference;
        check_cublas(cublasLtMatmulPreferenceCreate(preference.out()), "stating a preference");
        prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
               std::uint64_t{workspace_bytes});
        prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
               static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
        // Rows of 13652 bf16 are multiples of 8 bytes only and experts begin anywhere: an algorithm
        // chosen for 256 bytes would fault or refuse.
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
               std::uint32_t{problem.w_alignment});
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
               std::uint32_t{problem.x_alignment});
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
               std::uint32_t{problem.y_alignment});
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
               std::uint32_t{problem.y_alignment});
        cublasLtMatmulHeuristicResult_t best{};
        int count = 0;
        const cublasStatus_t status =
            cublasLtMatmulAlgoGetHeuristic(lt_.get(), description.get(), a.get(), b.get(), c.get(),
                                           c.get(), preference.get(), 1, &best, &count);
        CHECK(status == CUBLAS_STATUS_SUCCESS && count == 1,
              "cuBLASLt has no algorithm for [{}, {}] times [{}, {}] transposed, {} to {} ({})",
              problem.rows, problem.depth, problem.out, problem.depth, name_of(x.dtype()),
              name_of(y.dtype()), cublasLtGetStatusName(status));
        found = algorithms_.emplace(problem, best.algo).first;
    }
    const float one = 1.0F;
    const float zero = 0.0F;
    check_cublas(cublasLtMatmul(lt_.get(), description.get(), &one, w.raw(), a.get(), x.raw(),
                                b.get(), &zero, y.raw(), c.get(), y.raw(), c.get(), &found->second,
                                workspace_.view().raw(), workspace_bytes, stream_),
                 "multiplying matrices");
}

}  // namespace gallop
