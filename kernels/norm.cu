#include "kernels/common.cuh"

namespace gallop::kernels {
namespace {

/// One warp a row; each lane reads and writes the same elements, so y may be x.
__global__ void norm_rows(const Norm a) {
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
        sum = warp_sum(sum);
        const float n = static_cast<float>(a.width);
        const float factor = a.kind == NormKind::l2 ? sqrtf(n) / fmaxf(sqrtf(sum), a.eps)
                                                    : 1.0F / sqrtf(sum / n + a.eps);
        const Index weights = expert_of(a.experts, row) * a.width;
        for (Index i = lane; i < a.width; i += warp_size) {
            float y = load(a.x, first + i) * factor;
            if (a.kind == NormKind::rms_offset) y *= 1.0F + a.weight[weights + i];
            if (a.kind == NormKind::l2) y *= a.weight[weights + i];
            store(a.y, first + i, apply(a.activation, y));
        }
    }
}

}  // namespace

void launch(const Norm& a, cudaStream_t stream) {
    if (a.rows == 0 || a.width == 0) return;
    enqueue(norm_rows, blocks_for(a.rows, block_size / warp_size), 0, stream, "norm", a);
}

void launch(const Affine& a, cudaStream_t stream) {
    for_each(a.rows * a.width, stream, "affine", [a] __device__(Index i) {
        const Index c = modulo(i, a.width);
        const float x = load(a.x, i);
        store(a.y, i, (a.scale == nullptr ? x : x * a.scale[c]) + a.shift[c]);
    });
}

}  // namespace gallop::kernels
