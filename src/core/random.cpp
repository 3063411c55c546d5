#include "core/random.hpp"

#include <cmath>

#include "core/normal.hpp"

namespace gallop {
namespace {

/// The host's own operations: this file is compiled without fusing.
struct Plain {
    static double mul(double a, double b) { return a * b; }
    static double add(double a, double b) { return a + b; }
    static double div(double a, double b) { return a / b; }
    static double sqrt(double a) { return std::sqrt(a); }
};

}  // namespace

float normal_from_bits(std::uint32_t word) { return NormalFromBits<Plain>::of(word); }

void fill_normal(const NoiseStream& stream, std::uint64_t first, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = normal_from_bits(stream.word(first + i));
}

}  // namespace gallop
