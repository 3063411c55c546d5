#include <bit>
#include <cstring>
#include <vector>

#include "ops/cpu_backend.hpp"
#include "ops/parallel.hpp"

namespace gallop {
namespace {

static_assert(std::endian::native == std::endian::little, "10-bit samples are little-endian");

void put(std::uint8_t* plane, Index i, std::int32_t level, int bits) {
    if (bits == 8) {
        plane[i] = static_cast<std::uint8_t>(level);
    } else {
        const auto wide = static_cast<std::uint16_t>(level);
        std::memcpy(plane + 2 * i, &wide, sizeof wide);
    }
}

/// One picture. rgb: [height, width, 3]; planes as `format` has them.
void convert_picture(const std::uint8_t* rgb, Index height, Index width, const YuvFormat& format,
                     const YuvFilter& filter, std::uint8_t* planes) {
    const Index columns = format.chroma_columns(width);
    const Index rows = format.chroma_rows(height);
    std::vector<std::int16_t> between(static_cast<std::size_t>(2 * height * columns));
    std::int16_t* const between_u = between.data();
    std::int16_t* const between_v = between_u + height * columns;
    parallel_for(height, [&](Index y) {
        thread_local std::vector<YuvPixel> line;
        line.resize(static_cast<std::size_t>(width));
        for (Index x = 0; x < width; ++x) {
            const std::uint8_t* p = rgb + 3 * (y * width + x);
            line[static_cast<std::size_t>(x)] = yuv_pixel(p[0], p[1], p[2]);
            put(planes, y * width + x, yuv_luma(line[static_cast<std::size_t>(x)].y, format.bits),
                format.bits);
        }
        const YuvTaps& taps = filter.columns;
        for (Index i = 0; i < columns; ++i) {
            const std::int32_t* weights = taps.weights[taps.kind(i, columns)];
            std::int32_t u = 0;
            std::int32_t v = 0;
            for (int tap = 0; tap < taps.count; ++tap) {
                if (weights[tap] == 0) continue;
                const YuvPixel& p =
                    line[static_cast<std::size_t>(taps.step * i + taps.first + tap)];
                u += weights[tap] * p.u;
                v += weights[tap] * p.v;
            }
            between_u[y * columns + i] = static_cast<std::int16_t>(yuv_between(u));
            between_v[y * columns + i] = static_cast<std::int16_t>(yuv_between(v));
        }
    });
    std::uint8_t* const chroma = planes + width * height * format.sample_bytes();
    const YuvTaps& taps = filter.rows;
    parallel_for(2 * rows, [&](Index line) {
        const Index row = line % rows;
        const std::int16_t* const from = line < rows ? between_u : between_v;
        const std::int32_t* weights = taps.weights[taps.kind(row, rows)];
        for (Index i = 0; i < columns; ++i) {
            std::int32_t sum = 0;
            for (int tap = 0; tap < taps.count; ++tap)
                if (weights[tap] != 0)
                    sum += weights[tap] * from[(taps.step * row + taps.first + tap) * columns + i];
            put(chroma, line * columns + i, yuv_level(sum, format.bits), format.bits);
        }
    });
}

}  // namespace

void CpuBackend::do_to_yuv(ConstTensorView rgb, const YuvFormat& format, TensorView planes) {
    const YuvFilter filter = yuv_filter(format);
    for (Index t = 0; t < rgb.size(0); ++t)
        convert_picture(rgb.rows(t, t + 1).data<std::uint8_t>(), rgb.size(1), rgb.size(2), format,
                        filter, planes.rows(t, t + 1).data<std::uint8_t>());
}

}  // namespace gallop
