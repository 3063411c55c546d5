#pragma once

// What makes a .cu file of ours ordinary C++ (GCC reads this before it): CUDA's words, and its functions for
// a thread of a kernel.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <nv/target>

#include "emulation/grid.hpp"
#include "emulation/queue.hpp"

#undef __shared__
#define __shared__ thread_local
#undef __launch_bounds__
#define __launch_bounds__(...)

inline const uint3& threadIdx = gallop::emulation::running_thread;
inline const uint3& blockIdx = gallop::emulation::running_block;
inline const dim3& blockDim = gallop::emulation::running_threads;
inline const dim3& gridDim = gallop::emulation::running_grid;

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    return b < a ? b : a;
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    return a < b ? b : a;
}

inline void __syncthreads() { gallop::emulation::meet_block(); }
inline void __syncwarp() { gallop::emulation::meet_warp(); }

template <class T>
T __shfl_xor_sync(unsigned /*mask: all*/, T x, int with) {
    return gallop::emulation::exchange(
        x, gallop::emulation::running->number ^ static_cast<unsigned>(with));
}
template <class T>
T __shfl_sync(unsigned /*mask: all*/, T x, int source) {
    return gallop::emulation::exchange(x, static_cast<unsigned>(source));
}

/// As the hardware: 2^(x·log₂ e), the product rounded; and a division that is 0 by large numbers.
inline float __expf(float x) { return std::exp2(x * 1.4426950408889634F); }
inline float __fdividef(float x, float y) { return std::fabs(y) > 0x1p126F ? x * 0.0F : x / y; }

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute which,
                                 int value) {
    return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), which, value);
}

template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const std::type_identity_t<Parameters>&... arguments) {
    return gallop::emulation::launch(*config, reinterpret_cast<const void*>(kernel),
                                     [=] { kernel(arguments...); });
}
