#pragma once

#include <cstddef>
#include <cstdint>

#include "core/numeric.hpp"

// Inner loops of the CPU backend, compiled for several instruction sets and picked at load. None
// uses fused multiply-add and every sum has a fixed order, so all variants give the same bits.
// Where x and y have the same type and length they may be the same array, but not overlap
// otherwise: the loops carry `ivdep`, without which GCC does them in place one value at a time.

namespace gallop::vector_math {

/// x ← exp(x − shift); relative error below 2e-7; exp of less than −87.3 is 0. Returns the sum.
float exp_and_sum(float* x, std::size_t n, float shift);
/// y = σ(x).
void sigmoid(const float* x, float* y, std::size_t n);
/// y = tanh(x).
void tanh(const float* x, float* y, std::size_t n);
float max(const float* x, std::size_t n);
/// Σ x², in the order of PyTorch's sum over a contiguous axis (16 lanes, four vectors at a time),
/// which the published casts need: a last place here can turn a bf16 rounding.
float sum_of_squares(const float* x, std::size_t n);
/// out[j] = Σ x[k]·rows[j·n + k] for `count` rows, each in 16 interleaved partial sums of fused
/// products that are then added pairwise: what MKL does for the reference's f32 embedders.
void dot_rows(const float* x, const float* rows, std::size_t count, std::size_t n, float* out);
/// x ← factor·x.
void scale(float* x, std::size_t n, float factor);
/// y = factor·x·w, or factor·x·(1 + w) when `offset`.
void scale_by(const float* x, const float* w, float* y, std::size_t n, float factor, bool offset);
/// y[2i] gate and y[2i+1] linear input → out[i]; see Backend::swiglu7.
void swiglu7(const float* u, float* y, std::size_t n);
/// See Backend::gelu7.
void gelu7(const float* u, float* y, std::size_t n);
/// y = gelu(x), tanh approximation.
void gelu_tanh(const float* x, float* y, std::size_t n);
/// y = x·σ(x).
void silu(const float* x, float* y, std::size_t n);

void widen(const bf16* x, float* y, std::size_t n);
void narrow(const float* x, bf16* y, std::size_t n);

}  // namespace gallop::vector_math
