#include "core/random.hpp"

#include <bit>
#include <cmath>

namespace gallop {
namespace {

/// ln x for a normal double in (0, 1], from exact integer work and plain IEEE operations: with
/// x = 2^e·m, m in [√½, √2), and s = (m−1)/(m+1), ln m = 2·(s + s³/3 + s⁵/5 + …); |s| < 0.172, so
/// eleven terms leave less than 1e-17.
double portable_log(double x) {
    const auto bits = std::bit_cast<std::uint64_t>(x);
    auto exponent = static_cast<int>(bits >> 52) - 1023;
    double m = std::bit_cast<double>((bits & 0xfffffffffffffU) | 0x3ff0000000000000U);
    if (m > 1.4142135623730951) {
        m = m * 0.5;
        ++exponent;
    }
    const double s = (m - 1.0) / (m + 1.0);
    const double s2 = s * s;
    double sum = 1.0 / 21.0;
    for (int k = 19; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
    return exponent * 0.6931471805599453 + 2.0 * (s * sum);
}

/// Ratio of two polynomials of degree 7, coefficients from the constant upwards.
double rational(double r, const double (&p)[8], const double (&q)[8]) {
    double top = p[7];
    double bottom = q[7];
    for (int k = 6; k >= 0; --k) {
        top = top * r + p[k];
        bottom = bottom * r + q[k];
    }
    return top / bottom;
}

// M. J. Wichura, Algorithm AS 241, Applied Statistics 37 (1988), PPND16.
constexpr double centre_p[8] = {3.3871328727963666080e0,  1.3314166789178437745e+2,
                                1.9715909503065514427e+3, 1.3731693765509461125e+4,
                                4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                3.3430575583588128105e+4, 2.5090809287301226727e+3};
constexpr double centre_q[8] = {1.0,
                                4.2313330701600911252e+1,
                                6.8718700749205790830e+2,
                                5.3941960214247511077e+3,
                                2.1213794301586595867e+4,
                                3.9307895800092710610e+4,
                                2.8729085735721942674e+4,
                                5.2264952788528545610e+3};
constexpr double tail_p[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                              5.76949722146069140550e0,  3.64784832476320460504e0,
                              1.27045825245236838258e0,  2.41780725177450611770e-1,
                              2.27238449892691845833e-2, 7.74545014278341407640e-4};
constexpr double tail_q[8] = {1.0,
                              2.05319162663775882187e0,
                              1.67638483018380384940e0,
                              6.89767334985100004550e-1,
                              1.48103976427480074590e-1,
                              1.51986665636164571966e-2,
                              5.47593808499534494600e-4,
                              1.05075007164441684324e-9};

}  // namespace

float normal_from_bits(std::uint32_t word) {
    const double p = (static_cast<double>(word) + 0.5) * 0x1p-32;
    const double q = p - 0.5;
    if (std::fabs(q) <= 0.425)
        return static_cast<float>(q * rational(0.180625 - q * q, centre_p, centre_q));
    const double r = std::sqrt(-portable_log(q < 0 ? p : 1.0 - p));
    // p ≥ 2^-33, hence r < 5: the far tail of AS 241 is never reached.
    const double magnitude = rational(r - 1.6, tail_p, tail_q);
    return static_cast<float>(q < 0 ? -magnitude : magnitude);
}

void fill_normal(const NoiseStream& stream, std::uint64_t first, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = normal_from_bits(stream.word(first + i));
}

}  // namespace gallop
