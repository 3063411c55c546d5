#include <cmath>

#include <nv/target>

#include "core/normal.hpp"
#include "kernels/common.cuh"

namespace gallop::kernels {
namespace {

/// Double operations that the compiler never fuses. Those of the host are never called: a constexpr
/// template is compiled for both sides.
struct Unfused {
    __host__ __device__ static double mul(double a, double b) {
        NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return __dmul_rn(a, b);), (return a * b;))
    }
    __host__ __device__ static double add(double a, double b) {
        NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return __dadd_rn(a, b);), (return a + b;))
    }
    __host__ __device__ static double div(double a, double b) {
        NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return __ddiv_rn(a, b);), (return a / b;))
    }
    __host__ __device__ static double sqrt(double a) {
        NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return __dsqrt_rn(a);), (return std::sqrt(a);))
    }
};

}  // namespace

void launch(const Combine& a, cudaStream_t stream) {
    for_each(a.n, stream, "combine", [a] __device__(Index i) {
        float sum = a.factors[0] * a.terms[0][i];
        for (int t = 1; t < a.count; ++t) sum += a.factors[t] * a.terms[t][i];
        a.y[i] = sum;
    });
}

void launch(const Guide& a, cudaStream_t stream) {
    for_each(a.channels * a.count * a.plane, stream, "guide", [a] __device__(Index i) {
        const Index t = i / a.plane % a.count;
        const Index channel = i / (a.plane * a.count);
        const Index at = (channel * a.frames + a.first + t) * a.plane + i % a.plane;
        a.y[at] = a.neg[at] + a.scales[t] * (a.pos[at] - a.neg[at]);
    });
}

void launch(const Normal& a, cudaStream_t stream) {
    for_each(a.n, stream, "noise", [a] __device__(Index i) {
        const std::uint64_t index = a.first + static_cast<std::uint64_t>(i);
        const std::uint64_t block = index / 4;
        const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
        const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
        const auto words =
            philox4x32_10({low(block), high(block), low(a.stream.stream), high(a.stream.stream)},
                          {low(a.stream.seed), high(a.stream.seed)});
        a.y[i] = NormalFromBits<Unfused>::of(words[index % 4]);
    });
}

void launch(const AllFinite& a, cudaStream_t stream) {
    for_each(a.n, stream, "check for finite values", [a] __device__(Index i) {
        if (!isfinite(load(a.x, i))) *a.flag = 0;  // whoever writes, writes the same
    });
}

void launch(const SameBytes& a, cudaStream_t stream) {
    for_each(a.n, stream, "comparing bytes", [a] __device__(Index i) {
        if (static_cast<const std::uint8_t*>(a.x)[i] != static_cast<const std::uint8_t*>(a.y)[i])
            *a.flag = 0;  // whoever writes, writes the same
    });
}

}  // namespace gallop::kernels
