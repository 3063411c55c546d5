#include "kernels/common.cuh"

namespace gallop::kernels {
namespace {

template <class T>
void gather(const Gather& a, cudaStream_t stream) {
    Index n = 1;
    for (int axis = 0; axis < a.axes; ++axis) n *= a.extents[axis];
    for_each(n, stream, "gather", [a] __device__(Index i) {
        Index from = a.offset;
        Index rest = i;
        for (int axis = a.axes - 1; axis >= 0; --axis) {
            const Index outer = quotient(rest, a.extents[axis]);
            from += (rest - outer * a.extents[axis]) * a.strides[axis];
            rest = outer;
        }
        static_cast<T*>(a.y)[i] = static_cast<const T*>(a.x)[from];
    });
}

}  // namespace

void launch(const Gather& a, cudaStream_t stream) {
    switch (a.element_bytes) {
        case 1: return gather<std::uint8_t>(a, stream);
        case 2: return gather<std::uint16_t>(a, stream);
        case 4: return gather<std::uint32_t>(a, stream);
        default: return gather<std::uint64_t>(a, stream);
    }
}

void launch(const Pad& a, cudaStream_t stream) {
    Index n = 1;
    for (const Index extent : a.y_extent) n *= extent;
    for_each(n, stream, "padding", [a] __device__(Index i) {
        Index from = 0;
        Index step = 1;  // of the axis, in x
        Index rest = i;
        bool inside = true;
        for (int axis = Pad::axes - 1; axis >= 0; --axis) {
            const Index outer = quotient(rest, a.y_extent[axis]);
            const Index at = rest - outer * a.y_extent[axis] - a.before[axis];
            inside = inside && at >= 0 && at < a.x_extent[axis];
            from += at * step;
            step *= a.x_extent[axis];
            rest = outer;
        }
        static_cast<std::uint16_t*>(a.y)[i] =
            inside ? static_cast<const std::uint16_t*>(a.x)[from] : std::uint16_t{0};
    });
}

void launch(const Convert& a, cudaStream_t stream) {
    for_each(a.n, stream, "convert", [a] __device__(Index i) { store(a.y, i, load(a.x, i)); });
}

void launch(const MeanRuns& a, cudaStream_t stream) {
    for_each(a.n, stream, "mean of channels", [a] __device__(Index i) {
        float sum = 0;
        for (Index k = 0; k < a.run; ++k) sum += load(a.x, i * a.run + k);
        store(a.y, i, sum / static_cast<float>(a.run));
    });
}

void launch(const Embed& a, cudaStream_t stream) {
    for_each(a.rows * a.width, stream, "embed", [a] __device__(Index i) {
        const Index row = a.ids[i / a.width];
        store(a.y, i, load(a.table, row * a.width + i % a.width) * a.scale);
    });
}

void launch(const UpsampleBilinear& a, cudaStream_t stream) {
    const auto step = [](Index in, Index out) {
        return out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0F;
    };
    const float row_step = step(a.rows, a.out_rows);
    const float column_step = step(a.columns, a.out_columns);
    const Index n = a.planes * a.out_rows * a.out_columns;
    for_each(n, stream, "bilinear upsampling", [a, row_step, column_step] __device__(Index i) {
        const float column = column_step * static_cast<float>(i % a.out_columns);
        const float row = row_step * static_cast<float>(i / a.out_columns % a.out_rows);
        const Index plane = i / a.out_columns / a.out_rows;
        const Index last_row = a.rows - 1;
        const Index last_column = a.columns - 1;
        const Index r0 = static_cast<Index>(row) < last_row ? static_cast<Index>(row) : last_row;
        const Index c0 =
            static_cast<Index>(column) < last_column ? static_cast<Index>(column) : last_column;
        const Index r1 = r0 < last_row ? r0 + 1 : last_row;
        const Index c1 = c0 < last_column ? c0 + 1 : last_column;
        const float fr = row - static_cast<float>(r0);
        const float fc = column - static_cast<float>(c0);
        const float* x = a.x + plane * a.rows * a.columns;
        const float top = (1.0F - fc) * x[r0 * a.columns + c0] + fc * x[r0 * a.columns + c1];
        const float bottom = (1.0F - fc) * x[r1 * a.columns + c0] + fc * x[r1 * a.columns + c1];
        a.y[i] = (1.0F - fr) * top + fr * bottom;
    });
}

void launch(const ToRgb8& a, cudaStream_t stream) {
    for_each(a.n, stream, "colour levels", [a] __device__(Index i) {
        const float level = 0.5F * load(a.x, i) + 0.5F;
        const float clamped = level > 0 ? fminf(level, 1.0F) : 0.0F;  // NaN becomes 0
        a.y[i] = static_cast<std::uint8_t>(255.0F * clamped);
    });
}

}  // namespace gallop::kernels
