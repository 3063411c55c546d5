#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include <omp.h>

#include "core/check.hpp"
#include "ops/backend.hpp"
#include "ops/cpu_attention.hpp"
#include "ops/cpu_conv.hpp"
#include "ops/cpu_gemm.hpp"
#include "ops/parallel.hpp"
#include "ops/threads.hpp"
#include "ops/vector_math.hpp"

namespace gallop {
namespace {

/// Host memory that keeps what comes back, by size, up to a bound: a denoise loop asks for the same
/// sizes again and again, and fresh pages cost more than the arithmetic of small ops.
class PoolMemory final : public Memory {
public:
    PoolMemory() = default;
    PoolMemory(const PoolMemory&) = delete;
    PoolMemory& operator=(const PoolMemory&) = delete;
    ~PoolMemory() override { drain(); }

    Device device() const override { return Device::cpu; }

    std::byte* allocate(std::size_t bytes) override {
        {
            const std::lock_guard lock(mutex_);
            if (const auto found = free_.find(bytes); found != free_.end()) {
                std::byte* data = found->second;
                free_.erase(found);
                held_ -= bytes;
                return data;
            }
        }
        try {
            return host_memory().allocate(bytes);
        } catch (const OutOfMemoryError&) {
            drain();
            return host_memory().allocate(bytes);
        }
    }

    void release(std::byte* data, std::size_t bytes) noexcept override {
        {
            const std::lock_guard lock(mutex_);
            if (held_ + bytes <= most_held) {
                free_.emplace(bytes, data);
                held_ += bytes;
                return;
            }
        }
        host_memory().release(data, bytes);
    }

private:
    static constexpr std::size_t most_held = std::size_t{512} << 20;

    void drain() noexcept {
        const std::lock_guard lock(mutex_);
        for (const auto& [bytes, data] : free_) host_memory().release(data, bytes);
        free_.clear();
        held_ = 0;
    }

    std::mutex mutex_;
    std::multimap<std::size_t, std::byte*> free_;
    std::size_t held_ = 0;
};

Index width(ConstTensorView x) { return x.shape().back(); }
Index rows(ConstTensorView x) { return width(x) == 0 ? 0 : x.numel() / width(x); }

/// Row `row` of an array read as [rows, n], as floats: in place for f32, else widened into
/// `buffer`.
const float* read_row(ConstTensorView x, Index row, Index n, std::vector<float>& buffer) {
    if (x.dtype() == DType::f32) return x.data<float>() + row * n;
    buffer.resize(static_cast<std::size_t>(n));
    vector_math::widen(x.data<bf16>() + row * n, buffer.data(), buffer.size());
    return buffer.data();
}

/// Calls `body(row, out)` for every row of y read as [rows, n]; `out` takes n floats that are then
/// rounded to y's dtype.
template <class Body>
void write_rows(TensorView y, Index n, const Body& body) {
    const Index count = n == 0 ? 0 : y.numel() / n;
    const Index chunk = std::max<Index>(1, 8192 / std::max<Index>(n, 1));
    parallel_chunks(count, chunk, [&](Index begin, Index end) {
        std::vector<float> buffer(y.dtype() == DType::f32 ? 0 : static_cast<std::size_t>(n));
        for (Index row = begin; row < end; ++row) {
            if (y.dtype() == DType::f32) {
                body(row, y.data<float>() + row * n);
            } else {
                body(row, buffer.data());
                vector_math::narrow(buffer.data(), y.data<bf16>() + row * n, buffer.size());
            }
        }
    });
}

/// Elements of one line of elementwise work: as many whole trailing axes as make a good piece.
Index line_length(ConstTensorView x) {
    constexpr Index good_piece = 16384;
    Index n = width(x);
    for (std::size_t axis = x.shape().rank(); axis-- > 1;) {
        if (n * x.size(axis - 1) > good_piece) break;
        n *= x.size(axis - 1);
    }
    return n;
}

/// y = f(x) line by line; `f(in, out, n)`.
template <class F>
void map_lines(ConstTensorView x, TensorView y, const F& f) {
    const Index n = line_length(x);
    write_rows(y, n, [&](Index row, float* out) {
        thread_local std::vector<float> buffer;
        f(read_row(x, row, n, buffer), out, static_cast<std::size_t>(n));
    });
}

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

template <std::size_t Bytes>
struct Blob {
    std::byte bytes[Bytes];
};

/// y in its own order, walked by the strides of x.
template <class T>
void permute_as(const std::byte* from, std::span<const Index> extents,
                std::span<const Index> strides, std::byte* to, Index inner_count) {
    // The first axis is spread over the threads; the last runs in the inner loop.
    const Index outer = extents[0];
    const Index per_outer = inner_count;
    parallel_for(outer, [&](Index o) {
        const T* x = reinterpret_cast<const T*>(from) + o * strides[0];
        T* y = reinterpret_cast<T*>(to) + o * per_outer;
        std::array<Index, Shape::max_rank> position{};
        const std::size_t rank = extents.size();
        const Index last = rank > 1 ? extents[rank - 1] : 1;
        const Index last_stride = rank > 1 ? strides[rank - 1] : 0;
        Index offset = 0;
        for (Index done = 0; done < per_outer; done += last) {
            if (last_stride == 1) {
                std::copy(x + offset, x + offset + last, y + done);
            } else {
                for (Index i = 0; i < last; ++i) y[done + i] = x[offset + i * last_stride];
            }
            for (std::size_t axis = rank - 1; axis-- > 1;) {
                offset += strides[axis];
                if (++position[axis] < extents[axis]) break;
                offset -= strides[axis] * extents[axis];
                position[axis] = 0;
            }
        }
    });
}

class CpuBackend final : public Backend {
public:
    explicit CpuBackend(int threads) {
        if (threads > 0) omp_set_num_threads(threads);
    }

    Device device() const override { return Device::cpu; }
    std::string name() const override { return "cpu"; }
    Memory& memory() override { return memory_; }
    void synchronize() override {}
    std::unique_ptr<Group> join_group(const GroupSeat& seat) override {
        return make_gloo_group(seat);
    }

private:
    PoolMemory memory_;

    void do_upload(ConstTensorView host, TensorView device) override { do_copy(host, device); }
    void do_download(ConstTensorView device, TensorView host) override { do_copy(device, host); }

    void do_copy(ConstTensorView from, TensorView to) override {
        if (from.numel() == 0) return;
        if (from.dtype() == to.dtype()) {
            std::memcpy(to.raw(), from.raw(), from.bytes());
            return;
        }
        const Index count = from.numel();
        constexpr Index chunk = 65536;
        parallel_chunks(count, chunk, [&](Index begin, Index end) {
            const auto n = static_cast<std::size_t>(end - begin);
            if (to.dtype() == DType::f32)
                vector_math::widen(from.data<bf16>() + begin, to.data<float>() + begin, n);
            else
                vector_math::narrow(from.data<float>() + begin, to.data<bf16>() + begin, n);
        });
    }

    void do_fill_zero(TensorView y) override {
        if (y.bytes() > 0) std::memset(y.raw(), 0, y.bytes());
    }

    void do_permute(ConstTensorView x, const Shape& shape, std::span<const int> order,
                    TensorView y) override {
        if (x.numel() == 0) return;
        std::array<Index, Shape::max_rank> stride{};
        Index step = 1;
        for (std::size_t axis = shape.rank(); axis-- > 0;) {
            stride[axis] = step;
            step *= shape[axis];
        }
        // Axes of extent 1 vanish and neighbours that stay neighbours become one axis.
        std::vector<Index> extents;
        std::vector<Index> strides;
        for (const int axis : order) {
            const Index extent = shape[static_cast<std::size_t>(axis)];
            const Index old = stride[static_cast<std::size_t>(axis)];
            if (extent == 1) continue;
            if (!extents.empty() && strides.back() == old * extent) {
                extents.back() *= extent;
                strides.back() = old;
            } else {
                extents.push_back(extent);
                strides.push_back(old);
            }
        }
        if (extents.size() <= 1) {
            std::memcpy(y.raw(), x.raw(), x.bytes());
            return;
        }
        const Index inner = x.numel() / extents[0];
        switch (size_of(x.dtype())) {
            case 1: return permute_as<Blob<1>>(x.raw(), extents, strides, y.raw(), inner);
            case 2: return permute_as<std::uint16_t>(x.raw(), extents, strides, y.raw(), inner);
            case 4: return permute_as<std::uint32_t>(x.raw(), extents, strides, y.raw(), inner);
            default: return permute_as<std::uint64_t>(x.raw(), extents, strides, y.raw(), inner);
        }
    }

    void do_columns(ConstTensorView x, Index begin, TensorView y) override {
        const std::size_t element = size_of(x.dtype());
        const std::size_t from_row = static_cast<std::size_t>(x.size(1)) * element;
        const std::size_t to_row = static_cast<std::size_t>(y.size(1)) * element;
        parallel_chunks(x.size(0), 256, [&](Index first, Index last) {
            for (Index row = first; row < last; ++row)
                std::memcpy(y.raw() + static_cast<std::size_t>(row) * to_row,
                            x.raw() + static_cast<std::size_t>(row) * from_row +
                                static_cast<std::size_t>(begin) * element,
                            to_row);
        });
    }

    void do_mean_channels(ConstTensorView x, Index n, TensorView y) override {
        const Index channels = width(y);
        write_rows(y, channels, [&](Index row, float* out) {
            thread_local std::vector<float> buffer;
            const float* in = read_row(x, row, channels * n, buffer);
            for (Index c = 0; c < channels; ++c) {
                float sum = 0;
                for (Index i = 0; i < n; ++i) sum += in[c * n + i];
                out[c] = sum / static_cast<float>(n);
            }
        });
    }

    void do_repeat_channels(ConstTensorView x, Index n, TensorView y) override {
        const Index channels = width(x);
        write_rows(y, channels * n, [&](Index row, float* out) {
            thread_local std::vector<float> buffer;
            const float* in = read_row(x, row, channels, buffer);
            for (Index c = 0; c < channels; ++c) std::fill(out + c * n, out + (c + 1) * n, in[c]);
        });
    }

    void do_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                   Segments segments, TensorView y) override {
        cpu_linear(x, weight, bias, segments, y);
    }

    void do_project(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                    TensorView y) override {
        // A GEMM of few rows spends its time packing; dot products do not. The published casts were
        // recorded with a library that draws the line between 18 and 20 rows.
        constexpr Index few = 20;
        if (rows(x) >= few) {
            const std::array<Index, 1> all{rows(x)};
            return cpu_linear(x, weight, bias, all, y);
        }
        const Index depth = width(x);
        const Index out = width(y);
        const Index block = std::max<Index>(1, 32768 / std::max<Index>(depth, 1));
        parallel_chunks(out, block, [&](Index begin, Index end) {
            for (Index row = 0; row < rows(x); ++row) {
                float* line = y.data<float>() + row * out;
                vector_math::dot_rows(x.data<float>() + row * depth,
                                      weight.data<float>() + begin * depth,
                                      static_cast<std::size_t>(end - begin),
                                      static_cast<std::size_t>(depth), line + begin);
                if (bias.defined())
                    for (Index n = begin; n < end; ++n) line[n] += bias.data<float>()[n];
            }
        });
    }

    void do_norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec, Segments segments,
                 TensorView y, Activation activation) override {
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

    void do_activate(ConstTensorView x, Activation activation, TensorView y) override {
        map_lines(x, y, [&](const float* in, float* out, std::size_t n) {
            apply(activation, in, out, n);
        });
    }

    void do_add(TensorView x, ConstTensorView y) override {
        const Index n = line_length(x);
        write_rows(x, n, [&](Index row, float* out) {
            thread_local std::vector<float> a_buffer;
            thread_local std::vector<float> b_buffer;
            const float* a = read_row(x, row, n, a_buffer);
            const float* b = read_row(y, row, n, b_buffer);
            for (Index i = 0; i < n; ++i) out[i] = a[i] + b[i];
        });
    }

    void do_split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                      const NormSpec& spec, Segments segments, ConstTensorView rope, TensorView q,
                      TensorView k, TensorView v) override {
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
                    norm_row(in + h * head_size, w, spec, head,
                             static_cast<std::size_t>(head_size));
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

    void do_rotate(TensorView x, ConstTensorView rope, bool round_products) override {
        const Index head_size = x.size(2);
        const Index angles = rope.size(1) / 2;
        const bool round = round_products && x.dtype() == DType::bf16;
        const auto rounded = [round](float value) {
            return round ? to_float(to_bf16(value)) : value;
        };
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

    void do_attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                      const AttentionMask& mask, float scale, float soft_cap,
                      TensorView y) override {
        cpu_attention(q, k, v, mask, scale, soft_cap, y);
    }

    void do_gate_heads(TensorView o, ConstTensorView u, Index column) override {
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
                    out[h * head_size + d] =
                        in[h * head_size + d] * gates[static_cast<std::size_t>(h)];
        });
    }

    void do_swiglu7(ConstTensorView u, TensorView y) override {
        const Index n = width(y);
        write_rows(y, n, [&](Index row, float* out) {
            thread_local std::vector<float> buffer;
            vector_math::swiglu7(read_row(u, row, 2 * n, buffer), out, static_cast<std::size_t>(n));
        });
    }

    void do_gelu7(ConstTensorView u, TensorView y) override { map_lines(u, y, vector_math::gelu7); }

    void do_geglu(ConstTensorView gate, ConstTensorView up, bool round_gelu,
                  TensorView y) override {
        const Index n = width(y);
        const bool round = round_gelu && y.dtype() == DType::bf16;
        write_rows(y, n, [&](Index row, float* out) {
            thread_local std::vector<float> gate_buffer;
            thread_local std::vector<float> up_buffer;
            vector_math::gelu_tanh(read_row(gate, row, n, gate_buffer), out,
                                   static_cast<std::size_t>(n));
            const float* in = read_row(up, row, n, up_buffer);
            for (Index i = 0; i < n; ++i)
                out[i] = (round ? to_float(to_bf16(out[i])) : out[i]) * in[i];
        });
    }

    void do_snake(ConstTensorView x, ConstTensorView alpha, ConstTensorView beta,
                  TensorView y) override {
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

    void do_embed(ConstTensorView table, std::span<const std::int32_t> ids, float scale,
                  TensorView y) override {
        const Index n = width(y);
        write_rows(y, n, [&](Index row, float* out) {
            thread_local std::vector<float> buffer;
            const float* in = read_row(table, ids[static_cast<std::size_t>(row)], n, buffer);
            for (Index i = 0; i < n; ++i) out[i] = in[i] * scale;
        });
    }

    Tensor do_prepare_conv(ConstTensorView kernel, DType dtype) override {
        Tensor prepared = empty(kernel.shape(), dtype);
        do_copy(kernel, prepared);
        return prepared;
    }

    void do_conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                 const ConvSpec& spec, TensorView y) override {
        if (x.dtype() == DType::f32) return cpu_conv(x, kernel, bias, spec, y);
        Tensor wide_x = empty(x.shape());
        Tensor wide_kernel = empty(kernel.shape());
        Tensor wide_y = empty(y.shape());
        do_copy(x, wide_x);
        do_copy(kernel, wide_kernel);
        cpu_conv(wide_x, wide_kernel, bias, spec, wide_y);
        do_copy(wide_y, y);
    }

    void do_conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                           Index stride, Index pad, TensorView y) override {
        cpu_conv_transpose(x, kernel, bias, stride, pad, y);
    }

    void do_upsample_nearest(ConstTensorView x, TensorView y) override {
        const std::size_t pixel = static_cast<std::size_t>(x.size(3)) * size_of(x.dtype());
        const Index columns = x.size(2);
        const std::size_t line = static_cast<std::size_t>(2 * columns) * pixel;
        parallel_for(x.size(0) * x.size(1), [&](Index row) {
            const std::byte* from = x.raw() + static_cast<std::size_t>(row * columns) * pixel;
            std::byte* to = y.raw() + static_cast<std::size_t>(2 * row) * line;
            for (Index column = 0; column < columns; ++column)
                for (int copy = 0; copy < 2; ++copy)
                    std::memcpy(to + static_cast<std::size_t>(2 * column + copy) * pixel,
                                from + static_cast<std::size_t>(column) * pixel, pixel);
            std::memcpy(to + line, to, line);
        });
    }

    void do_combine(std::span<const Term> terms, TensorView y) override {
        float* out = y.data<float>();
        parallel_chunks(y.numel(), 16384, [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) {
                float sum = terms[0].factor * terms[0].x.data<float>()[i];
                for (std::size_t t = 1; t < terms.size(); ++t)
                    sum += terms[t].factor * terms[t].x.data<float>()[i];
                out[i] = sum;
            }
        });
    }

    void do_guide(ConstTensorView neg, ConstTensorView pos, std::span<const float> scales,
                  TensorView y) override {
        const Index frames = y.size(1);
        const Index plane = y.size(2) * y.size(3);
        parallel_for(y.size(0) * frames, [&](Index line) {
            const float g = scales[static_cast<std::size_t>(line % frames)];
            const float* n = neg.data<float>() + line * plane;
            const float* p = pos.data<float>() + line * plane;
            float* out = y.data<float>() + line * plane;
            for (Index i = 0; i < plane; ++i) out[i] = n[i] + g * (p[i] - n[i]);
        });
    }

    void do_set_first_frame(ConstTensorView frame, TensorView latent) override {
        const Index plane = latent.size(2) * latent.size(3);
        for (Index c = 0; c < latent.size(0); ++c)
            std::copy_n(frame.data<float>() + c * plane, plane,
                        latent.data<float>() + c * latent.size(1) * plane);
    }

    void do_upsample_bilinear(ConstTensorView x, TensorView y) override {
        const Index in_rows = x.size(2), in_columns = x.size(3);
        const Index out_rows = y.size(2), out_columns = y.size(3);
        const auto step = [](Index in, Index out) {
            return out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0F;
        };
        const float row_step = step(in_rows, out_rows);
        const float column_step = step(in_columns, out_columns);
        parallel_for(x.size(0) * x.size(1), [&](Index plane) {
            const float* in = x.data<float>() + plane * in_rows * in_columns;
            float* out = y.data<float>() + plane * out_rows * out_columns;
            for (Index r = 0; r < out_rows; ++r) {
                const float row = row_step * static_cast<float>(r);
                const Index r0 = std::min(static_cast<Index>(row), in_rows - 1);
                const Index r1 = std::min(r0 + 1, in_rows - 1);
                const float fr = row - static_cast<float>(r0);
                for (Index c = 0; c < out_columns; ++c) {
                    const float column = column_step * static_cast<float>(c);
                    const Index c0 = std::min(static_cast<Index>(column), in_columns - 1);
                    const Index c1 = std::min(c0 + 1, in_columns - 1);
                    const float fc = column - static_cast<float>(c0);
                    const float top =
                        (1.0F - fc) * in[r0 * in_columns + c0] + fc * in[r0 * in_columns + c1];
                    const float bottom =
                        (1.0F - fc) * in[r1 * in_columns + c0] + fc * in[r1 * in_columns + c1];
                    out[r * out_columns + c] = (1.0F - fr) * top + fr * bottom;
                }
            }
        });
    }

    void do_affine_channels(ConstTensorView x, ConstTensorView scale, ConstTensorView shift,
                            TensorView y) override {
        const Index n = width(x);
        write_rows(y, n, [&](Index row, float* out) {
            const float* in = x.data<float>() + row * n;
            for (Index c = 0; c < n; ++c)
                out[c] = in[c] * scale.data<float>()[c] + shift.data<float>()[c];
        });
    }

    void do_normal(const NoiseStream& stream, std::uint64_t first, TensorView y) override {
        parallel_chunks(y.numel(), 16384, [&](Index begin, Index end) {
            fill_normal(stream, first + static_cast<std::uint64_t>(begin),
                        {y.data<float>() + begin, static_cast<std::size_t>(end - begin)});
        });
    }

    bool do_all_finite(ConstTensorView x) override {
        bool finite = true;
        const Index n = line_length(x);
        std::vector<float> buffer;
        for (Index row = 0; row < x.numel() / std::max<Index>(n, 1); ++row) {
            const float* line = read_row(x, row, n, buffer);
            for (Index i = 0; i < n; ++i) finite &= std::isfinite(line[i]);
        }
        return finite;
    }

    void do_to_rgb8(ConstTensorView x, TensorView y) override {
        const Index n = x.size(2) * 3;
        parallel_for(x.size(0) * x.size(1), [&](Index row) {
            thread_local std::vector<float> buffer;
            const float* in = read_row(x, row, n, buffer);
            std::uint8_t* out = y.data<std::uint8_t>() + row * n;
            for (Index i = 0; i < n; ++i) {
                const float level = 0.5F * in[i] + 0.5F;
                const float clamped = level > 0 ? std::min(level, 1.0F) : 0.0F;  // NaN becomes 0
                out[i] = static_cast<std::uint8_t>(255.0F * clamped);
            }
        });
    }
};

}  // namespace

int cpu_threads() { return omp_get_max_threads(); }

std::unique_ptr<Backend> make_cpu_backend(int threads) {
    return std::make_unique<CpuBackend>(threads);
}

}  // namespace gallop
