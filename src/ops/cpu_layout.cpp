// What moves, repeats or resamples values on the CPU.
#include <array>
#include <cstring>

#include "ops/cpu_backend.hpp"
#include "ops/cpu_rows.hpp"

namespace gallop {
namespace {

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

}  // namespace

void CpuBackend::do_permute(ConstTensorView x, const Shape& shape, std::span<const int> order,
                            TensorView y) {
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

void CpuBackend::do_columns(ConstTensorView x, Index begin, TensorView y) {
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

void CpuBackend::do_mean_channels(ConstTensorView x, Index n, TensorView y) {
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

void CpuBackend::do_repeat_channels(ConstTensorView x, Index n, TensorView y) {
    const Index channels = width(x);
    write_rows(y, channels * n, [&](Index row, float* out) {
        thread_local std::vector<float> buffer;
        const float* in = read_row(x, row, channels, buffer);
        for (Index c = 0; c < channels; ++c) std::fill(out + c * n, out + (c + 1) * n, in[c]);
    });
}

void CpuBackend::do_embed(ConstTensorView table, std::span<const std::int32_t> ids, float scale,
                          TensorView y) {
    const Index n = width(y);
    write_rows(y, n, [&](Index row, float* out) {
        thread_local std::vector<float> buffer;
        const float* in = read_row(table, ids[static_cast<std::size_t>(row)], n, buffer);
        for (Index i = 0; i < n; ++i) out[i] = in[i] * scale;
    });
}

void CpuBackend::do_upsample_nearest(ConstTensorView x, TensorView y) {
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

void CpuBackend::do_upsample_bilinear(ConstTensorView x, TensorView y) {
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

void CpuBackend::do_to_rgb8(ConstTensorView x, TensorView y) {
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

}  // namespace gallop
