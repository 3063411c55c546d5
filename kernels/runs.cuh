#pragma once

// Eight neighbouring values at a time, moved in whole 16 bytes: one access of bf16, two of f32. The arrays
// begin at multiples of 16 bytes (`takes_16_bytes`), the runs at multiples of `run` values.

#include "kernels/common.cuh"

namespace gallop::kernels {

/// Values of a run.
constexpr int run = 8;

struct alignas(sizeof(uint4)) Run {
    float values[run];
};

/// A run as memory has it. Apart from its values, so that several are on their way before the first is
/// waited for, and bf16 takes half the registers.
template <bool half>
struct PackedRun {
    uint4 words[half ? 1 : 2];
};

/// Run i of x.
template <bool half>
__device__ PackedRun<half> fetch_run(const void* x, Index i) {
    PackedRun<half> packed;
#pragma unroll
    for (int k = 0; k < (half ? 1 : 2); ++k)
        packed.words[k] = static_cast<const uint4*>(x)[half ? i : 2 * i + k];
    return packed;
}

template <bool half>
__device__ Run widened(const PackedRun<half>& packed) {
    Run made;
#pragma unroll
    for (int k = 0; k < (half ? 1 : 2); ++k) {
        const uint4& four = packed.words[k];
        const unsigned words[] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (half) {
                const float2 pair =
                    __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(words[i]));
                made.values[2 * i] = pair.x;
                made.values[2 * i + 1] = pair.y;
            } else {
                made.values[4 * k + i] = reinterpret_cast<const float&>(words[i]);
            }
        }
    }
    return made;
}

__device__ inline Run load_run(const float* x, Index i) { return widened(fetch_run<false>(x, i)); }
__device__ inline Run load_run(Input x, Index i) {
    return x.half ? widened(fetch_run<true>(x.data, i)) : widened(fetch_run<false>(x.data, i));
}

/// Writes run i of y.
__device__ inline void store_run(Output y, Index i, const Run& x) {
    if (y.half) {
        unsigned words[run / 2];
#pragma unroll
        for (int k = 0; k < run; k += 2)
            reinterpret_cast<__nv_bfloat162&>(words[k / 2]) =
                __floats2bfloat162_rn(x.values[k], x.values[k + 1]);
        static_cast<uint4*>(y.data)[i] = {words[0], words[1], words[2], words[3]};
    } else {
        float4* to = static_cast<float4*>(y.data) + 2 * i;
        to[0] = {x.values[0], x.values[1], x.values[2], x.values[3]};
        to[1] = {x.values[4], x.values[5], x.values[6], x.values[7]};
    }
}

/// An array whose type the compiler knows.
template <bool half>
struct Typed {
    const void* data;
};

template <class F, class... Runs>
__device__ Run map_runs(const F& f, const Runs&... x) {
    Run y;
#pragma unroll
    for (int k = 0; k < run; ++k) y.values[k] = f(x.values[k]...);
    return y;
}

template <class F, bool... half>
__device__ Run map_packed(const F& f, const PackedRun<half>&... x) {
    return map_runs(f, widened(x)...);
}

template <class F, bool... half>
__global__ void __launch_bounds__(block_size)
    map_each(Index n, Index runs, F f, Output y, Typed<half>... x) {
    const Index first = static_cast<Index>(blockIdx.x) * block_size + threadIdx.x;
    const Index step = static_cast<Index>(gridDim.x) * block_size;
    for (Index i = first; i < runs; i += step)
        store_run(y, i, map_packed(f, fetch_run<half>(x.data, i)...));
    for (Index i = runs * run + first; i < n; i += step)
        store(y, i, f(load(Input{x.data, half}, i)...));
}

template <class F, bool... half>
void map_typed(Index n, cudaStream_t stream, const char* what, const F& f, Output y,
               Typed<half>... x) {
    if (n == 0) return;
    const bool aligned = takes_16_bytes(y.data) && (takes_16_bytes(x.data) && ...);
    const Index runs = aligned ? n / run : 0;
    enqueue(map_each<F, half...>, blocks_for(std::max(runs, n - runs * run), block_size), 0, stream,
            what, n, runs, f, y, x...);
}

/// y[i] = f(x[i]), n elements; y may be x. In runs where addresses allow it.
template <class F>
void map(Index n, cudaStream_t stream, const char* what, Output y, Input x, const F& f) {
    if (x.half)
        map_typed(n, stream, what, f, y, Typed<true>{x.data});
    else
        map_typed(n, stream, what, f, y, Typed<false>{x.data});
}

/// y[i] = f(a[i], b[i]), likewise.
template <class F>
void map(Index n, cudaStream_t stream, const char* what, Output y, Input a, Input b, const F& f) {
    const auto with = [&](auto typed) {
        if (b.half)
            map_typed(n, stream, what, f, y, typed, Typed<true>{b.data});
        else
            map_typed(n, stream, what, f, y, typed, Typed<false>{b.data});
    };
    if (a.half)
        with(Typed<true>{a.data});
    else
        with(Typed<false>{a.data});
}

}  // namespace gallop::kernels
