#include "kernels/common.cuh"

namespace gallop::kernels {
namespace {

__device__ void put(std::uint8_t* plane, Index i, std::int32_t level, int bits) {
    if (bits == 8)
        plane[i] = static_cast<std::uint8_t>(level);
    else
        reinterpret_cast<std::uint16_t*>(plane)[i] = static_cast<std::uint16_t>(level);
}

}  // namespace

void launch(const ToYuv& a, cudaStream_t stream) {
    const YuvFilter filter = yuv_filter(a.format);
    const Index columns = a.format.chroma_columns(a.width);
    const Index rows = a.format.chroma_rows(a.height);
    const Index picture = a.format.bytes(a.width, a.height);
    const YuvTaps across = filter.columns;
    for_each(a.pictures * a.height * columns, stream, "luma", [=] __device__(Index i) {
        const Index column = i % columns;
        const Index line = i / columns;  // of all pictures
        const Index t = line / a.height;
        const Index y = line % a.height;
        const std::uint8_t* rgb = a.rgb + 3 * line * a.width;
        const auto pixel = [&](Index x) {
            return yuv_pixel(rgb[3 * x], rgb[3 * x + 1], rgb[3 * x + 2]);
        };
        const int bits = a.format.bits;
        for (Index x = across.step * column; x < across.step * (column + 1); ++x)
            put(a.planes + t * picture, y * a.width + x, yuv_luma(pixel(x).y, bits), bits);
        const std::int32_t* weights = across.weights[across.kind(column, columns)];
        std::int32_t u = 0;
        std::int32_t v = 0;
        for (int tap = 0; tap < across.count; ++tap) {
            if (weights[tap] == 0) continue;  // may lie outside
            const YuvPixel p = pixel(across.step * column + across.first + tap);
            u += weights[tap] * p.u;
            v += weights[tap] * p.v;
        }
        std::int16_t* const to = a.between + (2 * t * a.height + y) * columns + column;
        to[0] = static_cast<std::int16_t>(yuv_between(u));
        to[a.height * columns] = static_cast<std::int16_t>(yuv_between(v));
    });
    const YuvTaps down = filter.rows;
    const Index luma = a.width * a.height * a.format.sample_bytes();
    for_each(a.pictures * 2 * rows * columns, stream, "chroma", [=] __device__(Index i) {
        const Index column = i % columns;
        const Index row = i / columns % rows;
        const Index plane = i / (columns * rows);  // of all pictures
        const std::int16_t* from = a.between + plane * a.height * columns + column;
        const std::int32_t* weights = down.weights[down.kind(row, rows)];
        std::int32_t sum = 0;
        for (int tap = 0; tap < down.count; ++tap)
            if (weights[tap] != 0)
                sum += weights[tap] * from[(down.step * row + down.first + tap) * columns];
        put(a.planes + plane / 2 * picture + luma,
            plane % 2 * rows * columns + row * columns + column, yuv_level(sum, a.format.bits),
            a.format.bits);
    });
}

}  // namespace gallop::kernels
