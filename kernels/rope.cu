#include "kernels/runs.cuh"

namespace gallop::kernels {
namespace {

/// Threads a head that takes 16 bytes at a time.
constexpr int head_threads = 16;

/// 16 threads a head of a row, a run each; the heads of a row are those of q, of k, of v. All offsets are
/// in runs.
__global__ void __launch_bounds__(block_size) split_heads_in_runs(const SplitQkv a) {
    constexpr int block_heads = block_size / head_threads;
    __shared__ Run heads[block_heads][head_threads];
    const int lane = threadIdx.x % head_threads;
    Run* head = heads[threadIdx.x / head_threads];
    const int size = static_cast<int>(a.size / run);
    const int angles = static_cast<int>(a.angles / run);
    const Index slots = a.heads + 2 * a.groups;
    const Index jobs = a.rows * slots;
    // All threads of a warp take part in its sums, also those without a run.
    for (Index first = static_cast<Index>(blockIdx.x) * block_heads; first < jobs;
         first += static_cast<Index>(gridDim.x) * block_heads) {
        const Index job = first + threadIdx.x / head_threads;
        const bool own = job < jobs && lane < size;
        const Index row = quotient(job, slots);
        const Index slot = job - row * slots;
        const bool query = slot < a.heads;
        const bool value = slot >= a.heads + a.groups;
        Run x{};
        if (own) x = load_run(a.u, row * (a.columns / run) + slot * size + lane);
        float sum = 0;
#pragma unroll
        for (const float v : x.values) sum = fmaf(v, v, sum);
        sum = warp_sum<head_threads>(sum);
        if (own && !value) {
            const float factor = 1.0F / sqrtf(sum / static_cast<float>(a.size) + a.eps);
            const Run weight =
                load_run(query ? a.q_norm : a.k_norm, expert_of(a.experts, row) * size + lane);
#pragma unroll
            for (int k = 0; k < run; ++k)
                x.values[k] = x.values[k] * factor * (1.0F + weight.values[k]);
            head[lane] = x;
        }
        __syncwarp();
        if (own && !value && lane < 2 * angles) {
            const bool low = lane < angles;
            const Run other = head[low ? lane + angles : lane - angles];
            const Index angle = row * 2 * angles + (low ? lane : lane - angles);
            const Run sine = load_run(a.rope, angle);
            const Run cosine = load_run(a.rope, angle + angles);
#pragma unroll
            for (int k = 0; k < run; ++k) {
                const float across = other.values[k] * sine.values[k];
                x.values[k] = x.values[k] * cosine.values[k] + (low ? -across : across);
            }
        }
        if (own) {
            const Output y = query ? a.q : value ? a.v : a.k;
            const Index before = query ? 0 : value ? a.heads + a.groups : a.heads;
            const Index y_heads = query ? a.heads : a.groups;
            store_run(y, (row * y_heads + slot - before) * size + lane, x);
        }
        __syncwarp();  // the next head must not overwrite what another lane still reads
    }
}

/// Any size and address: one warp a head.
__global__ void split_heads(const SplitQkv a) {
    constexpr int block_warps = block_size / warp_size;
    __shared__ float heads[block_warps][SplitQkv::most_size];
    const int lane = threadIdx.x % warp_size;
    float* head = heads[threadIdx.x / warp_size];
    const Index slots = a.heads + 2 * a.groups;
    const Index step = static_cast<Index>(gridDim.x) * block_warps;
    Index job = static_cast<Index>(blockIdx.x) * block_warps + threadIdx.x / warp_size;
    for (; job < a.rows * slots; job += step) {
        const Index row = quotient(job, slots);
        const Index slot = job - row * slots;
        const Index from = row * a.columns + slot * a.size;
        if (slot >= a.heads + a.groups) {
            const Index to = (row * a.groups + slot - a.heads - a.groups) * a.size;
            for (Index d = lane; d < a.size; d += warp_size)
                store(a.v, to + d, load(a.u, from + d));
            continue;
        }
        const bool query = slot < a.heads;
        const Output y = query ? a.q : a.k;
        const Index to =
            query ? (row * a.heads + slot) * a.size : (row * a.groups + slot - a.heads) * a.size;
        const float* weight = (query ? a.q_norm : a.k_norm) + expert_of(a.experts, row) * a.size;
        float sum = 0;
        for (Index d = lane; d < a.size; d += warp_size) {
            head[d] = load(a.u, from + d);
            sum = fmaf(head[d], head[d], sum);
        }
        const float factor = 1.0F / sqrtf(warp_sum(sum) / static_cast<float>(a.size) + a.eps);
        for (Index d = lane; d < a.size; d += warp_size)
            head[d] = head[d] * factor * (1.0F + weight[d]);
        __syncwarp();
        const float* sine = a.rope + row * 2 * a.angles;
        const float* cosine = sine + a.angles;
        for (Index d = lane; d < a.size; d += warp_size) {
            float turned = head[d];
            if (d < a.angles)
                turned = head[d] * cosine[d] - head[d + a.angles] * sine[d];
            else if (d < 2 * a.angles)
                turned = head[d] * cosine[d - a.angles] + head[d - a.angles] * sine[d - a.angles];
            store(y, to + d, turned);
        }
        __syncwarp();  // the next head must not overwrite what another lane still reads
    }
}

}  // namespace

void launch(const SplitQkv& a, cudaStream_t stream) {
    const Index jobs = a.rows * (a.heads + 2 * a.groups);
    if (jobs == 0) return;
    const void* const arrays[] = {a.u.data, a.q.data, a.k.data, a.v.data,
                                  a.q_norm, a.k_norm, a.rope};
    if (a.size % run == 0 && a.size <= head_threads * run && a.angles % run == 0 &&
        a.columns % run == 0 && std::all_of(std::begin(arrays), std::end(arrays), takes_16_bytes)) {
        enqueue(split_heads_in_runs, blocks_for(jobs, block_size / head_threads), 0, stream,
                "split of q, k and v", a);
        return;
    }
    enqueue(split_heads, blocks_for(jobs, block_size / warp_size), 0, stream, "split of q, k and v",
            a);
}

void launch(const Rotate& a, cudaStream_t stream) {
    for_each(a.rows * a.heads * a.angles, stream, "rotate", [a] __device__(Index i) {
        const Index head = quotient(i, a.angles);
        const Index d = i - head * a.angles;
        const Index at = head * a.size + d;
        const float* rope = a.rope + quotient(head, a.heads) * 2 * a.angles;
        const float sine = rope[d];
        const float cosine = rope[a.angles + d];
        const float x0 = load(a.x, at);
        const float x1 = load(a.x, at + a.angles);
        const auto rounded = [&](float x) { return a.round_products ? round_to_bf16(x) : x; };
        store(a.x, at, rounded(x0 * cosine) - rounded(x1 * sine));
        store(a.x, at + a.angles, rounded(x1 * cosine) + rounded(x0 * sine));
    });
}

}  // namespace gallop::kernels
