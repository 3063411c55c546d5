#include "pipeline/fit_image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

namespace gallop {
namespace {

double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= std::numbers::pi;
    return std::sin(x) / x;
}

double lanczos3(double x) { return std::fabs(x) < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

constexpr int precision_bits = 22;

/// Which inputs make one output, and with what weights.
struct Taps {
    Index first = 0;
    std::vector<std::int32_t> weights;
};

std::vector<Taps> taps_for(Index from, Index to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const double stretch = std::max(scale, 1.0);
    const double support = 3.0 * stretch;
    std::vector<Taps> all(static_cast<std::size_t>(to));
    for (Index i = 0; i < to; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale;
        const Index first = std::max<Index>(0, static_cast<Index>(centre - support + 0.5));
        const Index last = std::min(from, static_cast<Index>(centre + support + 0.5));
        std::vector<double> weights;
        double sum = 0;
        for (Index x = first; x < last; ++x) {
            weights.push_back(lanczos3((static_cast<double>(x) - centre + 0.5) / stretch));
            sum += weights.back();
        }
        Taps& taps = all[static_cast<std::size_t>(i)];
        taps.first = first;
        for (const double weight : weights) {
            const double scaled = weight / sum * (1 << precision_bits);
            taps.weights.push_back(
                static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
        }
    }
    return all;
}

std::uint8_t to_byte(std::int64_t sum) {
    return static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> precision_bits, 0, 255));
}

/// Weighs entries of the middle axis. from: [outer, n, inner] u8 → to: [outer, taps.size(), inner].
void resample_axis(const std::uint8_t* from, Index outer, Index n, Index inner,
                   const std::vector<Taps>& taps, std::uint8_t* to) {
    const auto count = static_cast<Index>(taps.size());
    std::vector<std::int64_t> sums(static_cast<std::size_t>(inner));
    for (Index o = 0; o < outer; ++o)
        for (Index i = 0; i < count; ++i) {
            const Taps& t = taps[static_cast<std::size_t>(i)];
            std::fill(sums.begin(), sums.end(), std::int64_t{1} << (precision_bits - 1));
            for (std::size_t k = 0; k < t.weights.size(); ++k) {
                const std::uint8_t* line = from + (o * n + t.first + static_cast<Index>(k)) * inner;
                for (Index c = 0; c < inner; ++c)
                    sums[static_cast<std::size_t>(c)] += std::int64_t{line[c]} * t.weights[k];
            }
            std::uint8_t* out = to + (o * count + i) * inner;
            for (Index c = 0; c < inner; ++c) out[c] = to_byte(sums[static_cast<std::size_t>(c)]);
        }
}

void check_picture(ConstTensorView image) {
    CHECK(image.dtype() == DType::u8 && image.shape().rank() == 3 && image.size(2) == 3 &&
              image.size(0) > 0 && image.size(1) > 0,
          "a picture of shape {} (rows, columns, 3 of u8)", to_string(image.shape()));
}

}  // namespace

CropBox centre_crop(Index width, Index height, Size target) {
    Index new_width = width;
    Index new_height = height;
    if (static_cast<double>(height) / static_cast<double>(width) >
        static_cast<double>(target.height) / static_cast<double>(target.width))
        new_height = width * target.height / target.width;
    else
        new_width = height * target.width / target.height;
    const auto even = [](Index twice) {
        return static_cast<Index>(std::nearbyint(static_cast<double>(twice) / 2.0));
    };
    return {even(width - new_width), even(height - new_height), even(width + new_width),
            even(height + new_height)};
}

Tensor resize_lanczos(ConstTensorView image, Size size) {
    check_picture(image);
    const Index rows = image.size(0);
    const Index columns = image.size(1);
    Tensor narrow;
    ConstTensorView source = image;
    if (columns != size.width) {
        narrow = Tensor({rows, size.width, 3}, DType::u8);
        resample_axis(image.data<std::uint8_t>(), rows, columns, 3, taps_for(columns, size.width),
                      narrow.data<std::uint8_t>());
        source = narrow;
    }
    Tensor out({size.height, size.width, 3}, DType::u8);
    if (rows != size.height)
        resample_axis(source.data<std::uint8_t>(), 1, rows, Index{size.width} * 3,
                      taps_for(rows, size.height), out.data<std::uint8_t>());
    else
        convert(source, out);
    return out;
}

Tensor fit_image(ConstTensorView image, Size size) {
    check_picture(image);
    CropBox box{0, 0, image.size(1), image.size(0)};
    if (image.size(1) != size.width || image.size(0) != size.height)
        box = centre_crop(image.size(1), image.size(0), size);
    const Index columns = box.right - box.left;
    CHECK(columns > 0 && box.bottom > box.top,
          "a picture of {} × {} pixels is too narrow for {} × {}", image.size(1), image.size(0),
          size.width, size.height);
    Tensor cropped({box.bottom - box.top, columns, 3}, DType::u8);
    for (Index row = 0; row < cropped.size(0); ++row)
        std::memcpy(cropped.data<std::uint8_t>() + row * columns * 3,
                    image.data<std::uint8_t>() + ((box.top + row) * image.size(1) + box.left) * 3,
                    static_cast<std::size_t>(columns * 3));
    return resize_lanczos(cropped, size);
}

}  // namespace gallop
