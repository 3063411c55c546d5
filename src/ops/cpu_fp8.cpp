#include <algorithm>
#include <cmath>

#include "ops/cpu_backend.hpp"
#include "ops/cpu_gemm.hpp"
#include "ops/cpu_rows.hpp"

namespace gallop {
namespace {

/// The largest E4M3 value. Source: OCP 8-bit floating point specification 1.0, table 1.
constexpr float most = 448.0F;

/// One row: its scale, and its values in E4M3 with zeros after them.
float quantise_row(const float* x, Index n, f8_e4m3* q, Index width) {
    float amax = 0;  // NaN is not looked at here and stays one below
    for (Index i = 0; i < n; ++i) amax = std::max(amax, std::fabs(x[i]));
    // An infinity makes the scale infinite and is then NaN itself.
    const float scale = std::max(amax / most, 0x1p-126F);
    for (Index i = 0; i < n; ++i) q[i] = to_f8_e4m3(x[i] / scale);
    std::fill(q + n, q + width, f8_e4m3{});
    return scale;
}

}  // namespace

void CpuBackend::do_quantise(ConstTensorView x, TensorView q, TensorView scales) {
    const Index n = width(x);
    const Index out = q.size(1);
    parallel_for(rows(x), [&](Index row) {
        thread_local std::vector<float> buffer;
        scales.data<float>()[row] =
            quantise_row(read_row(x, row, n, buffer), n, q.data<f8_e4m3>() + row * out, out);
    });
}

void CpuBackend::do_norm_quantised(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                                   Segments segments, TensorView q, TensorView scales) {
    Tensor normed = empty(x.shape());
    do_norm(x, weight, spec, segments, normed, Activation::none);
    do_quantise(normed, q, scales);
}

void CpuBackend::do_linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                               ConstTensorView weight_scales, Segments segments, bool add,
                               TensorView y) {
    Tensor product = add ? empty(y.shape()) : Tensor();
    cpu_linear(x, weight, {}, segments, add ? product.view() : y, x_scales.data<float>(),
               weight_scales.data<float>());
    if (add) do_add(y, product);
}

}  // namespace gallop
