// cuBLASLt, as far as the engine calls it: D = A^T B (+ C), column-major, on an emulated GPU. It suggests three
// algorithms; the last one adds in another order, so its bits differ and it must not be taken.

#include "emulation/cublaslt.hpp"

#include <cstring>
#include <vector>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "emulation/queue.hpp"

namespace {

using namespace gallop::emulation;

constexpr int algorithms = 3;

struct Description {
    cublasOperation_t transposed_a, transposed_b;
    std::int32_t a_mode, b_mode;
    const float* a_scales;
    const float* b_scales;
    cublasLtEpilogue_t epilogue;
    const float* bias;
};
struct Layout {
    cudaDataType type;
    std::uint64_t rows, columns;
    std::int64_t step;
};

template <class T, class Opaque>
T& as(Opaque* opaque) {
    static_assert(sizeof(T) <= sizeof(Opaque));
    return *reinterpret_cast<T*>(opaque);
}

float value_at(const void* data, cudaDataType type, std::size_t i) {
    switch (type) {
        case CUDA_R_16BF: return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
        case CUDA_R_8F_E4M3: return static_cast<float>(static_cast<const __nv_fp8_e4m3*>(data)[i]);
        default: return static_cast<const float*>(data)[i];
    }
}
void put(void* data, cudaDataType type, std::size_t i, float value) {
    if (type == CUDA_R_16BF)
        static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
    else
        static_cast<float*>(data)[i] = value;
}

/// Column by column, without gaps.
std::vector<float> floats(const void* data, const Layout& layout) {
    std::vector<float> values(layout.rows * layout.columns);
    if (layout.type == CUDA_R_32F && layout.step == static_cast<std::int64_t>(layout.rows)) {
        if (!values.empty()) std::memcpy(values.data(), data, values.size() * sizeof(float));
        return values;
    }
    for (std::size_t c = 0; c < layout.columns; ++c)
        for (std::size_t r = 0; r < layout.rows; ++r)
            values[c * layout.rows + r] =
                value_at(data, layout.type, c * static_cast<std::size_t>(layout.step) + r);
    return values;
}

bool valid(const Description& what, const Layout& a, const Layout& b, const Layout& d) {
    if (what.transposed_a != CUBLAS_OP_T || what.transposed_b != CUBLAS_OP_N || a.rows != b.rows ||
        a.columns != d.rows || b.columns != d.columns || a.type != b.type)
        return false;
    for (const Layout& array : {a, b, d})
        if (array.rows * array.columns > refusals().more_elements) return false;
    const bool eight_bits = a.type == CUDA_R_8F_E4M3;
    // Source: cuBLASLt's documentation, the requirements of FP8 kernels.
    if (eight_bits && d.type == CUDA_R_32F && refusals().e4m3_to_f32) return false;
    // Source: github.com/pytorch/ao/issues/4582, of an H100.
    const bool few_and_deep = d.columns <= 256 && a.rows >= 9216;
    if (eight_bits && (few_and_deep || refusals().e4m3)) return false;
    if (eight_bits && (a.rows % 16 != 0 || a.columns % 16 != 0 ||
                       (d.type != CUDA_R_16BF && d.type != CUDA_R_32F)))
        return false;
    const bool scaled = what.a_mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F &&
                        what.b_mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    return eight_bits == scaled;
}

/// Whether the first algorithm does so many rows.
bool first_does(std::uint64_t rows) { return !refusals().first_of_odd_rows || rows % 16 == 0; }

/// In 32 sums, which are added from the front, or from the back.
__attribute__((target_clones("avx2", "default"))) float dot(const float* x, const float* y,
                                                            std::size_t n, bool backwards) {
    constexpr std::size_t lanes = 32;
    float sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += x[i + lane] * y[i + lane];
    for (std::size_t lane = 0; i < n; ++i, ++lane) sums[lane] += x[i] * y[i];
    float sum = 0;
    for (std::size_t lane = 0; lane < lanes; ++lane)
        sum += sums[backwards ? lanes - 1 - lane : lane];
    return sum;
}

struct Product {
    Description what;
    Layout a, b, c, d;
    const void* a_data;
    const void* b_data;
    const void* c_data;
    void* d_data;
    float alpha, beta;
    bool backwards;
    int repeats;  ///< a slow algorithm computes it several times

    void operator()() const {
        const std::vector<float> left = floats(a_data, a);
        const std::vector<float> right = floats(b_data, b);
        const std::size_t depth = a.rows;
        for (std::size_t column = 0; column < d.columns; ++column)
            for (std::size_t row = 0; row < d.rows; ++row) {
                float sum = 0;
                for (int i = 0; i < repeats; ++i)
                    sum = dot(&left[row * depth], &right[column * depth], depth, backwards);
                if (a.type == CUDA_R_8F_E4M3) sum *= what.a_scales[row] * what.b_scales[column];
                const std::size_t at = column * static_cast<std::size_t>(d.step) + row;
                float y = alpha * sum;
                if (beta != 0) y += beta * value_at(c_data, c.type, at);
                if (what.epilogue == CUBLASLT_EPILOGUE_BIAS) y += what.bias[row];
                put(d_data, d.type, at, y);
            }
    }
};

}  // namespace

gallop::emulation::Refusals& gallop::emulation::refusals() {
    static Refusals all;
    return all;
}

extern "C" {

size_t cublasLtGetVersion() { return 0; }
const char* cublasLtGetStatusName(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS"
                                           : "CUBLAS_STATUS_NOT_SUPPORTED";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    static int only;
    *handle = reinterpret_cast<cublasLtHandle_t>(&only);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t step) {
    *layout = new cublasLtMatrixLayoutOpaque_t{};
    as<Layout>(*layout) = {type, rows, columns, step};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t,
                                        cudaDataType_t) {
    *description = new cublasLtMatmulDescOpaque_t{};
    as<Description>(*description) = {};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
    delete description;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t which,
                                              const void* value, size_t bytes) {
    Description& what = as<Description>(description);
    const auto set = [&](auto& field) {
        if (bytes != sizeof field) return CUBLAS_STATUS_INVALID_VALUE;
        std::memcpy(&field, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    };
    switch (which) {
        case CUBLASLT_MATMUL_DESC_TRANSA: return set(what.transposed_a);
        case CUBLASLT_MATMUL_DESC_TRANSB: return set(what.transposed_b);
        case CUBLASLT_MATMUL_DESC_A_SCALE_MODE: return set(what.a_mode);
        case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: return set(what.b_mode);
        case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return set(what.a_scales);
        case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return set(what.b_scales);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(what.epilogue);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(what.bias);
        case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
            return bytes == 1 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
        default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    *preference = new cublasLtMatmulPreferenceOpaque_t{};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t which,
                                                    const void*, size_t bytes) {
    const size_t expected = which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8 : 4;
    return bytes == expected ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int most,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
    *count = 0;
    if (!valid(as<Description>(description), as<Layout>(a), as<Layout>(b), as<Layout>(d)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (std::uint64_t algorithm = first_does(as<Layout>(d).columns) ? 1 : algorithms;
         *count < most && algorithm <= algorithms; ++*count, ++algorithm) {
        results[*count] = {};
        results[*count].algo.data[0] = algorithm;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
    *result = {};
    const std::uint64_t least = first_does(as<Layout>(d).columns) ? 1 : 2;
    const bool known = algorithm->data[0] >= least && algorithm->data[0] <= algorithms;
    return known && valid(as<Description>(description), as<Layout>(a), as<Layout>(b), as<Layout>(d))
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a_data, cublasLtMatrixLayout_t a, const void* b_data,
                              cublasLtMatrixLayout_t b, const void* beta, const void* c_data,
                              cublasLtMatrixLayout_t c, void* d_data, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t,
                              cudaStream_t stream) {
    const std::lock_guard lock(device_mutex());
    if (refusals().next_products > 0) {
        --refusals().next_products;
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    const Product product{as<Description>(description),
                          as<Layout>(a),
                          as<Layout>(b),
                          as<Layout>(c),
                          as<Layout>(d),
                          a_data,
                          b_data,
                          c_data,
                          d_data,
                          *static_cast<const float*>(alpha),
                          *static_cast<const float*>(beta),
                          algorithm->data[0] == algorithms,
                          algorithm->data[0] == 1 && refusals().first_of_odd_rows ? 20 : 1};
    const bool refused = product.a.type == CUDA_R_8F_E4M3 &&
                         (refusals().e4m3_calls || (product.beta != 0 && refusals().e4m3_sums));
    if (refused || !valid(product.what, product.a, product.b, product.d))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return enqueue(stream, product) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                   : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
