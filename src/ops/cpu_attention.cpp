#include "ops/cpu_attention.hpp"

#include <limits>
#include <vector>

#include "ops/cpu_gemm.hpp"
#include "ops/parallel.hpp"
#include "ops/vector_math.hpp"

namespace gallop {
namespace {

constexpr Index block_queries = 64;

/// Keys begin … end−1.
struct KeyRange {
    Index begin, end;
    Index size() const { return end - begin; }
};

/// Consecutive queries that share their key ranges (one range, or a window and the rest).
struct QueryBlock {
    Index begin, end;
    KeyRange first, second;
};

std::vector<QueryBlock> make_blocks(const AttentionMask& mask, Index queries, Index keys) {
    std::vector<QueryBlock> blocks;
    const auto split = [&](Index begin, Index end, KeyRange first, KeyRange second) {
        for (Index i = begin; i < end; i += block_queries)
            blocks.push_back({i, std::min(end, i + block_queries), first, second});
    };
    switch (mask.kind) {
        case AttentionMask::Kind::full: split(0, queries, {0, keys}, {keys, keys}); break;
        case AttentionMask::Kind::frames: {
            const Index video = mask.frames * mask.per_frame;
            for (Index frame = 0; frame < mask.frames; ++frame) {
                const Index low = std::max<Index>(0, frame - mask.radius);
                const Index high = std::min(mask.frames - 1, frame + mask.radius);
                split(frame * mask.per_frame, (frame + 1) * mask.per_frame,
                      {low * mask.per_frame, (high + 1) * mask.per_frame}, {video, keys});
            }
            split(video, queries, {0, keys}, {keys, keys});
            break;
        }
        case AttentionMask::Kind::window:
            // The range of the block's union; single keys outside a row's window are masked later.
            for (Index i = 0; i < queries; i += block_queries) {
                const Index end = std::min(queries, i + block_queries);
                blocks.push_back({i,
                                  end,
                                  {std::max<Index>(0, i - mask.radius + 1),
                                   std::min(keys, end - 1 + mask.radius)},
                                  {keys, keys}});
            }
            break;
    }
    return blocks;
}

std::vector<float> widened(ConstTensorView x) {
    std::vector<float> wide(static_cast<std::size_t>(x.numel()));
    vector_math::widen(x.data<bf16>(), wide.data(), wide.size());
    return wide;
}

}  // namespace

void cpu_attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                   const AttentionMask& mask, float scale, float soft_cap, TensorView y) {
    const Index heads = q.size(1);
    const Index groups = k.size(1);
    const Index head_size = q.size(2);
    const Index q_stride = heads * head_size;
    const Index kv_stride = groups * head_size;
    const bool wide = q.dtype() == DType::f32;
    std::vector<float> q_wide, k_wide, v_wide;
    if (!wide) {
        q_wide = widened(q);
        k_wide = widened(k);
        v_wide = widened(v);
    }
    const float* q_data = wide ? q.data<float>() : q_wide.data();
    const float* k_data = wide ? k.data<float>() : k_wide.data();
    const float* v_data = wide ? v.data<float>() : v_wide.data();
    const std::vector<QueryBlock> blocks = make_blocks(mask, q.size(0), k.size(0));

#pragma omp parallel
    {
        std::vector<float> scores;
        std::vector<float> sums(block_queries);
        std::vector<float> out;
        std::vector<float> partial;
#pragma omp for schedule(dynamic) collapse(2)
        for (Index head = 0; head < heads; ++head)
            for (std::size_t b = 0; b < blocks.size(); ++b) {
                const QueryBlock& block = blocks[b];
                const Index rows = block.end - block.begin;
                const Index keys = block.first.size() + block.second.size();
                const Index kv = head / (heads / groups) * head_size;
                scores.resize(static_cast<std::size_t>(rows * keys));
                out.resize(static_cast<std::size_t>(rows * head_size));
                const float* queries = q_data + block.begin * q_stride + head * head_size;
                const auto products = [&](KeyRange range, Index column) {
                    if (range.size() > 0)
                        sequential_gemm(true, rows, range.size(), head_size, scale, queries,
                                        q_stride, k_data + range.begin * kv_stride + kv, kv_stride,
                                        scores.data() + column, keys);
                };
                products(block.first, 0);
                products(block.second, block.first.size());
                for (Index row = 0; row < rows; ++row) {
                    float* line = scores.data() + row * keys;
                    const auto count = static_cast<std::size_t>(keys);
                    if (soft_cap > 0) {
                        vector_math::scale(line, count, 1.0F / soft_cap);
                        vector_math::tanh(line, line, count);
                        vector_math::scale(line, count, soft_cap);
                    }
                    if (mask.kind == AttentionMask::Kind::window) {
                        const Index query = block.begin + row - block.first.begin;
                        for (Index key = 0; key < keys; ++key)
                            if (key <= query - mask.radius || key >= query + mask.radius)
                                line[key] = -std::numeric_limits<float>::infinity();
                    }
                    sums[static_cast<std::size_t>(row)] =
                        vector_math::exp_and_sum(line, count, vector_math::max(line, count));
                }
                const auto weigh = [&](KeyRange range, Index column, float* result) {
                    sequential_gemm(
                        false, rows, head_size, range.size(), 1.0F, scores.data() + column, keys,
                        v_data + range.begin * kv_stride + kv, kv_stride, result, head_size);
                };
                weigh(block.first, 0, out.data());
                if (block.second.size() > 0) {
                    partial.resize(out.size());
                    weigh(block.second, block.first.size(), partial.data());
                    for (std::size_t i = 0; i < out.size(); ++i) out[i] += partial[i];
                }
                for (Index row = 0; row < rows; ++row) {
                    float* line = out.data() + row * head_size;
                    const auto size = static_cast<std::size_t>(head_size);
                    vector_math::scale(line, size, 1.0F / sums[static_cast<std::size_t>(row)]);
                    const Index to = (block.begin + row) * q_stride + head * head_size;
                    if (wide)
                        std::copy(line, line + head_size, y.data<float>() + to);
                    else
                        vector_math::narrow(line, y.data<bf16>() + to, size);
                }
            }
    }
}

}  // namespace gallop
