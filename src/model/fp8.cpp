#include "model/fp8.hpp"

namespace gallop {
namespace {

std::string scales_of(const std::string& name) { return name + std::string(fp8_scale_suffix); }

}  // namespace

void put_fp8(Weights& weights, const std::string& name, ConstTensorView values, Backend& on) {
    Tensor q = on.empty(values.shape(), DType::f8_e4m3);
    Tensor scales = on.empty({values.size(0)});
    on.quantise(values, q, scales);
    weights.put(name, std::move(q));
    weights.put(scales_of(name), std::move(scales));
}

namespace {

/// Rows on their way to an E4M3 weight, as wide as it is.
struct Quantised {
    Tensor values, scales;
    Quantised(Index rows, const Tensor& weight, Backend& on)
        : values(on.empty({rows, weight.size(1)}, DType::f8_e4m3)), scales(on.empty({rows})) {}
};

void multiply(const Quantised& x, const Weights& weights, const std::string& name,
              Segments segments, TensorView y, Backend& on) {
    on.linear_fp8(x.values, x.scales, weights[name], weights[scales_of(name)], segments, y);
}

}  // namespace

void multiply(ConstTensorView x, const Weights& weights, const std::string& name, Segments segments,
              TensorView y, Backend& on) {
    const Tensor& weight = weights[name];
    if (weight.dtype() != DType::f8_e4m3) return on.linear(x, weight, {}, segments, y);
    Quantised rows(x.size(0), weight, on);
    on.quantise(x, rows.values, rows.scales);
    multiply(rows, weights, name, segments, y, on);
}

void multiply_and_add(ConstTensorView x, const Weights& weights, const std::string& name,
                      Segments segments, TensorView y, Backend& on) {
    const Tensor& weight = weights[name];
    Quantised rows(x.size(0), weight, on);
    on.quantise(x, rows.values, rows.scales);
    on.add_linear_fp8(rows.values, rows.scales, weight, weights[scales_of(name)], segments, y);
}

void multiply_normed(ConstTensorView x, ConstTensorView gain, const Weights& weights,
                     const std::string& name, Segments segments, DType rounded, TensorView y,
                     Backend& on) {
    const Tensor& weight = weights[name];
    if (weight.dtype() == DType::f8_e4m3) {
        Quantised rows(x.size(0), weight, on);
        on.norm_quantised(x, gain, {}, segments, rows.values, rows.scales);
        return multiply(rows, weights, name, segments, y, on);
    }
    Tensor normed = on.empty(x.shape(), rounded);
    on.norm(x, gain, {}, segments, normed);
    on.linear(normed, weight, {}, segments, y);
}

}  // namespace gallop
