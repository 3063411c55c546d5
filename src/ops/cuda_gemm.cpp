#include "ops/cuda_gemm.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>

#include "core/check.hpp"
#include "core/log.hpp"
#include "kernels/kernels.hpp"
#include "ops/cuda_memory.hpp"

namespace gallop {
namespace {

/// What NVIDIA advises for Hopper.
constexpr Index workspace_bytes = Index{32} << 20;
/// Suggestions that are timed, and how often.
constexpr int most_suggestions = 16;
constexpr int repeats = 3;
/// Rows of random values; more rows repeat them.
constexpr Index drawn_rows = 1024;

/// Whether cuBLASLt has said that it can't, with nothing else amiss.
bool is_refusal(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
}

/// Whether cuBLASLt says so, too, when there is no memory for a kernel that it loads.
bool may_lack_memory(cublasStatus_t status) {
    return status == CUBLAS_STATUS_ALLOC_FAILED || status == CUBLAS_STATUS_EXECUTION_FAILED ||
           status == CUBLAS_STATUS_INTERNAL_ERROR;
}

void check_cublas(cublasStatus_t status, const char* what, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
    if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
        return;
    const std::string text =
        fmt::format("{}:{}: {}: {}", file, line, what, cublasLtGetStatusName(status));
    if (status == CUBLAS_STATUS_ALLOC_FAILED) throw OutOfMemoryError(text);
    if (is_refusal(status)) throw Error(text);
    throw DeviceError(text);
}

using Description = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t type_of(DType dtype) {
    return dtype == DType::f8_e4m3 ? CUDA_R_8F_E4M3
           : dtype == DType::bf16  ? CUDA_R_16BF
                                   : CUDA_R_32F;
}

/// The largest power of two up to 256 that divides an address; 256 for null.
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
void describe(const Description& description, cublasLtMatmulDescAttributes_t which, T value) {
    check_cublas(cublasLtMatmulDescSetAttribute(description.get(), which, &value, sizeof value),
                 "describing a product");
}

template <class T>
void prefer(const Preference& preference, cublasLtMatmulPreferenceAttributes_t which, T value) {
    check_cublas(
        cublasLtMatmulPreferenceSetAttribute(preference.get(), which, &value, sizeof value),
        "stating a preference");
}

GemmKey key_of(const GemmCall& call) {
    // An algorithm reads the bias as it writes y.
    const unsigned y_alignment = std::min(
        alignment_of(call.y.raw()), alignment_of(reinterpret_cast<const std::byte*>(call.bias)));
    return {.rows = row_bucket(call.x.size(0)),
            .out = call.w.size(0),
            .depth = call.w.size(1),
            .in = call.x.dtype(),
            .to = call.y.dtype(),
            .add = call.add,
            .bias = call.bias != nullptr,
            .x_alignment = alignment_of(call.x.raw()),
            .w_alignment = alignment_of(call.w.raw()),
            .y_alignment = y_alignment};
}

/// Random rows to try algorithms on, and their scales for E4M3.
struct Drawn {
    Tensor x, scales;
};

Drawn drawn(const GemmKey& key, Memory& memory, cudaStream_t stream) {
    Drawn made{Tensor({key.rows, key.depth}, key.in, memory), Tensor()};
    const Index rows = std::min(key.rows, drawn_rows);
    Tensor normals({rows, key.depth}, DType::f32, memory);
    kernels::launch(
        kernels::Normal{NoiseStream(1, "gemm"), 0, normals.data<float>(), normals.numel()}, stream);
    if (key.in == DType::f8_e4m3) {
        made.scales = Tensor({key.rows}, DType::f32, memory);
        kernels::Quantise arguments{};
        arguments.x = {normals.view().raw(), false};
        arguments.q = reinterpret_cast<std::uint8_t*>(made.x.view().raw());
        arguments.scales = made.scales.data<float>();
        arguments.rows = rows;
        arguments.width = arguments.stride = key.depth;
        kernels::launch(arguments, stream);
    } else {
        kernels::launch(kernels::Convert{{normals.view().raw(), false},
                                         {made.x.view().raw(), key.in == DType::bf16},
                                         normals.numel()},
                        stream);
    }
    for (Tensor* part : {&made.x, &made.scales})
        for (Index row = rows; part->defined() && row < key.rows; row += rows) {
            const TensorView to = part->rows(row, std::min(row + rows, key.rows));
            check_cuda(cudaMemcpyAsync(to.raw(), part->view().raw(), to.bytes(),
                                       cudaMemcpyDeviceToDevice, stream),
                       "repeating rows");
        }
    return made;
}

/// Into how many rows a product is cut so that no piece has more elements than `most` in an array `width` wide:
/// the pieces nearly equal. Each is aligned as the whole is and has rows enough for the whole's row_bucket, so
/// its algorithm and order of sums are the whole's, too.
Index rows_of_piece(Index rows, Index width, Index most) {
    constexpr Index unit = 256;
    // Cut in two and rounded, either part is in the last bucket.
    constexpr Index least = 3 * Index{8192};
    const Index at_most = std::max(most / std::max<Index>(width, 1) / unit * unit, least);
    const Index pieces = (rows + at_most - 1) / at_most;
    const Index equal = pieces > 1 ? (rows + pieces - 1) / pieces : rows;
    return std::min(rows, (equal + unit - 1) / unit * unit);
}

/// Which multiple of y the product is added to.
float kept_of(const GemmCall& call) { return call.add ? 1.0F : 0.0F; }

Event make_event() {
    Event event;
    check_cuda(cudaEventCreate(event.out()), "making an event");
    return event;
}

}  // namespace

/// The product of a call for so many rows: row-major y = x·wᵀ is column-major
/// yᵀ = (w as [depth, out])ᵀ·(x as [depth, rows]).
struct CudaGemm::Problem {
    Description description;
    Layout a, b, c;

    Problem(const GemmCall& call, Index rows)
        : a(layout(call.w.dtype(), call.w.size(1), call.w.size(0))),
          b(layout(call.x.dtype(), call.w.size(1), rows)),
          c(layout(call.y.dtype(), call.w.size(0), rows)) {
        check_cublas(cublasLtMatmulDescCreate(description.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F),
                     "describing a product");
        describe(description, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
        if (call.x.dtype() == DType::f8_e4m3) {
            constexpr std::int32_t by_row = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
            describe(description, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, by_row);
            describe(description, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, by_row);
            describe(description, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, call.w_scales);
            describe(description, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, call.x_scales);
            describe(description, CUBLASLT_MATMUL_DESC_FAST_ACCUM, std::int8_t{0});
        }
        if (call.bias != nullptr) {
            describe(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
            describe(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
        }
    }
};

std::string gemm_platform(int device) {
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device), "asking what the GPU is");
    int driver = 0;
    check_cuda(cudaDriverGetVersion(&driver), "asking for the driver's version");
    return fmt::format("{}, cuBLASLt {}, driver {}", properties.name, cublasLtGetVersion(), driver);
}

CudaGemm::CudaGemm(Memory& memory, cudaStream_t stream, GemmChoices choices, bool tune,
                   Index most_elements)
    : memory_(memory),
      stream_(stream),
      workspace_({workspace_bytes}, DType::u8, memory),
      choices_(std::move(choices)),
      tune_(tune),
      most_elements_(most_elements) {
    check_cublas(cublasLtCreate(lt_.out()), "opening cuBLASLt");
}

void CudaGemm::run(const GemmCall& call) {
    const Index rows = call.x.size(0);
    const Index piece =
        rows_of_piece(rows, std::max(call.w.size(0), call.w.size(1)), most_elements_);
    for (Index first = 0; first < rows; first += piece) {
        const Index last = std::min(first + piece, rows);
        GemmCall part = call;
        part.x = call.x.rows(first, last);
        part.y = call.y.rows(first, last);
        if (call.x_scales != nullptr) part.x_scales = call.x_scales + first;
        run_piece(part);
    }
}

void CudaGemm::run_piece(const GemmCall& call) {
    CHECK(
        call.x.dtype() != DType::f8_e4m3 || (call.w.size(0) % 16 == 0 && call.w.size(1) % 16 == 0),
        "an E4M3 matrix of shape {} (both extents multiples of 16)", to_string(call.w.shape()));
    const bool eight_bits = call.x.dtype() == DType::f8_e4m3;
    if (run_at_once(call) || (call.add && run_through(call.y.dtype(), call)) ||
        (eight_bits && call.y.dtype() == DType::f32 && run_through(DType::bf16, call)) ||
        (eight_bits && run_widened(call)))
        return;
    throw Error(
        fmt::format("cuBLASLt has no algorithm for [{}, {}] times [{}, {}] transposed, {} to {}",
                    call.x.size(0), call.w.size(1), call.w.size(0), call.w.size(1),
                    name_of(call.x.dtype()), name_of(call.y.dtype())));
}

bool CudaGemm::run_at_once(const GemmCall& call) {
    const GemmKey key = key_of(call);
    const std::pair exact{key, call.x.size(0)};
    auto found = algorithms_.find(exact);
    if (found == algorithms_.end())
        found = algorithms_.emplace(exact, algorithm_for(call, key)).first;
    if (!found->second) return false;
    // Not all is known to who suggests algorithms, such as what is added: the call itself tells.
    const cublasStatus_t status =
        start(Problem(call, call.x.size(0)), call, *found->second, kept_of(call));
    if (is_refusal(status)) {
        log_info(
            "cublaslt refuses a product rows={} out={} depth={} from={} to={} add={} status={}",
            call.x.size(0), key.out, key.depth, name_of(key.in), name_of(key.to), key.add,
            cublasLtGetStatusName(status));
        found->second.reset();
        return false;
    }
    check_cublas(status, "multiplying matrices");
    return true;
}

bool CudaGemm::run_through(DType dtype, const GemmCall& call) {
    Tensor product(call.y.shape(), dtype, memory_);
    GemmCall plain = call;
    plain.y = product;
    plain.add = false;
    if (!run_at_once(plain)) return false;
    const kernels::Input made{product.view().raw(), dtype == DType::bf16};
    const kernels::Output y{call.y.raw(), false};
    if (call.add)
        kernels::launch(kernels::Add{y, made, product.numel()}, stream_);
    else
        kernels::launch(kernels::Convert{made, y, product.numel()}, stream_);
    return true;
}

bool CudaGemm::run_widened(const GemmCall& call) {
    const auto widened = [&](ConstTensorView codes) {
        Tensor wide(codes.shape(), DType::bf16, memory_);
        kernels::launch(kernels::WidenE4m3{reinterpret_cast<const std::uint8_t*>(codes.raw()),
                                           wide.view().raw(), codes.numel()},
                        stream_);
        return wide;
    };
    const Tensor x = widened(call.x);
    const Tensor w = widened(call.w);
    Tensor product(call.y.shape(), DType::f32, memory_);
    if (!run_at_once({.x = x, .w = w, .y = product})) return false;
    kernels::launch(kernels::ScaleBoth{product.data<float>(),
                                       call.x_scales,
                                       call.w_scales,
                                       {call.y.raw(), call.y.dtype() == DType::bf16},
                                       call.x.size(0),
                                       call.w.size(0),
                                       call.add},
                    stream_);
    return true;
}

std::optional<cublasLtMatmulAlgo_t> CudaGemm::algorithm_for(const GemmCall& call,
                                                            const GemmKey& key) {
    const Problem here(call, call.x.size(0));
    const Algorithms suggested = suggestions(Problem(call, key.rows), key, most_suggestions);
    // What was timed has the first suggestion's order of sums, so it may stand in only where that one is usable:
    // else these rows' order would depend on what was timed.
    if (!suggested.empty() && usable(here, suggested[0])) {
        const auto faster = timed(suggested, call, key);
        return faster && usable(here, *faster) ? *faster : suggested[0];
    }
    const Algorithms exact = suggestions(here, key, 1);
    if (!exact.empty()) return exact[0];
    log_info("cublaslt has no algorithm rows={} out={} depth={} from={} to={}", call.x.size(0),
             key.out, key.depth, name_of(key.in), name_of(key.to));
    return {};
}

std::optional<cublasLtMatmulAlgo_t> CudaGemm::timed(const Algorithms& suggested,
                                                    const GemmCall& call, const GemmKey& key) {
    if (const std::optional<GemmAlgorithm> known = choices_.find(key))
        return std::bit_cast<cublasLtMatmulAlgo_t>(*known);
    if (!tune_ || suggested.size() < 2) return {};
    try {
        const auto& best = suggested[best_of(suggested, call, key)];
        choices_.put(key, std::bit_cast<GemmAlgorithm>(best));
        return best;
    } catch (const OutOfMemoryError&) {
        log_warning("no memory to time matrix products in rows={} out={} depth={}", key.rows,
                    key.out, key.depth);
        return {};
    }
}

CudaGemm::Algorithms CudaGemm::suggestions(const Problem& problem, const GemmKey& key,
                                           int most) const {
    Preference preference;
    check_cublas(cublasLtMatmulPreferenceCreate(preference.out()), "stating a preference");
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    // One order of sums: the depth isn't split.
    prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
    // Experts begin anywhere, and f32 networks aren't padded: an algorithm chosen for 256 bytes would
    // fault or refuse.
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{key.w_alignment});
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::uint32_t{key.x_alignment});
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, std::uint32_t{key.y_alignment});
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, std::uint32_t{key.y_alignment});
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        lt_.get(), problem.description.get(), problem.a.get(), problem.b.get(), problem.c.get(),
        problem.c.get(), preference.get(), most, results.data(), &count);
    Algorithms found;
    if (is_refusal(status)) return found;
    check_cublas(status, "asking for algorithms");
    for (int i = 0; i < count; ++i)
        if (results[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
            found.push_back(results[static_cast<std::size_t>(i)].algo);
    return found;
}

bool CudaGemm::usable(const Problem& problem, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(
        lt_.get(), problem.description.get(), problem.a.get(), problem.b.get(), problem.c.get(),
        problem.c.get(), &algorithm, &result);
    return status == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= static_cast<std::size_t>(workspace_bytes);
}

std::size_t CudaGemm::best_of(const Algorithms& algorithms, const GemmCall& call,
                              const GemmKey& key) {
    const Drawn rows = drawn(key, memory_, stream_);
    Tensor expected({key.rows, key.out}, key.to, memory_);
    Tensor actual({key.rows, key.out}, key.to, memory_);
    Tensor same({1}, DType::i32, memory_);
    GemmCall trial = call;
    trial.x = rows.x;
    trial.x_scales = rows.scales.defined() ? rows.scales.data<float>() : nullptr;
    trial.y = expected;
    const Problem problem(trial, key.rows);
    const Event begin = make_event();
    const Event end = make_event();
    // Few results of bf16 differ where a sum in f32 does: of a small matrix perhaps none. What rounding left of
    // the first algorithm's results, x·wᵀ - bf16(x·wᵀ), shows the lower bits of the sums.
    const auto leave_rest = [&](TensorView y, const cublasLtMatmulAlgo_t& algorithm) {
        trial.y = y;
        const cublasStatus_t status = start(problem, trial, algorithms[0], 0.0F);
        return status == CUBLAS_STATUS_SUCCESS ? start(problem, trial, algorithm, -1.0F) : status;
    };
    const cublasStatus_t first = leave_rest(expected, algorithms[0]);
    if (is_refusal(first)) return 0;  // bits cannot be compared where nothing is added
    check_cublas(first, "trying an algorithm");
    std::vector<GemmTrial> trials(algorithms.size());
    for (std::size_t i = 0; i < algorithms.size(); ++i) {
        std::int32_t equal = 1;
        if (i > 0) {
            if (leave_rest(actual, algorithms[i]) != CUBLAS_STATUS_SUCCESS) continue;
            check_cuda(cudaMemsetAsync(same.view().raw(), 1, same.bytes(), stream_), "filling");
            kernels::launch(
                kernels::SameBytes{expected.view().raw(), actual.view().raw(),
                                   static_cast<Index>(expected.bytes()), same.data<std::int32_t>()},
                stream_);
            check_cuda(cudaMemcpyAsync(&equal, same.view().raw(), sizeof equal, cudaMemcpyDefault,
                                       stream_),
                       "comparing results");
            check_cuda(cudaStreamSynchronize(stream_), "comparing results");
        }
        trials[i].same_bits = equal != 0;
        if (!trials[i].same_bits) continue;
        trial.y = actual;
        for (int repeat = 0; repeat < repeats; ++repeat) {
            check_cuda(cudaEventRecord(begin.get(), stream_), "timing");
            check_cublas(start(problem, trial, algorithms[i], kept_of(call)),
                         "timing an algorithm");
            check_cuda(cudaEventRecord(end.get(), stream_), "timing");
            check_cuda(cudaEventSynchronize(end.get()), "timing");
            float milliseconds = 0;
            check_cuda(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "timing");
            trials[i].microseconds.push_back(1000.0 * milliseconds);
        }
    }
    return fastest(trials);
}

cublasStatus_t CudaGemm::start(const Problem& problem, const GemmCall& call,
                               const cublasLtMatmulAlgo_t& algorithm, float kept) {
    const auto multiply = [&] {
        const float one = 1.0F;
        return cublasLtMatmul(lt_.get(), problem.description.get(), &one, call.w.raw(),
                              problem.a.get(), call.x.raw(), problem.b.get(), &kept, call.y.raw(),
                              problem.c.get(), call.y.raw(), problem.c.get(), &algorithm,
                              workspace_.view().raw(), workspace_bytes, stream_);
    };
    cublasStatus_t status = multiply();
    if (!may_lack_memory(status) || !freed_for_driver(stream_)) return status;
    status = multiply();
    if (may_lack_memory(status))
        throw OutOfMemoryError(fmt::format("multiplying matrices with little memory left: {}",
                                           cublasLtGetStatusName(status)));
    return status;
}

}  // namespace gallop
