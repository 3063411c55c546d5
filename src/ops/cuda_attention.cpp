#include "ops/cuda_attention.hpp"

#include <algorithm>
#include <array>

#include "ops/cuda_arrays.hpp"
#include "ops/key_slices.hpp"

namespace gallop {

using kernels::launch;

static_assert(static_cast<int>(AttentionMask::Kind::window) ==
                  static_cast<int>(kernels::MaskKind::window) &&
              static_cast<int>(AttentionMask::Kind::frames) ==
                  static_cast<int>(kernels::MaskKind::frames));

void CudaAttention::run(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                        const AttentionMask& mask, float scale, float soft_cap, TensorView y) {
    for (const ConstTensorView& part : {q, k, v, ConstTensorView(y)}) check_on_gpu(part);
    if (q.size(2) > kernels::Attention::most_size && q.size(1) == 1 && q.numel() > 0 &&
        mask.kind == AttentionMask::Kind::full)
        return by_products(q, k, v, scale, soft_cap, y);
    if (cudnn_ && q.dtype() == DType::bf16 && soft_cap == 0 && q.numel() > 0) {
        if (mask.kind == AttentionMask::Kind::full && cudnn_->attend(q, k, v, scale, y)) return;
        if (mask.kind == AttentionMask::Kind::frames && by_slices(q, k, v, mask, scale, y)) return;
    }
    check_head_size(q.size(2), kernels::Attention::most_size);
    launch(kernels::Attention{in(q).data, in(k).data, in(v).data, out(y).data,
                              q.dtype() == DType::bf16, q.size(0), k.size(0), q.size(1), k.size(1),
                              q.size(2), static_cast<kernels::MaskKind>(mask.kind), mask.frames,
                              mask.per_frame, mask.radius, scale, soft_cap},
           stream_);
}

void CudaAttention::by_products(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                float scale, float soft_cap, TensorView y) {
    constexpr Index most_scores = Index{1} << 24;  // 64 MiB
    const Index keys = k.size(0);
    const Index size = q.size(2);
    const ConstTensorView w = k.reshape({keys, size});
    Tensor values = on_.empty({keys, size});
    on_.copy(v.reshape({keys, size}), values);
    Tensor columns = on_.empty({size, keys});
    on_.permute(values, {keys, size}, std::array{1, 0}, columns);
    values = Tensor();
    const Index step = std::max<Index>(1, std::min(q.size(0), most_scores / keys));
    Tensor scores = on_.empty({step, keys});
    Tensor sums = y.dtype() == DType::f32 ? Tensor() : on_.empty({step, size});
    for (Index first = 0; first < q.size(0); first += step) {
        const Index count = std::min(step, q.size(0) - first);
        const TensorView seen = scores.rows(0, count);
        const TensorView to = y.rows(first, first + count).reshape({count, size});
        gemm_.run({.x = q.rows(first, first + count).reshape({count, size}), .w = w, .y = seen});
        launch(kernels::Softmax{floats(seen), count, keys, scale, soft_cap}, stream_);
        const TensorView made = sums.defined() ? sums.rows(0, count) : to;
        gemm_.run({.x = seen, .w = columns, .y = made});
        if (sums.defined()) on_.copy(made, to);
    }
}

bool CudaAttention::by_slices(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                              const AttentionMask& mask, float scale, TensorView y) {
    const KeySlices plan = plan_key_slices(mask, k.size(0));
    const auto laid_out = [&](ConstTensorView from, Tensor& moved) -> ConstTensorView {
        if (plan.copies.size() == 1) return from;
        moved = on_.empty({plan.rows, from.size(1), from.size(2)}, from.dtype());
        for (const KeySlices::Copy& copy : plan.copies)
            on_.copy(from.rows(copy.from, copy.from + copy.rows),
                     moved.rows(copy.to, copy.to + copy.rows));
        return moved;
    };
    Tensor moved_k;
    Tensor moved_v;
    const ConstTensorView laid_k = laid_out(k, moved_k);
    const ConstTensorView laid_v = laid_out(v, moved_v);
    for (const KeySlices::Slice& slice : plan.slices) {
        const auto keys = [&](ConstTensorView laid, ConstTensorView as_is) {
            return (slice.laid_out ? laid : as_is).rows(slice.key, slice.key + slice.keys);
        };
        const Index end = slice.query + slice.queries;
        if (!cudnn_->attend(q.rows(slice.query, end), keys(laid_k, k), keys(laid_v, v), scale,
                            y.rows(slice.query, end)))
            return false;
    }
    return true;
}

}  // namespace gallop
