// The CPU's norms, activations, rotations and gates.
#include <cmath>

#include "ops/cpu_backend.hpp"
#include "ops/cpu_rows.hpp"

namespace gallop {
namespace {

void apply(Activation activation, const float* x, float* y, std::size_t n) {
    switch (activation) {
        case Activation::none:
            if (x != y) std::copy(x, x + n, y);
            break;
        case Activation::silu: vector_math::silu(x, y, n); break;
        case Activation::relu:
            for (std::size_t i = 0; i < n; ++i) y[i] = x[i] > 0 ? x[i] : 0.0F;
            break;
        case Activation::elu:
            for (std::size_t i = 0; i < n; ++i) y[i] = x[i] > 0 ? x[i] : std::expm1(x[i]);
            break;
        case Activation::tanh: vector_math::tanh(x, y, n); break;
        case Activation::clamp:
            for (std::size_t i = 0; i < n; ++i) y[i] = std::min(std::max(x[i], -1.0F), 1.0F);
            break;
    }
}

/// x·(factor of the row's norm)·weight; x and y may be the same.
void norm_row(const float* x, const float* weight, const NormSpec& spec, float* y, std::size_t n) {
    const float sum = vector_math::sum_of_squares(x, n);
    switch (spec.kind) {
        case NormSpec::Kind::rms_offset:
            vector_math::scale_by(x, weight, y, n,
                                  1.0F / std::sqrt(sum / static_cast<float>(n) + spec.eps), true);
            break;
        case NormSpec::Kind::rms: {
            const float factor = 1.0F / std::sqrt(sum / static_cast<float>(n) + spec.eps);
            for (std::size_t i = 0; i < n; ++i) y[i] = x[i] * factor;
            break;
        }
        case NormSpec::Kind::l2:
            vector_math::scale_by(
                x, weight, y, n,
                std::sqrt(static_cast<float>(n)) / std::max(std::sqrt(sum), spec.eps), false);
            break;
    }
}

/// The expert of each row, by segment.
std::vector<Index> expert_of_rows(Segments segments) {
    std::vector<Index> expert;
    for (std::size_t e = 0; e < segments.size(); ++e)
        expert.insert(expert.end(), static_cast<std::size_t>(segments[e]), static_cast<Index>(e));
    return expert;
}

/// Rotates one head in place: sines then cosines of `count` angles.
void rotate_head(float* x, const float* rope, Index count) {
    for (Index d = 0; d < count; ++d) {
        const float sine = rope[d];
        const float cosine = rope[count + d];
        const float a = x[d];
        const float b = x[d + count];
        x[d] = a * cosine - b * sine;
        x[d + count] = b * cosine + a * sine;
    }
}

}  // namespace

void CpuBackend::do_norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                         Segments segments, TensorView y, Activation activation) {
    const Index n = width(x);
    const std::vector<Index> expert =
        segments.size() > 1 ? expert_of_rows(segments) : std::vector<Index>();
    // The activation runs over many rows at once: those of the VAEs are only a few values long.
    parallel_chunks(
        rows(x), std::max<Index>(1, 8192 / std::max<Index>(n, 1)), [&](Index begin, Index end) {
            const auto count = static_cast<std::size_t>((end - begin) * n);
            thread_local std::vector<float> in;
            thread_local std::vector<float> rounded;
            rounded.resize(y.dtype() == DType::f32 ? 0 : count);
            float* out = rounded.empty() ? y.data<float>() + begin * n : rounded.data();
            for (Index row = begin; row < end; ++row) {
                const Index e = expert.empty() ? 0 : expert[static_cast<std::size_t>(row)];
                const float* w = weight.defined() ? weight.data<float>() + e * n : nullptr;
                norm_row(read_row(x, row, n, in), w, spec, out + (row - begin) * n,
                         static_cast<std::size_t>(n));
            }
            apply(activation, out, out, count);
            if (!rounded.empty()) vector_math::narrow(out, y.data<bf16>() + begin * n, count);
        });
}

void CpuBackend::do_activate(ConstTensorView x, Activation activation, TensorView y) {
    map_lines(x, y,
              [&](const float* in, float* out, std::size_t n) { apply(activation, in, out, n); });
}

void CpuBackend::do_add(TensorView x, ConstTensorView y) {
    const Index n = line_length(x);
    write_rows(x, n, [&](Index row, float* out) {
        thread_local std::vector<float> a_buffer;
        thread_local std::vector<float> b_buffer;
        const float* a = read_row(x, row, n, a_buffer);
        const float* b = read_row(y, row, n, b_buffer);
        for (Index i = 0; i < n; ++i) out[i] = a[i] + b[i];
    });
}

void CpuBackend::do_swiglu7(ConstTensorView u, TensorView y) {
    const Index n = width(y);
    write_rows(y, n, [&](Index row, float* out) {
        thread_local std::vector<float> buffer;
        vector_math::swiglu7(read_row(u, row, 2 * n, buffer), out, static_cast<std::size_t>(n));
    });
}

void CpuBackend::do_gelu7(ConstTensorView u, TensorView y) { map_lines(u, y, vector_math::gelu7); }

void CpuBackend::do_geglu(ConstTensorView gate, ConstTensorView up, bool round_gelu, TensorView y) {
    const Index n = width(y);
    const bool round = round_gelu && y.dtype() == DType::bf16;
    write_rows(y, n, [&](Index row, float* out) {
        thread_local std::vector<float> gate_buffer;
        thread_local std::vector<float> up_buffer;
        vector_math::gelu_tanh(read_row(gate, row, n, gate_buffer), out,
                               static_cast<std::size_t>(n));
        const float* in = read_row(up, row, n, up_buffer);
        for (Index i = 0; i < n; ++i) out[i] = (round ? to_float(to_bf16(out[i])) : out[i]) * in[i];
    });
}

void CpuBackend::do_snake(ConstTensorView x, ConstTensorView alpha, ConstTensorView beta,
                          TensorView y) {
    const Index n = width(x);
    std::vector<float> a(static_cast<std::size_t>(n));
    std::vector<float> b(static_cast<std::size_t>(n));
    for (Index c = 0; c < n; ++c) {
        a[static_cast<std::size_t>(c)] = std::exp(alpha.data<float>()[c]);
        b[static_cast<std::size_t>(c)] = 1.0F / (std::exp(beta.data<float>()[c]) + 1e-9F);
    }
    write_rows(y, n, [&](Index row, float* out) {
        const float* in = x.data<float>() + row * n;
        for (Index c = 0; c < n; ++c) {
            const float sine = std::sin(in[c] * a[static_cast<std::size_t>(c)]);
            out[c] = in[c] + sine * sine * b[static_cast<std::size_t>(c)];
        }
    });
}

void CpuBackend::do_affine_channels(ConstTensorView x, ConstTensorView scale, ConstTensorView shift,
                                    TensorView y) {
    const Index n = width(x);
    write_rows(y, n, [&](Index row, float* out) {
        const float* in = x.data<float>() + row * n;
        for (Index c = 0; c < n; ++c)
            out[c] = in[c] * scale.data<float>()[c] + shift.data<float>()[c];
    });
}

void CpuBackend::do_split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                              const NormSpec& spec, Segments segments, ConstTensorView rope,
                              TensorView q, TensorView k, TensorView v) {
    const Index head_size = q.size(2);
    const Index angles = rope.size(1) / 2;
    const std::vector<Index> expert = expert_of_rows(segments);
    const auto take = [&](TensorView part, Index column, ConstTensorView weight) {
        const Index heads = part.size(1);
        write_rows(part, heads * head_size, [&](Index row, float* out) {
            thread_local std::vector<float> buffer;
            const float* in = read_row(u, row, u.size(1), buffer) + column;
            if (!weight.defined()) {
                std::copy(in, in + heads * head_size, out);
                return;
            }
            const float* w =
                weight.data<float>() + expert[static_cast<std::size_t>(row)] * head_size;
            for (Index h = 0; h < heads; ++h) {
                float* head = out + h * head_size;
                norm_row(in + h * head_size, w, spec, head, static_cast<std::size_t>(head_size));
                rotate_head(head, rope.data<float>() + row * 2 * angles, angles);
            }
        });
    };
    const Index q_width = q.size(1) * head_size;
    const Index k_width = k.size(1) * head_size;
    take(q, 0, q_norm);
    take(k, q_width, k_norm);
    take(v, q_width + k_width, {});
}

void CpuBackend::do_rotate(TensorView x, ConstTensorView rope, bool round_products) {
    const Index head_size = x.size(2);
    const Index angles = rope.size(1) / 2;
    const bool round = round_products && x.dtype() == DType::bf16;
    const auto rounded = [round](float value) { return round ? to_float(to_bf16(value)) : value; };
    const Index n = x.size(1) * head_size;
    write_rows(x, n, [&](Index row, float* out) {
        thread_local std::vector<float> buffer;
        const float* in = read_row(x, row, n, buffer);
        const float* sine = rope.data<float>() + row * 2 * angles;
        const float* cosine = sine + angles;
        for (Index h = 0; h < x.size(1); ++h) {
            const float* from = in + h * head_size;
            float* to = out + h * head_size;
            for (Index d = 0; d < angles; ++d) {
                const float a = from[d];
                const float b = from[d + angles];
                to[d] = rounded(a * cosine[d]) - rounded(b * sine[d]);
                to[d + angles] = rounded(b * cosine[d]) + rounded(a * sine[d]);
            }
            std::copy(from + 2 * angles, from + head_size, to + 2 * angles);
        }
    });
}

void CpuBackend::do_gate_heads(TensorView o, ConstTensorView u, Index column) {
    const Index heads = o.size(1);
    const Index head_size = o.size(2);
    write_rows(o, heads * head_size, [&](Index row, float* out) {
        thread_local std::vector<float> o_buffer;
        thread_local std::vector<float> u_buffer;
        thread_local std::vector<float> gates;
        const float* in = read_row(o, row, heads * head_size, o_buffer);
        gates.resize(static_cast<std::size_t>(heads));
        vector_math::sigmoid(read_row(u, row, u.size(1), u_buffer) + column, gates.data(),
                             gates.size());
        for (Index h = 0; h < heads; ++h)
            for (Index d = 0; d < head_size; ++d)
                out[h * head_size + d] = in[h * head_size + d] * gates[static_cast<std::size_t>(h)];
    });
}

}  // namespace gallop
