#include "kernels/common.cuh"

namespace gallop::kernels {
namespace {

/// One warp a head of a row; the heads of a row are those of q, of k, of v.
__global__ void split_heads(const SplitQkv a) {
    constexpr int block_warps = block_size / warp_size;
    __shared__ float heads[block_warps][SplitQkv::most_size];
    const int lane = threadIdx.x % warp_size;
    float* head = heads[threadIdx.x / warp_size];
    const Index slots = a.heads + 2 * a.groups;
    const Index step = static_cast<Index>(gridDim.x) * block_warps;
    Index job = static_cast<Index>(blockIdx.x) * block_warps + threadIdx.x / warp_size;
    for (; job < a.rows * slots; job += step) {
        const Index row = job / slots;
        const Index slot = job % slots;
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
