#include "kernels/runs.cuh"

namespace gallop::kernels {
namespace {

/// What a row with that sum of squares is multiplied by.
__device__ float factor_of(const Norm& a, float sum) {
    const float n = static_cast<float>(a.width);
    return a.kind == NormKind::l2 ? sqrtf(n) / fmaxf(sqrtf(sum), a.eps)
                                  : 1.0F / sqrtf(sum / n + a.eps);
}

/// Runs of a row that a thread keeps.
constexpr int most_runs = 4;

/// `lanes` neighbouring threads a row, which they read once, 16 bytes at a time, and keep in registers;
/// each reads and writes the same elements, so y may be x.
template <bool half, bool silu, int lanes>
__global__ void __launch_bounds__(block_size, 4) norm_in_registers(const Norm a) {
    __shared__ float sums[block_size / warp_size];
    constexpr int block_rows = block_size / lanes;
    const int lane = threadIdx.x % lanes;
    const int runs = static_cast<int>(a.width / run);
    // All threads of a warp take part in its sums, also those without a row.
    for (Index first = static_cast<Index>(blockIdx.x) * block_rows; first < a.rows;
         first += static_cast<Index>(gridDim.x) * block_rows) {
        const Index row = first + threadIdx.x / lanes;
        const int own = row < a.rows ? runs : 0;
        PackedRun<half> x[most_runs];
#pragma unroll
        for (int k = 0; k < most_runs; ++k)
            if (lane + k * lanes < own)
                x[k] = fetch_run<half>(a.x.data, row * runs + lane + k * lanes);
        float sum = 0;
#pragma unroll
        for (int k = 0; k < most_runs; ++k) {
            if (lane + k * lanes >= own) continue;
            for (const float value : widened(x[k]).values) sum = fmaf(value, value, sum);
        }
        if constexpr (lanes <= warp_size)
            sum = warp_sum<lanes>(sum);
        else
            sum = over_block<true>(sum, sums);
        const float factor = factor_of(a, sum);
        const Index weights = own == 0 ? 0 : expert_of(a.experts, row) * runs;
        const float offset = a.kind == NormKind::rms_offset ? 1.0F : 0.0F;
#pragma unroll
        for (int k = 0; k < most_runs; ++k) {
            const int i = lane + k * lanes;
            if (i >= own) continue;
            Run y = widened(x[k]);
            Run weight{};
            if (a.kind != NormKind::rms) weight = load_run(a.weight, weights + i);
#pragma unroll
            for (int v = 0; v < run; ++v) {
                float& value = y.values[v];
                value *= factor;
                if (a.kind != NormKind::rms) value *= offset + weight.values[v];
                if constexpr (silu) value *= sigmoid(value);
            }
            store_run(a.y, row * runs + i, y);
        }
    }
}

/// Any width, address and activation: one warp a row, which it reads twice; each lane reads and writes the same
/// elements.
__global__ void __launch_bounds__(block_size) norm_rows(const Norm a) {
    const int lane = threadIdx.x % warp_size;
    const Index warps = static_cast<Index>(gridDim.x) * (block_size / warp_size);
    Index row = static_cast<Index>(blockIdx.x) * (block_size / warp_size) + threadIdx.x / warp_size;
    for (; row < a.rows; row += warps) {
        const Index first = row * a.width;
        float sum = 0;
        for (Index i = lane; i < a.width; i += warp_size) {
            const float x = load(a.x, first + i);
            sum = fmaf(x, x, sum);
        }
        const float factor = factor_of(a, warp_sum(sum));
        const Index weights = expert_of(a.experts, row) * a.width;
        for (Index i = lane; i < a.width; i += warp_size) {
            float y = load(a.x, first + i) * factor;
            if (a.kind == NormKind::rms_offset) y *= 1.0F + a.weight[weights + i];
            if (a.kind == NormKind::l2) y *= a.weight[weights + i];
            store(a.y, first + i, apply(a.activation, y));
        }
    }
}

/// With as few threads a row as can keep it. False: not even a block can.
template <bool half, bool silu, int lanes, int... more>
bool start_in_registers(const Norm& a, cudaStream_t stream) {
    if (a.width <= Index{lanes} * most_runs * run) {
        enqueue(norm_in_registers<half, silu, lanes>, blocks_for(a.rows, block_size / lanes), 0,
                stream, "norm", a);
        return true;
    }
    if constexpr (sizeof...(more) > 0) return start_in_registers<half, silu, more...>(a, stream);
    return false;
}

template <bool half>
bool start_in_registers(const Norm& a, cudaStream_t stream) {
    switch (a.activation) {
        case Activation::none:
            return start_in_registers<half, false, 4, 8, 16, warp_size, block_size>(a, stream);
        case Activation::silu:
            return start_in_registers<half, true, 4, 8, 16, warp_size, block_size>(a, stream);
        default: return false;
    }
}

}  // namespace

void launch(const Norm& a, cudaStream_t stream) {
    if (a.rows == 0 || a.width == 0) return;
    const bool runs = a.width % run == 0 && takes_16_bytes(a.x.data) && takes_16_bytes(a.y.data) &&
                      takes_16_bytes(a.weight);
    if (runs &&
        (a.x.half ? start_in_registers<true>(a, stream) : start_in_registers<false>(a, stream)))
        return;
    enqueue(norm_rows, blocks_for(a.rows, block_size / warp_size), 0, stream, "norm", a);
}

void launch(const Affine& a, cudaStream_t stream) {
    const bool scaled = a.scale != nullptr;
    if (a.width % run == 0 && takes_16_bytes(a.x.data) && takes_16_bytes(a.y.data) &&
        takes_16_bytes(a.scale) && takes_16_bytes(a.shift)) {
        const Index runs = a.width / run;
        for_each(a.rows * runs, stream, "affine", [a, runs, scaled] __device__(Index i) {
            const Index c = modulo(i, runs);
            Run y = load_run(a.x, i);
            const Run shift = load_run(a.shift, c);
            const Run scale = scaled ? load_run(a.scale, c) : Run{};
#pragma unroll
            for (int k = 0; k < run; ++k)
                y.values[k] =
                    (scaled ? y.values[k] * scale.values[k] : y.values[k]) + shift.values[k];
            store_run(a.y, i, y);
        });
        return;
    }
    for_each(a.rows * a.width, stream, "affine", [a, scaled] __device__(Index i) {
        const Index c = modulo(i, a.width);
        const float x = load(a.x, i);
        store(a.y, i, (scaled ? x * a.scale[c] : x) + a.shift[c]);
    });
}

}  // namespace gallop::kernels
