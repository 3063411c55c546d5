#pragma once

// What the ops ask of their arrays; each check throws Error with what was wrong.

#include "ops/backend.hpp"

namespace gallop {

inline bool is_float(ConstTensorView x) {
    return x.dtype() == DType::f32 || x.dtype() == DType::bf16;
}

inline void check_float(ConstTensorView x, const char* what) {
    CHECK(is_float(x), "{} is {} (f32 or bf16)", what, name_of(x.dtype()));
}

inline void check_f32(ConstTensorView x, const char* what) {
    CHECK(x.dtype() == DType::f32, "{} is {} (f32)", what, name_of(x.dtype()));
}

inline void check_same_shape(ConstTensorView a, ConstTensorView b) {
    CHECK(a.shape() == b.shape(), "shapes differ: {} and {}", to_string(a.shape()),
          to_string(b.shape()));
}

inline void check_rank(ConstTensorView x, std::size_t rank, const char* what) {
    CHECK(x.shape().rank() == rank, "{} has shape {} ({} extents)", what, to_string(x.shape()),
          rank);
}

/// Rows of an array read as [rows, last extent].
inline Index rows_of(ConstTensorView x) {
    return x.shape().back() == 0 ? 0 : x.numel() / x.shape().back();
}

}  // namespace gallop
