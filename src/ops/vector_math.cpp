#include "ops/vector_math.hpp"

#include <algorithm>
#include <bit>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define GALLOP_CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
// fmaf is exact whether the machine has the instruction or not; with it the loop is a vector loop.
#define GALLOP_FUSED_CLONES \
    __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define GALLOP_CLONES
#define GALLOP_FUSED_CLONES
#endif

namespace gallop::vector_math {
namespace {

constexpr std::size_t lanes = 16;  // partial sums: a fixed number, whatever the register width

/// exp(x) by 2^n·e^r with |r| ≤ ln2/2 and a polynomial of degree 6 (Cephes' expf). Below −87.3,
/// where the result would be subnormal, 0.
[[gnu::always_inline]] inline float exp_one(float x) {
    constexpr float magic = 12582912.0F;  // 1.5·2^23: adding it rounds to an integer
    const float low = x > -88.0F ? x : (x <= -88.0F ? -88.0F : x);  // NaN stays
    const float clamped = low < 88.37F ? low : (low >= 88.37F ? 88.37F : low);
    const float shifted = clamped * 1.44269504088896341F + magic;
    const float n = shifted - magic;
    const float r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    // The low bits of `shifted` are n; they go into the exponent field, 2^n.
    const std::uint32_t power = (std::bit_cast<std::uint32_t>(shifted) + 127U) << 23;
    return x < -87.3F ? 0.0F : p * std::bit_cast<float>(power);
}

[[gnu::always_inline]] inline float sigmoid_one(float x) { return 1.0F / (1.0F + exp_one(-x)); }

/// Near 0 the quotient loses digits, so a short odd polynomial takes over (Cephes' tanhf).
[[gnu::always_inline]] inline float tanh_one(float x) {
    const float x2 = x * x;
    float p = -5.70498872745e-3F;
    p = p * x2 + 2.06390887954e-2F;
    p = p * x2 - 5.37397155531e-2F;
    p = p * x2 + 1.33314422036e-1F;
    p = p * x2 - 3.33332819422e-1F;
    const float small = p * x2 * x + x;
    const float magnitude = std::min(x < 0 ? -x : x, 20.0F);
    const float large = 1.0F - 2.0F / (exp_one(2.0F * magnitude) + 1.0F);
    return magnitude < 0.625F ? small : (x < 0 ? -large : large);
}

}  // namespace

GALLOP_CLONES float exp_and_sum(float* x, std::size_t n, float shift) {
    float sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (std::size_t j = 0; j < lanes; ++j) {
            x[i + j] = exp_one(x[i + j] - shift);
            sums[j] += x[i + j];
        }
    for (; i < n; ++i) {
        x[i] = exp_one(x[i] - shift);
        sums[i % lanes] += x[i];
    }
    float total = 0;
    for (const float sum : sums) total += sum;
    return total;
}

GALLOP_CLONES void sigmoid(const float* x, float* y, std::size_t n) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) y[i] = sigmoid_one(x[i]);
}

GALLOP_CLONES void tanh(const float* x, float* y, std::size_t n) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) y[i] = tanh_one(x[i]);
}

GALLOP_CLONES float max(const float* x, std::size_t n) {
    float tops[lanes];
    std::fill(tops, tops + lanes, x[0]);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (std::size_t j = 0; j < lanes; ++j) tops[j] = x[i + j] > tops[j] ? x[i + j] : tops[j];
    for (; i < n; ++i) tops[0] = std::max(tops[0], x[i]);
    return *std::max_element(tops, tops + lanes);
}

GALLOP_CLONES float sum_of_squares(const float* x, std::size_t n) {
    float sums[4 * lanes] = {};
    std::size_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes)
        for (std::size_t j = 0; j < 4 * lanes; ++j) sums[j] += x[i + j] * x[i + j];
    for (; i + lanes <= n; i += lanes)
        for (std::size_t j = 0; j < lanes; ++j) sums[j] += x[i + j] * x[i + j];
    float total = 0;
    for (; i < n; ++i) total += x[i] * x[i];
    for (std::size_t part = 1; part < 4; ++part)
        for (std::size_t j = 0; j < lanes; ++j) sums[j] += sums[part * lanes + j];
    for (std::size_t j = 0; j < lanes; ++j) total += sums[j];
    return total;
}

GALLOP_FUSED_CLONES void dot_rows(const float* x, const float* rows, std::size_t count,
                                  std::size_t n, float* out) {
    for (std::size_t row = 0; row < count; ++row) {
        const float* w = rows + row * n;
        float sums[lanes] = {};
        std::size_t k = 0;
        for (; k + lanes <= n; k += lanes)
            for (std::size_t j = 0; j < lanes; ++j)
                sums[j] = __builtin_fmaf(x[k + j], w[k + j], sums[j]);
        for (std::size_t j = 0; k + j < n; ++j)
            sums[j] = __builtin_fmaf(x[k + j], w[k + j], sums[j]);
        for (std::size_t width = lanes; width > 1; width /= 2)
            for (std::size_t j = 0; j < width / 2; ++j) sums[j] = sums[2 * j] + sums[2 * j + 1];
        out[row] = sums[0];
    }
}

GALLOP_CLONES void scale(float* x, std::size_t n, float factor) {
    for (std::size_t i = 0; i < n; ++i) x[i] *= factor;
}

GALLOP_CLONES void scale_by(const float* x, const float* w, float* y, std::size_t n, float factor,
                            bool offset) {
    const float one = offset ? 1.0F : 0.0F;
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) y[i] = (x[i] * factor) * (one + w[i]);
}

GALLOP_CLONES void swiglu7(const float* u, float* y, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        const float g = std::min(u[2 * i], 7.0F);
        const float l = std::min(std::max(u[2 * i + 1], -7.0F), 7.0F);
        y[i] = g * sigmoid_one(1.702F * g) * (l + 1.0F);
    }
}

GALLOP_CLONES void gelu7(const float* u, float* y, std::size_t n) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) {
        const float z = std::min(u[i], 7.0F);
        y[i] = z * sigmoid_one(1.702F * z);
    }
}

GALLOP_CLONES void gelu_tanh(const float* x, float* y, std::size_t n) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) {
        const float inner = 0.7978845608028654F * (x[i] + 0.044715F * x[i] * x[i] * x[i]);
        y[i] = 0.5F * x[i] * (1.0F + tanh_one(inner));
    }
}

GALLOP_CLONES void silu(const float* x, float* y, std::size_t n) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) y[i] = x[i] * sigmoid_one(x[i]);
}

GALLOP_CLONES void widen(const bf16* x, float* y, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) y[i] = to_float(x[i]);
}

GALLOP_CLONES void narrow(const float* x, bf16* y, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) y[i] = to_bf16(x[i]);
}

}  // namespace gallop::vector_math
