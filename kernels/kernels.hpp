#pragma once

// The one door to the CUDA kernels; a host compiler reads it. Each kernel is a struct of arguments and
// an overload of `launch`, which puts the work on the stream, waits for nothing and throws DeviceError.
// All pointers are device memory, all arrays are contiguous and row-major, sums and functions are in
// f32, a bf16 result is rounded once. Outputs alias no input unless said otherwise. The semantics are
// those of ops/backend.hpp, whose names the kernels have.

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/random.hpp"
#include "core/yuv.hpp"

namespace gallop::kernels {

using Index = std::int64_t;

/// An array to read, f32 or (half) bf16.
struct Input {
    const void* data;
    bool half;
};
/// An array to write, f32 or (half) bf16.
struct Output {
    void* data;
    bool half;
};

/// Row ranges of the experts in a sorted sequence: rows of expert e end before ends[e].
struct Experts {
    static constexpr int most = 8;
    int count;
    Index ends[most];
};

/// As in ops/backend.hpp.
enum class Activation : std::uint8_t { none, silu, relu, elu, tanh, clamp };
enum class NormKind : std::uint8_t { rms_offset, rms, l2 };
enum class MaskKind : std::uint8_t { full, frames, window };

// ---- gather.cu ----------------------------------------------------------------------------------

/// y[i₀, i₁, …] = x[offset + Σ iₐ·strides[a]], y in its own order. Elements of 1, 2, 4 or 8 bytes; where
/// the innermost lie together in x, too, they are moved in up to 16 bytes at a time.
struct Gather {
    static constexpr int most_axes = 8;
    const void* x;
    void* y;
    int element_bytes;
    int axes;
    Index extents[most_axes];
    Index strides[most_axes];
    Index offset;
};
void launch(const Gather&, cudaStream_t);

/// x amid zeros: y[i] = x[i − before], or 0 where that lies outside x. Four axes, elements of 2 bytes.
struct Pad {
    static constexpr int axes = 4;
    const void* x;
    void* y;
    Index x_extent[axes], y_extent[axes], before[axes];
};
void launch(const Pad&, cudaStream_t);

/// y = x, n elements, with a conversion; y may be x when the types are the same.
struct Convert {
    Input x;
    Output y;
    Index n;
};
void launch(const Convert&, cudaStream_t);

/// y[i] = mean of x[i·run … i·run + run − 1]; n elements of y.
struct MeanRuns {
    Input x;
    Output y;
    Index n, run;
};
void launch(const MeanRuns&, cudaStream_t);

/// y[l, :] = table[ids[l], :]·scale. ids: [rows] i32; y: [rows, width].
struct Embed {
    Input table;
    const std::int32_t* ids;
    Output y;
    Index rows, width;
    float scale;
};
void launch(const Embed&, cudaStream_t);

/// Bilinear, corners aligned. x: [planes, rows, columns] f32 → y: [planes, out_rows, out_columns] f32.
struct UpsampleBilinear {
    const float* x;
    float* y;
    Index planes, rows, columns, out_rows, out_columns;
};
void launch(const UpsampleBilinear&, cudaStream_t);

/// y = trunc(255·clamp(0.5·x + 0.5, 0, 1)), NaN becomes 0; n elements.
struct ToRgb8 {
    Input x;
    std::uint8_t* y;
    Index n;
};
void launch(const ToRgb8&, cudaStream_t);

// ---- norm.cu ------------------------------------------------------------------------------------

/// y = act(norm(x)) row by row. x, y: [rows, width], may be the same array; weight: [E, width] f32 or
/// null for NormKind::rms. Fast: widths that are multiples of 8, at most 8192, on addresses of 16 bytes.
struct Norm {
    Input x;
    const float* weight;
    Output y;
    Index rows, width;
    Experts experts;
    NormKind kind;
    Activation activation;
    float eps;
};
void launch(const Norm&, cudaStream_t);

/// y[r, c] = x[r, c]·scale[c] + shift[c]; scale null: 1. x, y: [rows, width], may be the same array.
struct Affine {
    Input x;
    const float* scale;
    const float* shift;
    Output y;
    Index rows, width;
};
void launch(const Affine&, cudaStream_t);

// ---- quantise.cu --------------------------------------------------------------------------------

/// Rows in E4M3, of x or (normed) of norm(x): scales[l] = max(max |row| / 448, 2⁻¹²⁶), q[l, i] = row[i] /
/// scales[l] to nearest. x: [rows, width]; q: [rows, stride] E4M3, zero from width on; scales: [rows]
/// f32; weight: [E, width] f32 or null for NormKind::rms.
struct Quantise {
    Input x;
    std::uint8_t* q;
    float* scales;
    Index rows, width, stride;
    bool normed;
    const float* weight;
    Experts experts;
    NormKind kind;
    float eps;
};
void launch(const Quantise&, cudaStream_t);

/// y = x, n elements of E4M3 as bf16, which holds each exactly. n: a multiple of 8; x begins at a multiple of
/// 8 bytes, y of 16.
struct WidenE4m3 {
    const std::uint8_t* x;
    void* y;
    Index n;
};
void launch(const WidenE4m3&, cudaStream_t);

/// y[r, c] = row_scales[r]·column_scales[c]·x[r, c], or (add) y[r, c] + that. x: [rows, width] f32; y:
/// likewise, f32 or bf16.
struct ScaleBoth {
    const float* x;
    const float* row_scales;
    const float* column_scales;
    Output y;
    Index rows, width;
    bool add;
};
void launch(const ScaleBoth&, cudaStream_t);

// ---- rope.cu ------------------------------------------------------------------------------------

/// Splits u: [rows, columns] into q: [rows, heads, size] and k, v: [rows, groups, size] (all of one
/// type); q and k are normalised (RMS, 1 + w) and rotated. norms: [E, size] f32; rope: [rows, 2·angles]
/// f32, sines then cosines. size ≤ 256.
struct SplitQkv {
    static constexpr Index most_size = 256;
    Input u;
    const float* q_norm;
    const float* k_norm;
    const float* rope;
    Output q, k, v;
    Index rows, columns, heads, groups, size, angles;
    Experts experts;
    float eps;
};
void launch(const SplitQkv&, cudaStream_t);

/// Rotates x: [rows, heads, size] in place; each product is rounded to bf16 when `round_products`.
struct Rotate {
    Output x;
    const float* rope;
    Index rows, heads, size, angles;
    bool round_products;
};
void launch(const Rotate&, cudaStream_t);

// ---- attention.cu -------------------------------------------------------------------------------

/// y = softmax(cap(scale·q kᵀ) + mask) v with an online softmax. q, y: [queries, heads, size], k, v:
/// [keys, groups, size], all f32 or all bf16 (half). size ≤ 256; heads a multiple of groups; every query
/// sees a key.
struct Attention {
    static constexpr Index most_size = 256;
    const void* q;
    const void* k;
    const void* v;
    void* y;
    bool half;
    Index queries, keys, heads, groups, size;
    MaskKind mask;
    Index frames, per_frame, radius;
    float scale, soft_cap;
};
void launch(const Attention&, cudaStream_t);

/// Each row of x becomes its softmax, of cap(scale·x). x: [rows, columns] f32.
struct Softmax {
    float* x;
    Index rows, columns;
    float scale, soft_cap;
};
void launch(const Softmax&, cudaStream_t);

/// o[l, h, :] ← o[l, h, :]·σ(u[l, column + h]). o: [rows, heads, size], u: [rows, columns].
struct GateHeads {
    Output o;
    Input u;
    Index rows, heads, size, columns, column;
};
void launch(const GateHeads&, cudaStream_t);

// ---- activation.cu ------------------------------------------------------------------------------

/// y = act(x), n elements; y may be x.
struct Activate {
    Input x;
    Output y;
    Index n;
    Activation activation;
};
void launch(const Activate&, cudaStream_t);

/// x ← x + y, n elements, rounded to x's type.
struct Add {
    Output x;
    Input y;
    Index n;
};
void launch(const Add&, cudaStream_t);

/// u: [n, 2], pairs of gate and linear → y: [n].
struct Swiglu7 {
    Input u;
    Output y;
    Index n;
};
void launch(const Swiglu7&, cudaStream_t);

/// n elements.
struct Gelu7 {
    Input u;
    Output y;
    Index n;
};
void launch(const Gelu7&, cudaStream_t);

/// y = gelu_tanh(gate)·up, n elements; the first factor is rounded to bf16 when `round_gelu`.
struct Geglu {
    Input gate, up;
    Output y;
    Index n;
    bool round_gelu;
};
void launch(const Geglu&, cudaStream_t);

/// x, y: [rows, channels] f32; alpha, beta: [channels] f32.
struct Snake {
    const float* x;
    const float* alpha;
    const float* beta;
    float* y;
    Index rows, channels;
};
void launch(const Snake&, cudaStream_t);

// ---- colour.cu ----------------------------------------------------------------------------------

/// rgb: [pictures, height, width, 3] bytes → planes: [pictures, format.bytes(width, height)], as in
/// core/yuv.hpp. between: scratch, [pictures, 2, height, format.chroma_columns(width)].
struct ToYuv {
    const std::uint8_t* rgb;
    std::int16_t* between;
    std::uint8_t* planes;
    Index pictures, height, width;
    YuvFormat format;
};
void launch(const ToYuv&, cudaStream_t);

// ---- convolution.cu -----------------------------------------------------------------------------

/// y = conv(x) + bias over (T, Y, X). x: [T, Y, X, in]; kernel: [kT, kY, kX, in, out]; bias: [out] f32
/// or null; y: [T', Y', X', out]; x, kernel, y all f32 or all bf16 (half).
struct Convolution {
    const void* x;
    const void* kernel;
    const float* bias;
    void* y;
    bool half;
    Index in, out;
    Index x_extent[3], kernel_extent[3], y_extent[3];
    Index stride[3], pad[3], dilation[3];
};
void launch(const Convolution&, cudaStream_t);

/// x: [samples, in], kernel: [width, in, out], so that neighbouring threads read neighbouring weights; bias:
/// [out] or null, y: [out_samples, out], all f32.
struct ConvTranspose {
    const float* x;
    const float* kernel;
    const float* bias;
    float* y;
    Index samples, in, out, width, out_samples, stride, pad;
};
void launch(const ConvTranspose&, cudaStream_t);

// ---- sampler.cu ---------------------------------------------------------------------------------

/// y = Σ factors[t]·terms[t], added left to right; y may be a term. n elements, f32.
struct Combine {
    static constexpr int most_terms = 6;
    const float* terms[most_terms];
    float factors[most_terms];
    int count;
    float* y;
    Index n;
};
void launch(const Combine&, cudaStream_t);

/// y = neg + scales[t − first]·(pos − neg) in `count` frames t from `first` on; arrays [channels, frames,
/// plane] f32; y may be neg or pos. The scales travel with the launch: nobody waits for a copy of them.
struct Guide {
    static constexpr Index most_frames = 256;
    const float* neg;
    const float* pos;
    float* y;
    Index channels, frames, plane;
    Index first, count;
    float scales[most_frames];
};
void launch(const Guide&, cudaStream_t);

/// y[i] = element first + i of the stream; the host's bits.
struct Normal {
    NoiseStream stream;
    std::uint64_t first;
    float* y;
    Index n;
};
void launch(const Normal&, cudaStream_t);

/// flag[0] ← 0 when one of n elements is not finite; else it is left as it is.
struct AllFinite {
    Input x;
    std::int32_t* flag;
    Index n;
};
void launch(const AllFinite&, cudaStream_t);

/// flag[0] ← 0 when two arrays of n bytes differ; else it is left as it is.
struct SameBytes {
    const void* x;
    const void* y;
    Index n;
    std::int32_t* flag;
};
void launch(const SameBytes&, cudaStream_t);

}  // namespace gallop::kernels
