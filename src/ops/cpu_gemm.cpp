#include "ops/cpu_gemm.hpp"

#include <array>
#include <vector>

#include <oneapi/dnnl/dnnl.h>

#include "ops/parallel.hpp"
#include "ops/vector_math.hpp"

namespace gallop {
namespace {

// The largest tiles of the output: large enough that packing costs little, small enough for many
// threads.
constexpr Index most_rows = 512;
constexpr Index most_columns = 384;

/// The size of equal pieces of `total`, none above `most`; whole vectors.
Index piece(Index total, Index most) {
    const Index count = (total + most - 1) / most;
    const Index size = count == 0 ? most : (total + count - 1) / count;
    return (size + 15) / 16 * 16;
}

struct Tile {
    Index expert, row, rows, column, columns;
};

/// Elements begin … end−1 of a bf16 or E4M3 array as floats, which all of them are exactly.
void widen(ConstTensorView x, Index begin, Index end, float* to) {
    if (x.dtype() == DType::bf16)
        return vector_math::widen(x.data<bf16>() + begin, to,
                                  static_cast<std::size_t>(end - begin));
    static const auto values = [] {
        std::array<float, 256> all{};
        for (std::size_t bits = 0; bits < all.size(); ++bits)
            all[bits] = to_float(f8_e4m3{static_cast<std::uint8_t>(bits)});
        return all;
    }();
    const f8_e4m3* from = x.data<f8_e4m3>() + begin;
    for (Index i = 0; i < end - begin; ++i) to[i] = values[from[i].bits];
}

const float* widened(ConstTensorView x, std::vector<float>& buffer) {
    if (x.dtype() == DType::f32) return x.data<float>();
    buffer.resize(static_cast<std::size_t>(x.numel()));
    parallel_chunks(x.numel(), 65536,
                    [&](Index begin, Index end) { widen(x, begin, end, buffer.data() + begin); });
    return buffer.data();
}

}  // namespace

void sequential_gemm(bool transpose_b, Index m, Index n, Index k, float alpha, const float* a,
                     Index lda, const float* b, Index ldb, float* c, Index ldc, bool accumulate) {
    // Inside a parallel region oneDNN stays on the calling thread.
    dnnl_sgemm('N', transpose_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb,
               accumulate ? 1.0F : 0.0F, c, ldc);
}

void cpu_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias, Segments segments,
                TensorView y, const float* x_scales, const float* weight_scales) {
    const Index depth = x.shape().back();
    const Index out = y.shape().back();
    std::vector<float> x_buffer;
    const float* input = widened(x, x_buffer);
    const bool wide = y.dtype() == DType::f32;

    std::vector<Tile> tiles;
    Index first = 0;
    const Index tile_columns = piece(out, most_columns);
    for (std::size_t expert = 0; expert < segments.size(); ++expert) {
        const Index tile_rows = piece(segments[expert], most_rows);
        for (Index row = 0; row < segments[expert]; row += tile_rows)
            for (Index column = 0; column < out; column += tile_columns)
                tiles.push_back({static_cast<Index>(expert), first + row,
                                 std::min(tile_rows, segments[expert] - row), column,
                                 std::min(tile_columns, out - column)});
        first += segments[expert];
    }

#pragma omp parallel
    {
        std::vector<float> weight_buffer;
        std::vector<float> result_buffer;
#pragma omp for schedule(dynamic)
        for (std::size_t i = 0; i < tiles.size(); ++i) {  // NOLINT(modernize-loop-convert)
            const Tile& tile = tiles[i];
            const Index weight_row = tile.expert * out + tile.column;
            const float* w;
            if (weight.dtype() == DType::f32) {
                w = weight.data<float>() + weight_row * depth;
            } else {
                const auto count = static_cast<std::size_t>(tile.columns * depth);
                weight_buffer.resize(count);
                widen(weight, weight_row * depth, (weight_row + tile.columns) * depth,
                      weight_buffer.data());
                w = weight_buffer.data();
            }
            float* result;
            Index stride;
            if (wide) {
                result = y.data<float>() + tile.row * out + tile.column;
                stride = out;
            } else {
                result_buffer.resize(static_cast<std::size_t>(tile.rows * tile.columns));
                result = result_buffer.data();
                stride = tile.columns;
            }
            sequential_gemm(true, tile.rows, tile.columns, depth, 1.0F, input + tile.row * depth,
                            depth, w, depth, result, stride);
            for (Index row = 0; row < tile.rows; ++row) {
                float* line = result + row * stride;
                if (bias.defined()) {
                    const float* b = bias.data<float>() + weight_row;
                    for (Index n = 0; n < tile.columns; ++n) line[n] += b[n];
                }
                if (x_scales != nullptr) {
                    const float scale = x_scales[tile.row + row];
                    const float* scales = weight_scales + weight_row;
                    for (Index n = 0; n < tile.columns; ++n) line[n] *= scale * scales[n];
                }
                if (!wide)
                    vector_math::narrow(line, y.data<bf16>() + (tile.row + row) * out + tile.column,
                                        static_cast<std::size_t>(tile.columns));
            }
        }
    }
}

}  // namespace gallop
