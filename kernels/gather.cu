#include "kernels/runs.cuh"

namespace gallop::kernels {
namespace {

/// i / n for i < 2³¹ as a product and a shift; n from 1 to 2³¹. Source: T. Granlund, P. L. Montgomery,
/// Division by Invariant Integers using Multiplication, PLDI 1994, theorem 4.2, for 31 bits.
class Divisor {
public:
    Divisor() = default;
    explicit Divisor(Index n) {
        while ((Index{1} << (shift_ - 31)) < n) ++shift_;
        factor_ = static_cast<std::uint32_t>(((std::uint64_t{1} << shift_) + n - 1) / n);
    }
    __device__ std::uint32_t quotient(std::uint32_t i) const {
        return static_cast<std::uint32_t>((std::uint64_t{i} * factor_) >> shift_);
    }

private:
    std::uint32_t factor_ = 0;
    std::uint32_t shift_ = 31;
};

/// A gather of which every index fits 31 bits.
struct SmallGather {
    const void* x;
    void* y;
    int axes;
    Divisor divisors[Gather::most_axes];
    std::uint32_t extents[Gather::most_axes], strides[Gather::most_axes], offset;

    explicit SmallGather(const Gather& a)
        : x(a.x), y(a.y), axes(a.axes), offset(static_cast<std::uint32_t>(a.offset)) {
        for (int axis = 0; axis < axes; ++axis) {
            divisors[axis] = Divisor(a.extents[axis]);
            extents[axis] = static_cast<std::uint32_t>(a.extents[axis]);
            strides[axis] = static_cast<std::uint32_t>(a.strides[axis]);
        }
    }
};

Index elements(const Gather& a) {
    Index n = 1;
    for (int axis = 0; axis < a.axes; ++axis) n *= a.extents[axis];
    return n;
}

bool is_small(const Gather& a) {
    constexpr Index most = (Index{1} << 31) - 1;
    Index last = a.offset;
    for (int axis = 0; axis < a.axes; ++axis) {
        if (a.strides[axis] < 0) return false;
        last += (a.extents[axis] - 1) * a.strides[axis];
    }
    return elements(a) <= most && last <= most;
}

template <class T>
void gather(const Gather& a, cudaStream_t stream) {
    const Index n = elements(a);
    if (n == 0) return;
    if (is_small(a)) {
        for_each(n, stream, "gather", [a = SmallGather(a)] __device__(Index i) {
            std::uint32_t from = a.offset;
            auto rest = static_cast<std::uint32_t>(i);
            for (int axis = a.axes - 1; axis > 0; --axis) {
                const std::uint32_t outer = a.divisors[axis].quotient(rest);
                from += (rest - outer * a.extents[axis]) * a.strides[axis];
                rest = outer;
            }
            if (a.axes > 0) from += rest * a.strides[0];
            static_cast<T*>(a.y)[i] = static_cast<const T*>(a.x)[from];
        });
        return;
    }
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

/// The same without axes of one element, and with neighbours that lie as one axis as one.
Gather joined(const Gather& a) {
    Gather made = a;
    made.axes = 0;
    for (int axis = 0; axis < a.axes; ++axis) {
        const Index extent = a.extents[axis];
        const Index stride = a.strides[axis];
        if (extent == 1) continue;
        const int last = made.axes - 1;
        if (last >= 0 && made.strides[last] == extent * stride) {
            made.extents[last] *= extent;
            made.strides[last] = stride;
        } else {
            made.extents[made.axes] = extent;
            made.strides[made.axes++] = stride;
        }
    }
    return made;
}

/// The same with elements twice as wide, for as long as 16 bytes allow it and pairs lie together.
Gather widened(Gather a) {
    const auto even = [&](const void* data) {
        return reinterpret_cast<std::uintptr_t>(data) % (2 * a.element_bytes) == 0;
    };
    const int inner = a.axes - 1;
    while (inner >= 0 && a.element_bytes < 16 && a.strides[inner] == 1 &&
           a.extents[inner] % 2 == 0 && a.offset % 2 == 0 && even(a.x) && even(a.y) &&
           std::all_of(a.strides, a.strides + inner, [](Index s) { return s % 2 == 0; })) {
        a.element_bytes *= 2;
        a.extents[inner] /= 2;
        a.offset /= 2;
        for (int axis = 0; axis < inner; ++axis) a.strides[axis] /= 2;
    }
    return a;
}

template <class T>
void pad(const Pad& a, cudaStream_t stream) {
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
        static_cast<T*>(a.y)[i] = inside ? static_cast<const T*>(a.x)[from] : T{};
    });
}

}  // namespace

void launch(const Gather& given, cudaStream_t stream) {
    const Gather a = widened(joined(given));
    switch (a.element_bytes) {
        case 1: return gather<std::uint8_t>(a, stream);
        case 2: return gather<std::uint16_t>(a, stream);
        case 4: return gather<std::uint32_t>(a, stream);
        case 8: return gather<std::uint64_t>(a, stream);
        default: return gather<uint4>(a, stream);
    }
}

void launch(const Pad& given, cudaStream_t stream) {
    constexpr Index together = sizeof(uint4) / sizeof(std::uint16_t);
    constexpr int inner = Pad::axes - 1;
    const auto whole = [](Index n) { return n % together == 0; };
    if (!whole(given.x_extent[inner]) || !whole(given.y_extent[inner]) ||
        !whole(given.before[inner]) || !takes_16_bytes(given.x) || !takes_16_bytes(given.y))
        return pad<std::uint16_t>(given, stream);
    Pad a = given;
    for (Index* of : {&a.x_extent[inner], &a.y_extent[inner], &a.before[inner]}) *of /= together;
    pad<uint4>(a, stream);
}

void launch(const Convert& a, cudaStream_t stream) {
    map(a.n, stream, "convert", a.y, a.x, [] __device__(float x) { return x; });
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
