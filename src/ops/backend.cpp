#include "ops/backend.hpp"

#include <algorithm>
#include <numeric>

#include "ops/backend_checks.hpp"

namespace gallop {
namespace {

void check_segments(Segments segments, Index rows) {
    const Index sum = std::accumulate(segments.begin(), segments.end(), Index{0});
    CHECK(sum == rows, "segments add up to {} of {} rows", sum, rows);
}

void check_same_but_last(ConstTensorView x, ConstTensorView y) {
    CHECK(x.shape().rank() == y.shape().rank() &&
              std::equal(x.shape().begin(), x.shape().end() - 1, y.shape().begin()),
          "shapes {} and {} differ before the last axis", to_string(x.shape()),
          to_string(y.shape()));
}

void check_rope(ConstTensorView x, ConstTensorView rope) {
    check_f32(rope, "rope");
    CHECK(rope.shape().rank() == 2 && rope.size(0) == x.size(0) && rope.size(1) % 2 == 0 &&
              rope.size(1) <= x.shape().back(),
          "rope of shape {} for heads of shape {}", to_string(rope.shape()), to_string(x.shape()));
}

void check_norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                Segments segments) {
    check_segments(segments, rows_of(x));
    if (spec.kind == NormSpec::Kind::rms) {
        CHECK(!weight.defined(), "this norm has no weights");
        return;
    }
    check_f32(weight, "weight");
    CHECK(weight.numel() == static_cast<Index>(segments.size()) * x.shape().back(),
          "{} weights for {} experts of width {}", weight.numel(), segments.size(),
          x.shape().back());
}

/// Rows in E4M3 of at least `width` values, and their scales.
void check_quantised(Index rows, Index width, ConstTensorView q, ConstTensorView scales) {
    check_rank(q, 2, "an E4M3 matrix");
    check_f32(scales, "the scales");
    CHECK(q.dtype() == DType::f8_e4m3, "an E4M3 matrix is {}", name_of(q.dtype()));
    CHECK(q.size(0) == rows && q.size(1) >= width && scales.numel() == rows,
          "{} rows of {} in E4M3 of shape {} with {} scales", rows, width, to_string(q.shape()),
          scales.numel());
}

void check_linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                      ConstTensorView weight_scales, Segments segments, ConstTensorView y) {
    check_quantised(rows_of(x), x.shape().back(), x, x_scales);
    check_rank(weight, 2, "weight");
    check_quantised(weight.size(0), weight.size(1), weight, weight_scales);
    check_float(y, "y");
    const auto experts = static_cast<Index>(segments.size());
    CHECK(rows_of(x) == rows_of(y) && weight.size(1) == x.shape().back() &&
              weight.size(0) == experts * y.shape().back(),
          "linear from {} to {} by {} with {} experts", to_string(x.shape()), to_string(y.shape()),
          to_string(weight.shape()), experts);
    check_segments(segments, rows_of(x));
}

}  // namespace

Tensor Backend::zeros(Shape shape, DType dtype) {
    Tensor made = empty(shape, dtype);
    do_fill_zero(made);
    return made;
}

Tensor Backend::upload(ConstTensorView host) {
    CHECK(host.device() == Device::cpu, "upload takes a host array");
    Tensor made = empty(host.shape(), host.dtype());
    do_upload(host, made);
    return made;
}

Tensor Backend::download(ConstTensorView device_array) {
    Tensor made(device_array.shape(), device_array.dtype());
    do_download(device_array, made);
    return made;
}

Copy Backend::start_upload(ConstTensorView host, TensorView device_array) {
    CHECK(host.shape() == device_array.shape() && host.dtype() == device_array.dtype(),
          "{} {} uploaded into {} {}", name_of(host.dtype()), to_string(host.shape()),
          name_of(device_array.dtype()), to_string(device_array.shape()));
    return do_start_upload(host, device_array);
}

Copy Backend::start_download(ConstTensorView device_array, TensorView host) {
    CHECK(host.shape() == device_array.shape() && host.dtype() == device_array.dtype(),
          "{} {} downloaded into {} {}", name_of(device_array.dtype()),
          to_string(device_array.shape()), name_of(host.dtype()), to_string(host.shape()));
    return do_start_download(device_array, host);
}

void Backend::copy(ConstTensorView from, TensorView to) {
    check_same_shape(from, to);
    CHECK(from.dtype() == to.dtype() || (is_float(from) && is_float(to)), "cannot copy {} to {}",
          name_of(from.dtype()), name_of(to.dtype()));
    do_copy(from, to);
}

void Backend::permute(ConstTensorView x, const Shape& shape, std::span<const int> order,
                      TensorView y) {
    CHECK(shape.numel() == x.numel() && y.numel() == x.numel(),
          "permute of {} elements read as {} into {}", x.numel(), to_string(shape),
          to_string(y.shape()));
    CHECK(x.dtype() == y.dtype(), "permute from {} to {}", name_of(x.dtype()), name_of(y.dtype()));
    std::array<bool, Shape::max_rank> seen{};
    CHECK(order.size() == shape.rank(), "{} axes permuted by {} numbers", shape.rank(),
          order.size());
    for (const int axis : order) {
        CHECK(axis >= 0 && axis < static_cast<int>(shape.rank()) &&
                  !seen[static_cast<std::size_t>(axis)],
              "axis {} in a permutation of {}", axis, shape.rank());
        seen[static_cast<std::size_t>(axis)] = true;
    }
    do_permute(x, shape, order, y);
}

void Backend::columns(ConstTensorView x, Index begin, TensorView y) {
    check_rank(x, 2, "x");
    check_rank(y, 2, "y");
    CHECK(x.dtype() == y.dtype() && x.size(0) == y.size(0) && begin >= 0 &&
              begin + y.size(1) <= x.size(1),
          "columns {} to {} of {}", begin, begin + y.size(1), to_string(x.shape()));
    do_columns(x, begin, y);
}

void Backend::mean_channels(ConstTensorView x, Index n, TensorView y) {
    check_float(x, "x");
    check_same_but_last(x, y);
    CHECK(x.dtype() == y.dtype() && n > 0 && x.shape().back() == y.shape().back() * n,
          "means of {} channels from {} to {}", n, to_string(x.shape()), to_string(y.shape()));
    do_mean_channels(x, n, y);
}

void Backend::repeat_channels(ConstTensorView x, Index n, TensorView y) {
    check_float(x, "x");
    check_same_but_last(x, y);
    CHECK(x.dtype() == y.dtype() && n > 0 && x.shape().back() * n == y.shape().back(),
          "channels {} times from {} to {}", n, to_string(x.shape()), to_string(y.shape()));
    do_repeat_channels(x, n, y);
}

void Backend::linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                     Segments segments, TensorView y) {
    check_float(x, "x");
    check_rank(weight, 2, "weight");
    const Index experts = static_cast<Index>(segments.size());
    const Index out = y.shape().back();
    CHECK(weight.dtype() == x.dtype(), "weight is {}, x is {}", name_of(weight.dtype()),
          name_of(x.dtype()));
    CHECK(y.dtype() == DType::f32 || y.dtype() == x.dtype(), "y is {}, x is {}", name_of(y.dtype()),
          name_of(x.dtype()));
    CHECK(rows_of(x) == rows_of(y) && weight.size(1) == x.shape().back() &&
              weight.size(0) == experts * out,
          "linear from {} to {} by {} with {} experts", to_string(x.shape()), to_string(y.shape()),
          to_string(weight.shape()), experts);
    if (bias.defined()) {
        check_f32(bias, "bias");
        CHECK(bias.numel() == experts * out, "bias of {} for {} rows", bias.numel(), experts * out);
    }
    check_segments(segments, rows_of(x));
    do_linear(x, weight, bias, segments, y);
}

void Backend::linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                     TensorView y) {
    const std::array<Index, 1> all{rows_of(x)};
    linear(x, weight, bias, all, y);
}

void Backend::quantise(ConstTensorView x, TensorView q, TensorView scales) {
    check_float(x, "x");
    check_quantised(rows_of(x), x.shape().back(), q, scales);
    do_quantise(x, q, scales);
}

void Backend::norm_quantised(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                             Segments segments, TensorView q, TensorView scales) {
    check_float(x, "x");
    check_quantised(rows_of(x), x.shape().back(), q, scales);
    const std::array<Index, 1> all{rows_of(x)};
    if (segments.empty()) segments = all;
    check_norm(x, weight, spec, segments);
    do_norm_quantised(x, weight, spec, segments, q, scales);
}

void Backend::linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                         ConstTensorView weight_scales, Segments segments, TensorView y) {
    check_linear_fp8(x, x_scales, weight, weight_scales, segments, y);
    do_linear_fp8(x, x_scales, weight, weight_scales, segments, false, y);
}

void Backend::add_linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                             ConstTensorView weight_scales, Segments segments, TensorView y) {
    check_linear_fp8(x, x_scales, weight, weight_scales, segments, y);
    check_f32(y, "y");
    do_linear_fp8(x, x_scales, weight, weight_scales, segments, true, y);
}

void Backend::project(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                      TensorView y) {
    for (const ConstTensorView& part : {x, weight, ConstTensorView(y)})
        check_f32(part, "projection");
    check_rank(weight, 2, "weight");
    CHECK(rows_of(x) == rows_of(y) && weight.size(1) == x.shape().back() &&
              weight.size(0) == y.shape().back(),
          "projection from {} to {} by {}", to_string(x.shape()), to_string(y.shape()),
          to_string(weight.shape()));
    if (bias.defined()) {
        check_f32(bias, "bias");
        CHECK(bias.numel() == weight.size(0), "bias of {} for {} rows", bias.numel(),
              weight.size(0));
    }
    do_project(x, weight, bias, y);
}

void Backend::norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                   Segments segments, TensorView y, Activation activation) {
    check_float(x, "x");
    check_float(y, "y");
    check_same_shape(x, y);
    const std::array<Index, 1> all{rows_of(x)};
    if (segments.empty()) segments = all;
    check_norm(x, weight, spec, segments);
    do_norm(x, weight, spec, segments, y, activation);
}

void Backend::activate(ConstTensorView x, Activation activation, TensorView y) {
    check_float(x, "x");
    check_float(y, "y");
    check_same_shape(x, y);
    do_activate(x, activation, y);
}

void Backend::add(TensorView x, ConstTensorView y) {
    check_float(x, "x");
    check_float(y, "y");
    check_same_shape(x, y);
    do_add(x, y);
}

void Backend::split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                        const NormSpec& spec, Segments segments, ConstTensorView rope, TensorView q,
                        TensorView k, TensorView v) {
    check_float(u, "u");
    check_rank(u, 2, "u");
    for (const TensorView& part : {q, k, v}) {
        check_rank(part, 3, "a head array");
        check_float(part, "a head array");
        CHECK(part.size(0) == u.size(0) && part.size(2) == q.size(2) && part.dtype() == q.dtype(),
              "heads of shape {} from {}", to_string(part.shape()), to_string(u.shape()));
    }
    check_same_shape(k, v);
    CHECK(q.size(1) % k.size(1) == 0, "{} query heads over {} kv heads", q.size(1), k.size(1));
    CHECK((q.size(1) + 2 * k.size(1)) * q.size(2) <= u.size(1),
          "{} + 2·{} heads of {} in {} columns", q.size(1), k.size(1), q.size(2), u.size(1));
    CHECK(spec.kind == NormSpec::Kind::rms_offset, "heads are normalised by RMS with 1 + w");
    const Index norm_size = static_cast<Index>(segments.size()) * q.size(2);
    for (const ConstTensorView& weight : {q_norm, k_norm}) {
        check_f32(weight, "head norm");
        CHECK(weight.numel() == norm_size, "{} weights for {}", weight.numel(), norm_size);
    }
    check_segments(segments, u.size(0));
    check_rope(q, rope);
    do_split_qkv(u, q_norm, k_norm, spec, segments, rope, q, k, v);
}

void Backend::rotate(TensorView x, ConstTensorView rope, bool round_products) {
    check_float(x, "x");
    check_rank(x, 3, "x");
    check_rope(x, rope);
    do_rotate(x, rope, round_products);
}

void Backend::attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                        const AttentionMask& mask, float scale, float soft_cap, TensorView y) {
    for (const ConstTensorView& part : {q, k, v, ConstTensorView(y)}) {
        check_float(part, "attention array");
        check_rank(part, 3, "attention array");
        CHECK(part.dtype() == q.dtype(), "attention mixes {} and {}", name_of(q.dtype()),
              name_of(part.dtype()));
        CHECK(part.size(2) == q.size(2), "head sizes {} and {}", q.size(2), part.size(2));
    }
    check_same_shape(k, v);
    check_same_shape(q, y);
    CHECK(k.size(0) > 0, "attention over no keys");
    CHECK(k.size(1) > 0 && q.size(1) % k.size(1) == 0, "{} query heads over {} kv heads", q.size(1),
          k.size(1));
    if (mask.kind != AttentionMask::Kind::full) {
        CHECK(q.size(0) == k.size(0), "a masked attention of {} queries over {} keys", q.size(0),
              k.size(0));
    }
    if (mask.kind == AttentionMask::Kind::frames) {
        CHECK(mask.frames >= 0 && mask.per_frame >= 0 && mask.radius >= 0 &&
                  mask.frames * mask.per_frame <= q.size(0),
              "{} frames of {} tokens in {} rows", mask.frames, mask.per_frame, q.size(0));
    }
    if (mask.kind == AttentionMask::Kind::window)
        CHECK(mask.radius >= 1, "window of radius {}", mask.radius);
    do_attention(q, k, v, mask, scale, soft_cap, y);
}

void Backend::gate_heads(TensorView o, ConstTensorView u, Index column) {
    check_float(o, "o");
    check_float(u, "u");
    check_rank(o, 3, "o");
    check_rank(u, 2, "u");
    CHECK(u.size(0) == o.size(0) && column >= 0 && column + o.size(1) <= u.size(1),
          "gates {} to {} of {}", column, column + o.size(1), to_string(u.shape()));
    do_gate_heads(o, u, column);
}

void Backend::swiglu7(ConstTensorView u, TensorView y) {
    check_float(u, "u");
    check_float(y, "y");
    CHECK(rows_of(u) == rows_of(y) && u.shape().back() == 2 * y.shape().back(),
          "swiglu7 from {} to {}", to_string(u.shape()), to_string(y.shape()));
    do_swiglu7(u, y);
}

void Backend::gelu7(ConstTensorView u, TensorView y) {
    check_float(u, "u");
    check_float(y, "y");
    check_same_shape(u, y);
    do_gelu7(u, y);
}

void Backend::geglu(ConstTensorView gate, ConstTensorView up, bool round_gelu, TensorView y) {
    check_float(gate, "gate");
    check_float(up, "up");
    check_float(y, "y");
    check_same_shape(gate, up);
    check_same_shape(gate, y);
    do_geglu(gate, up, round_gelu, y);
}

void Backend::snake(ConstTensorView x, ConstTensorView alpha, ConstTensorView beta, TensorView y) {
    check_f32(x, "x");
    check_f32(y, "y");
    check_same_shape(x, y);
    CHECK(alpha.numel() == x.shape().back() && beta.numel() == x.shape().back(),
          "snake of {} channels with {} and {} values", x.shape().back(), alpha.numel(),
          beta.numel());
    do_snake(x, alpha, beta, y);
}

void Backend::embed(ConstTensorView table, std::span<const std::int32_t> ids, float scale,
                    TensorView y) {
    check_float(table, "table");
    check_rank(table, 2, "table");
    CHECK(y.dtype() == table.dtype() && y.shape().rank() == 2 &&
              y.size(0) == static_cast<Index>(ids.size()) && y.size(1) == table.size(1),
          "{} embeddings from {} to {}", ids.size(), to_string(table.shape()),
          to_string(y.shape()));
    for (const std::int32_t id : ids)
        CHECK(id >= 0 && id < table.size(0), "token id {} (0 to {})", id, table.size(0) - 1);
    do_embed(table, ids, scale, y);
}

}  // namespace gallop
