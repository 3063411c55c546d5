#pragma once

// What the kernels share. Compiled with -fmad=false: a product and a sum are fused only where fmaf is
// written.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>

#include "core/cuda.hpp"
#include "kernels/kernels.hpp"

namespace gallop::kernels {

constexpr int warp_size = 32;
constexpr int block_size = 256;

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
    return x;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

__device__ inline float round_to_bf16(float x) { return widen(narrow<__nv_bfloat16>(x)); }

__device__ inline float load(Input x, Index i) {
    return x.half ? widen(static_cast<const __nv_bfloat16*>(x.data)[i])
                  : static_cast<const float*>(x.data)[i];
}
__device__ inline float load(Output x, Index i) { return load(Input{x.data, x.half}, i); }

__device__ inline void store(Output y, Index i, float value) {
    if (y.half)
        static_cast<__nv_bfloat16*>(y.data)[i] = narrow<__nv_bfloat16>(value);
    else
        static_cast<float*>(y.data)[i] = value;
}

/// The sum over a whole warp, or over each group of `lanes` neighbours of it, in every lane.
template <int lanes = warp_size>
__device__ float warp_sum(float x) {
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0U, x, step);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int step = warp_size / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0U, x, step));
    return x;
}

/// The sum, or the largest, over the block, in every thread. shared: a float a warp.
template <bool sum>
__device__ float over_block(float x, float* shared) {
    x = sum ? warp_sum(x) : warp_max(x);
    __syncthreads();  // nobody still reads what was there
    if (threadIdx.x % warp_size == 0) shared[threadIdx.x / warp_size] = x;
    __syncthreads();
    float all = shared[0];
#pragma unroll
    for (int warp = 1; warp < block_size / warp_size; ++warp)
        all = sum ? all + shared[warp] : fmaxf(all, shared[warp]);
    return all;
}

__device__ inline int expert_of(const Experts& experts, Index row) {
    int e = 0;
    while (e + 1 < experts.count && row >= experts.ends[e]) ++e;
    return e;
}

/// i / n for i ≥ 0 and n > 0: in 32 bits where both fit, which costs a GPU a fraction of 64.
__device__ inline Index quotient(Index i, Index n) {
    return ((i | n) >> 32) == 0 ? static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(n)
                                : i / n;
}
/// i mod n, likewise.
__device__ inline Index modulo(Index i, Index n) { return i - quotient(i, n) * n; }

/// With the hardware's exp and division, else the arithmetic takes longer than the memory: at most (2 +
/// 1.17·|x|)·2⁻²³ of exp(−x) and a last place or two off (CUDA C++ Programming Guide, intrinsic
/// functions), which is at most 3·10⁻⁷ of the result's range.
__device__ inline float sigmoid(float x) { return __fdividef(1.0F, 1.0F + __expf(-x)); }

__device__ inline float apply(Activation activation, float x) {
    switch (activation) {
        case Activation::none: return x;
        case Activation::silu: return x * sigmoid(x);
        case Activation::relu: return x > 0 ? x : 0.0F;
        case Activation::elu: return x > 0 ? x : expm1f(x);
        case Activation::tanh: return tanhf(x);
        case Activation::clamp: return x < -1.0F ? -1.0F : x > 1.0F ? 1.0F : x;
    }
    return x;
}

/// Does data begin where accesses of 16 bytes may?
inline bool takes_16_bytes(const void* data) {
    return reinterpret_cast<std::uintptr_t>(data) % sizeof(uint4) == 0;
}

/// Blocks of a grid that walks over `count` pieces of work, `per_block` at a time, in strides.
inline unsigned blocks_for(Index count, Index per_block) {
    constexpr Index most = 132 * 64;
    return static_cast<unsigned>(std::min((count + per_block - 1) / per_block, most));
}

/// Puts a kernel on the stream, in blocks of `block_size` threads with so many bytes of dynamic shared memory.
template <class... Parameters>
void enqueue(void (*kernel)(Parameters...), dim3 grid, std::size_t shared, cudaStream_t stream,
             const char* what, const std::type_identity_t<Parameters>&... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(block_size);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...), what);
}

template <class F>
__global__ void run_each(Index n, F f) {
    const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
    for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
        f(i);
}

/// f(i) for i = 0 … n−1, each by one thread.
template <class F>
void for_each(Index n, cudaStream_t stream, const char* what, const F& f) {
    if (n == 0) return;
    enqueue(run_each<F>, blocks_for(n, block_size), 0, stream, what, n, f);
}

}  // namespace gallop::kernels
