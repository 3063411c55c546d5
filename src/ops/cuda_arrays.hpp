#pragma once

// Arrays as the kernels take them. Each function throws Error for one in host memory.

#include "core/check.hpp"
#include "core/tensor.hpp"
#include "kernels/kernels.hpp"

namespace gallop {

inline void check_on_gpu(ConstTensorView x) {
    CHECK(x.device() == Device::cuda, "a {} array of shape {} is in host memory (upload it)",
          name_of(x.dtype()), to_string(x.shape()));
}

/// An f32 or bf16 array that a kernel reads.
inline kernels::Input in(ConstTensorView x) {
    check_on_gpu(x);
    return {x.raw(), x.dtype() == DType::bf16};
}
/// An f32 or bf16 array that a kernel writes.
inline kernels::Output out(TensorView y) {
    check_on_gpu(y);
    return {y.raw(), y.dtype() == DType::bf16};
}
inline const float* floats(ConstTensorView x) {
    check_on_gpu(x);
    return x.data<float>();
}
inline float* floats(TensorView y) {
    check_on_gpu(y);
    return y.data<float>();
}
/// Null for an undefined array.
inline const float* optional_floats(ConstTensorView x) { return x.defined() ? floats(x) : nullptr; }

/// Throws Error for heads of more than `most` values, which a kernel has no room for.
inline void check_head_size(Index size, Index most) {
    CHECK(size <= most, "heads of {} values (at most {} on the GPU)", size, most);
}

}  // namespace gallop
