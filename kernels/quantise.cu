#include <cuda_fp8.h>

#include "kernels/common.cuh"

namespace gallop::kernels {
namespace {

constexpr int block_warps = block_size / warp_size;
/// Values that a thread takes at once.
constexpr int run = 4;

/// Values i … i+3 of a row, whose address `vectors` says is good for that.
template <bool vectors>
__device__ float4 load_run(Input x, Index first, Index i, Index width) {
    if constexpr (vectors) {
        if (!x.half) return reinterpret_cast<const float4*>(x.data)[(first + i) / run];
        const auto pair = reinterpret_cast<const uint2*>(x.data)[(first + i) / run];
        const float2 low = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair.x));
        const float2 high = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair.y));
        return {low.x, low.y, high.x, high.y};
    } else {
        const auto at = [&](Index k) { return k < width ? load(x, first + k) : 0.0F; };
        return {at(i), at(i + 1), at(i + 2), at(i + 3)};
    }
}

__device__ float4 times(float4 a, float factor) {
    return {a.x * factor, a.y * factor, a.z * factor, a.w * factor};
}
__device__ float largest(float4 a) {
    return fmaxf(fmaxf(fabsf(a.x), fabsf(a.y)), fmaxf(fabsf(a.z), fabsf(a.w)));
}

/// To nearest, ties to even, at most 448; NaN stays NaN.
__device__ unsigned char to_e4m3(float x) {
    return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

/// Two codes in the lower 16 bits as two bf16.
__device__ unsigned widened_pair(unsigned codes) {
    const __half2_raw raw =
        __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
    const __nv_bfloat162 pair = __float22bfloat162_rn(__half22float2(__half2(raw)));
    return reinterpret_cast<const unsigned&>(pair);
}

/// One block a row. A row is read up to three times, from memory once: it fits the first-level cache.
template <bool normed, bool vectors>
__global__ void __launch_bounds__(block_size) quantise_rows(const Quantise a) {
    __shared__ float shared[block_warps];
    constexpr int step = block_size * run;
    for (Index row = blockIdx.x; row < a.rows; row += gridDim.x) {
        const Index first = row * a.width;
        const Index begin = static_cast<Index>(threadIdx.x) * run;
        float factor = 1;
        const float* weight = nullptr;
        if constexpr (normed) {
            float sum = 0;
            for (Index i = begin; i < a.width; i += step) {
                const float4 x = load_run<vectors>(a.x, first, i, a.width);
                sum = fmaf(x.x, x.x, fmaf(x.y, x.y, fmaf(x.z, x.z, fmaf(x.w, x.w, sum))));
            }
            sum = over_block<true>(sum, shared);
            const float n = static_cast<float>(a.width);
            factor = a.kind == NormKind::l2 ? sqrtf(n) / fmaxf(sqrtf(sum), a.eps)
                                            : 1.0F / sqrtf(sum / n + a.eps);
            if (a.kind != NormKind::rms) weight = a.weight + expert_of(a.experts, row) * a.width;
        }
        const auto value = [&](Index i) {
            float4 x = load_run<vectors>(a.x, first, i, a.width);
            if constexpr (normed) {
                x = times(x, factor);
                if (weight != nullptr) {
                    const float4 w = load_run<vectors>({weight, false}, 0, i, a.width);
                    const float one = a.kind == NormKind::rms_offset ? 1.0F : 0.0F;
                    x = {x.x * (one + w.x), x.y * (one + w.y), x.z * (one + w.z),
                         x.w * (one + w.w)};
                }
            }
            return x;
        };
        float highest = 0;
        for (Index i = begin; i < a.width; i += step) highest = fmaxf(highest, largest(value(i)));
        highest = over_block<false>(highest, shared);
        // Source: the OCP 8-bit floating point specification 1.0, table 1, for the largest value.
        const float scale = fmaxf(highest / 448.0F, 0x1p-126F);
        if (threadIdx.x == 0) a.scales[row] = scale;
        unsigned char* q = a.q + row * a.stride;
        for (Index i = begin; i < a.stride; i += step) {
            const float4 x = i < a.width ? value(i) : float4{0, 0, 0, 0};
            const uchar4 codes{to_e4m3(x.x / scale), to_e4m3(x.y / scale), to_e4m3(x.z / scale),
                               to_e4m3(x.w / scale)};
            if constexpr (vectors) {
                *reinterpret_cast<uchar4*>(q + i) = codes;
            } else {
                q[i] = codes.x;
                if (i + 1 < a.stride) q[i + 1] = codes.y;
                if (i + 2 < a.stride) q[i + 2] = codes.z;
                if (i + 3 < a.stride) q[i + 3] = codes.w;
            }
        }
    }
}

bool aligned(const void* data, std::size_t to) {
    return reinterpret_cast<std::uintptr_t>(data) % to == 0;
}

template <bool normed>
void start(const Quantise& a, cudaStream_t stream) {
    const bool vectors = a.width % run == 0 && a.stride % run == 0 &&
                         aligned(a.x.data, a.x.half ? 8 : 16) && aligned(a.q, run) &&
                         (a.weight == nullptr || aligned(a.weight, 16));
    enqueue(vectors ? quantise_rows<normed, true> : quantise_rows<normed, false>,
            blocks_for(a.rows, 1), 0, stream, "quantise", a);
}

}  // namespace

void launch(const Quantise& a, cudaStream_t stream) {
    if (a.rows == 0) return;
    if (a.normed)
        start<true>(a, stream);
    else
        start<false>(a, stream);
}

void launch(const WidenE4m3& a, cudaStream_t stream) {
    constexpr int codes = 8;
    for_each(a.n / codes, stream, "widening E4M3", [a] __device__(Index i) {
        const uint2 packed = reinterpret_cast<const uint2*>(a.x)[i];
        const uint4 wide{widened_pair(packed.x), widened_pair(packed.x >> 16),
                         widened_pair(packed.y), widened_pair(packed.y >> 16)};
        static_cast<uint4*>(a.y)[i] = wide;
    });
}

void launch(const ScaleBoth& a, cudaStream_t stream) {
    for_each(a.rows * a.width, stream, "scaling rows and columns", [a] __device__(Index i) {
        const Index row = quotient(i, a.width);
        const float scale = a.row_scales[row] * a.column_scales[i - row * a.width];
        store(a.y, i, (a.add ? load(a.y, i) : 0.0F) + scale * a.x[i]);
    });
}

}  // namespace gallop::kernels
