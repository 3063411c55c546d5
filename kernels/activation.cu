#include "kernels/runs.cuh"

namespace gallop::kernels {

namespace {

__device__ float swiglu7(float gate, float linear) {
    // Written so that NaN stays NaN.
    const float g = gate > 7.0F ? 7.0F : gate;
    const float l = linear < -7.0F ? -7.0F : linear > 7.0F ? 7.0F : linear;
    return g * sigmoid(1.702F * g) * (l + 1.0F);
}

/// Two runs of u to one of y; `runs` of them, the rest one by one.
template <bool half>
__global__ void __launch_bounds__(block_size) swiglu7_runs(const Swiglu7 a, Index runs) {
    const Index first = static_cast<Index>(blockIdx.x) * block_size + threadIdx.x;
    const Index step = static_cast<Index>(gridDim.x) * block_size;
    for (Index i = first; i < runs; i += step) {
        const PackedRun<half> packed[2] = {fetch_run<half>(a.u.data, 2 * i),
                                           fetch_run<half>(a.u.data, 2 * i + 1)};
        Run y;
#pragma unroll
        for (int side = 0; side < 2; ++side) {
            const Run u = widened(packed[side]);
#pragma unroll
            for (int k = 0; k < run / 2; ++k)
                y.values[side * run / 2 + k] = swiglu7(u.values[2 * k], u.values[2 * k + 1]);
        }
        store_run(a.y, i, y);
    }
    for (Index i = runs * run + first; i < a.n; i += step)
        store(a.y, i, swiglu7(load(a.u, 2 * i), load(a.u, 2 * i + 1)));
}

}  // namespace

void launch(const Activate& a, cudaStream_t stream) {
    if (a.activation == Activation::silu)
        return map(a.n, stream, "activation", a.y, a.x,
                   [] __device__(float x) { return apply(Activation::silu, x); });
    for_each(a.n, stream, "activation",
             [a] __device__(Index i) { store(a.y, i, apply(a.activation, load(a.x, i))); });
}

void launch(const Add& a, cudaStream_t stream) {
    map(a.n, stream, "add", a.x, {a.x.data, a.x.half}, a.y,
        [] __device__(float x, float y) { return x + y; });
}

void launch(const Swiglu7& a, cudaStream_t stream) {
    if (a.n == 0) return;
    const Index runs = takes_16_bytes(a.u.data) && takes_16_bytes(a.y.data) ? a.n / run : 0;
    enqueue(a.u.half ? swiglu7_runs<true> : swiglu7_runs<false>,
            blocks_for(std::max(runs, a.n - runs * run), block_size), 0, stream, "swiglu7", a,
            runs);
}

void launch(const Gelu7& a, cudaStream_t stream) {
    map(a.n, stream, "gelu7", a.y, a.u, [] __device__(float u) {
        const float z = u > 7.0F ? 7.0F : u;
        return z * sigmoid(1.702F * z);
    });
}

void launch(const Geglu& a, cudaStream_t stream) {
    const bool round_gelu = a.round_gelu;
    map(a.n, stream, "geglu", a.y, a.gate, a.up, [round_gelu] __device__(float x, float up) {
        constexpr float root = 0.7978845608028654F;  // √(2/π)
        const float inner = root * (x + 0.044715F * x * x * x);
        const float gelu = 0.5F * x * (1.0F + tanhf(inner));
        return (round_gelu ? round_to_bf16(gelu) : gelu) * up;
    });
}

void launch(const Snake& a, cudaStream_t stream) {
    for_each(a.rows * a.channels, stream, "snake", [a] __device__(Index i) {
        const Index c = i % a.channels;
        const float x = a.x[i];
        const float sine = sinf(x * expf(a.alpha[c]));
        a.y[i] = x + sine * sine * (1.0F / (expf(a.beta[c]) + 1e-9F));
    });
}

}  // namespace gallop::kernels
