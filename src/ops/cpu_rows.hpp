#pragma once

// Arrays read and written by rows of floats, whatever their dtype, on all threads. Private to this
// room.

#include <algorithm>
#include <vector>

#include "core/tensor.hpp"
#include "ops/parallel.hpp"
#include "ops/vector_math.hpp"

namespace gallop {

/// Elements of the last axis.
inline Index width(ConstTensorView x) { return x.shape().back(); }
/// All others together.
inline Index rows(ConstTensorView x) { return width(x) == 0 ? 0 : x.numel() / width(x); }

/// Row `row` of an array read as [rows, n], as floats: in place for f32, else widened into
/// `buffer`.
inline const float* read_row(ConstTensorView x, Index row, Index n, std::vector<float>& buffer) {
    if (x.dtype() == DType::f32) return x.data<float>() + row * n;
    buffer.resize(static_cast<std::size_t>(n));
    vector_math::widen(x.data<bf16>() + row * n, buffer.data(), buffer.size());
    return buffer.data();
}

/// Calls `body(row, out)` for every row of y read as [rows, n]; `out` takes n floats that are then
/// rounded to y's dtype.
template <class Body>
void write_rows(TensorView y, Index n, const Body& body) {
    const Index count = n == 0 ? 0 : y.numel() / n;
    const Index chunk = std::max<Index>(1, 8192 / std::max<Index>(n, 1));
    parallel_chunks(count, chunk, [&](Index begin, Index end) {
        std::vector<float> buffer(y.dtype() == DType::f32 ? 0 : static_cast<std::size_t>(n));
        for (Index row = begin; row < end; ++row) {
            if (y.dtype() == DType::f32) {
                body(row, y.data<float>() + row * n);
            } else {
                body(row, buffer.data());
                vector_math::narrow(buffer.data(), y.data<bf16>() + row * n, buffer.size());
            }
        }
    });
}

/// Elements of one line of elementwise work: as many whole trailing axes as make a good piece.
inline Index line_length(ConstTensorView x) {
    constexpr Index good_piece = 16384;
    Index n = width(x);
    for (std::size_t axis = x.shape().rank(); axis-- > 1;) {
        if (n * x.size(axis - 1) > good_piece) break;
        n *= x.size(axis - 1);
    }
    return n;
}

/// y = f(x) line by line; `f(in, out, n)`.
template <class F>
void map_lines(ConstTensorView x, TensorView y, const F& f) {
    const Index n = line_length(x);
    write_rows(y, n, [&](Index row, float* out) {
        thread_local std::vector<float> buffer;
        f(read_row(x, row, n, buffer), out, static_cast<std::size_t>(n));
    });
}

}  // namespace gallop
