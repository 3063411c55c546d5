#include <cmath>

#include "kernels/runs.cuh"

namespace gallop::kernels {
namespace {

constexpr int block_warps = block_size / warp_size;
constexpr int queries_per_warp = 4;
constexpr int block_queries = block_warps * queries_per_warp;
constexpr int tile_keys = warp_size;  // in a tile, each lane scores one key
static_assert(block_queries == tile_keys, "queries and keys are loaded alike");

/// The keys a query sees: begin … end−1, and all from rest on.
struct Sight {
    int begin, end, rest;
};

__device__ Sight sight_of(const Attention& a, int query) {
    const int keys = static_cast<int>(a.keys);
    const int radius = static_cast<int>(min(a.radius, a.keys));
    if (a.mask == MaskKind::window)
        return {max(0, query - radius + 1), min(keys, query + radius), keys};
    const int video = static_cast<int>(a.frames * a.per_frame);
    if (a.mask == MaskKind::full || query >= video) return {0, keys, keys};
    const int per_frame = static_cast<int>(a.per_frame);
    const int frame = query / per_frame;
    const int last = min(static_cast<int>(a.frames) - 1, frame + radius);
    return {max(0, frame - radius) * per_frame, (last + 1) * per_frame, video};
}

/// Floats between two rows in shared memory: whole float4s, and four more, so that eight lanes reading
/// eight rows touch all banks.
__host__ __device__ constexpr int row_stride(int size) { return (size + 3) / 4 * 4 + 4; }

/// to[r, :] = from[first + r, head, :] for 32 rows, zeros after the last row and in the padding.
template <class T>
__device__ void load_rows(const void* from, Index first, Index rows, Index heads, Index head,
                          int size, float* to) {
    const int stride = row_stride(size);
    for (int i = threadIdx.x; i < tile_keys * stride; i += block_size) {
        const Index row = first + i / stride;
        const int d = i % stride;
        to[i] = row < rows && d < size
                    ? widen(static_cast<const T*>(from)[(row * heads + head) * size + d])
                    : 0.0F;
    }
}

/// One block attends with 32 queries of one head, four a warp, to all their keys, 32 at a time. A lane
/// scores one key; of the result it holds the columns lane, lane + 32, …
template <class T, int columns>
__global__ void __launch_bounds__(block_size) attend(const Attention a) {
    extern __shared__ float4 shared[];
    const int size = static_cast<int>(a.size);
    const int stride = row_stride(size);
    float* q = reinterpret_cast<float*>(shared);
    float* k = q + tile_keys * stride;
    float* v = k + tile_keys * stride;
    const int lane = threadIdx.x % warp_size;
    const int warp = threadIdx.x / warp_size;
    const Index head = blockIdx.y;
    const Index group = head / (a.heads / a.groups);
    const int keys = static_cast<int>(a.keys);
    const int first = static_cast<int>(blockIdx.x) * block_queries;
    const int own = first + warp * queries_per_warp;

    load_rows<T>(a.q, first, a.queries, a.heads, head, size, q);
    Sight sights[queries_per_warp];
    float highest[queries_per_warp];
    float sums[queries_per_warp];  // of this lane's keys
    float out[queries_per_warp][columns];
#pragma unroll
    for (int r = 0; r < queries_per_warp; ++r) {
        sights[r] = sight_of(a, own + r);
        highest[r] = -INFINITY;
        sums[r] = 0;
#pragma unroll
        for (int c = 0; c < columns; ++c) out[r][c] = 0;
    }
    // What the block's queries see together: the ranges only move forwards from query to query, or
    // become everything.
    const Sight one = sight_of(a, first);
    const Sight other = sight_of(a, min(first + block_queries, static_cast<int>(a.queries)) - 1);
    const Sight all{min(one.begin, other.begin), max(one.end, other.end),
                    min(one.rest, other.rest)};

    for (int tile = 0; tile < keys; tile += tile_keys) {
        const int end = tile + tile_keys;
        if (!((tile < all.end && end > all.begin) || end > all.rest)) continue;
        __syncthreads();  // everybody is done with the last tile
        load_rows<T>(a.k, tile, a.keys, a.groups, group, size, k);
        load_rows<T>(a.v, tile, a.keys, a.groups, group, size, v);
        __syncthreads();

        float p[queries_per_warp] = {};
        const float4* key_row = reinterpret_cast<const float4*>(k + lane * stride);
        const float4* query_rows =
            reinterpret_cast<const float4*>(q + warp * queries_per_warp * stride);
        for (int d = 0; d < stride / 4; ++d) {
            const float4 y = key_row[d];
#pragma unroll
            for (int r = 0; r < queries_per_warp; ++r) {
                const float4 x = query_rows[r * (stride / 4) + d];
                p[r] = fmaf(x.x, y.x, p[r]);
                p[r] = fmaf(x.y, y.y, p[r]);
                p[r] = fmaf(x.z, y.z, p[r]);
                p[r] = fmaf(x.w, y.w, p[r]);
            }
        }
        const int key = tile + lane;
#pragma unroll
        for (int r = 0; r < queries_per_warp; ++r) {
            const Sight& sight = sights[r];
            const bool seen =
                key < keys && ((key >= sight.begin && key < sight.end) || key >= sight.rest);
            float score = p[r] * a.scale;
            if (a.soft_cap > 0) score = a.soft_cap * tanhf(score / a.soft_cap);
            if (!seen) score = -INFINITY;
            const float higher = fmaxf(highest[r], warp_max(score));
            if (higher == -INFINITY) {  // nothing seen yet
                p[r] = 0;
                continue;
            }
            const float factor = expf(highest[r] - higher);
            highest[r] = higher;
            p[r] = expf(score - higher);
            sums[r] = sums[r] * factor + p[r];
#pragma unroll
            for (int c = 0; c < columns; ++c) out[r][c] *= factor;
        }
        for (int j = 0; j < tile_keys; ++j) {
            float weight[queries_per_warp];
#pragma unroll
            for (int r = 0; r < queries_per_warp; ++r) weight[r] = __shfl_sync(~0U, p[r], j);
#pragma unroll
            for (int c = 0; c < columns; ++c) {
                const int d = lane + c * warp_size;
                const float value = d < size ? v[j * stride + d] : 0.0F;
#pragma unroll
                for (int r = 0; r < queries_per_warp; ++r)
                    out[r][c] = fmaf(weight[r], value, out[r][c]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < queries_per_warp; ++r) {
        const float factor = 1.0F / warp_sum(sums[r]);
        if (own + r >= a.queries) continue;
        T* y = static_cast<T*>(a.y) + ((own + r) * a.heads + head) * a.size;
#pragma unroll
        for (int c = 0; c < columns; ++c) {
            const int d = lane + c * warp_size;
            if (d < size) y[d] = narrow<T>(out[r][c] * factor);
        }
    }
}

template <class T, int columns>
void start(const Attention& a, cudaStream_t stream) {
    const int bytes = 3 * tile_keys * row_stride(static_cast<int>(a.size)) * int{sizeof(float)};
    check_cuda(cudaFuncSetAttribute(attend<T, columns>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    bytes),
               "attention's shared memory");
    const dim3 grid(static_cast<unsigned>((a.queries + block_queries - 1) / block_queries),
                    static_cast<unsigned>(a.heads));
    enqueue(attend<T, columns>, grid, static_cast<std::size_t>(bytes), stream, "attention", a);
}

template <class T>
void start(const Attention& a, cudaStream_t stream) {
    if (a.size <= 4 * warp_size)
        start<T, 4>(a, stream);
    else
        start<T, 8>(a, stream);
}

/// A warp a row: the highest score, then the weights and their sum, then their shares of it.
__global__ void __launch_bounds__(block_size) soften(const Softmax a) {
    const int lane = threadIdx.x % warp_size;
    const Index step = static_cast<Index>(gridDim.x) * block_warps;
    for (Index row = static_cast<Index>(blockIdx.x) * block_warps + threadIdx.x / warp_size;
         row < a.rows; row += step) {
        float* const x = a.x + row * a.columns;
        float highest = -INFINITY;
        for (Index i = lane; i < a.columns; i += warp_size) {
            const float score = x[i] * a.scale;
            x[i] = a.soft_cap > 0 ? a.soft_cap * tanhf(score / a.soft_cap) : score;
            highest = fmaxf(highest, x[i]);
        }
        highest = warp_max(highest);
        float sum = 0;
        for (Index i = lane; i < a.columns; i += warp_size) {
            x[i] = expf(x[i] - highest);
            sum += x[i];
        }
        const float factor = 1.0F / warp_sum(sum);
        for (Index i = lane; i < a.columns; i += warp_size) x[i] *= factor;
    }
}

}  // namespace

void launch(const Softmax& a, cudaStream_t stream) {
    if (a.rows == 0) return;
    enqueue(soften, blocks_for(a.rows, block_warps), 0, stream, "softmax", a);
}

void launch(const Attention& a, cudaStream_t stream) {
    if (a.queries == 0 || a.heads == 0) return;
    if (a.half)
        start<__nv_bfloat16>(a, stream);
    else
        start<float>(a, stream);
}

void launch(const GateHeads& a, cudaStream_t stream) {
    // The gate of a head of all rows.
    const auto gate = [a] __device__(Index head) {
        const Index row = quotient(head, a.heads);
        return sigmoid(load(a.u, row * a.columns + a.column + head - row * a.heads));
    };
    if (a.size % run == 0 && takes_16_bytes(a.o.data)) {
        const Index runs = a.size / run;
        for_each(a.rows * a.heads * runs, stream, "gates", [a, gate, runs] __device__(Index i) {
            Run o = load_run(Input{a.o.data, a.o.half}, i);
            const float factor = gate(quotient(i, runs));
#pragma unroll
            for (float& value : o.values) value *= factor;
            store_run(a.o, i, o);
        });
        return;
    }
    for_each(a.rows * a.heads * a.size, stream, "gates", [a, gate] __device__(Index i) {
        store(a.o, i, load(a.o, i) * gate(quotient(i, a.size)));
    });
}

}  // namespace gallop::kernels
