#pragma once

// The inverse normal distribution function behind definition 1 of the noise (core/random.hpp), written
// once for the host and the device. Reads without fmt.

#include <bit>
#include <cstdint>

namespace gallop {

// M. J. Wichura, Algorithm AS 241, Applied Statistics 37 (1988), PPND16: two ratios of polynomials of
// degree 7, coefficients from the constant upwards.
struct NormalRatio {
    double p[8];
    double q[8];
};

constexpr NormalRatio normal_centre() {
    return {{3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3,
             1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
             3.3430575583588128105e+4, 2.5090809287301226727e+3},
            {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
             2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4,
             5.2264952788528545610e+3}};
}

constexpr NormalRatio normal_tail() {
    return {{1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
             3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
             2.27238449892691845833e-2, 7.74545014278341407640e-4},
            {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
             1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
             1.05075007164441684324e-9}};
}

/// The standard normal of 32 random bits. `Ieee` gives the four double-precision operations, rounded to
/// nearest and never fused: mul, add, div, sqrt.
template <class Ieee>
struct NormalFromBits {
    static constexpr double ratio(double r, const NormalRatio& of) {
        double top = of.p[7];
        double bottom = of.q[7];
        for (int k = 6; k >= 0; --k) {
            top = Ieee::add(Ieee::mul(top, r), of.p[k]);
            bottom = Ieee::add(Ieee::mul(bottom, r), of.q[k]);
        }
        return Ieee::div(top, bottom);
    }

    /// ln x for a normal double in (0, 1], from exact integer work and plain IEEE operations: with
    /// x = 2^e·m, m in [√½, √2), and s = (m−1)/(m+1), ln m = 2·(s + s³/3 + s⁵/5 + …); |s| < 0.172, so
    /// eleven terms leave less than 1e-17.
    static constexpr double log(double x) {
        const auto bits = std::bit_cast<std::uint64_t>(x);
        auto exponent = static_cast<int>(bits >> 52) - 1023;
        double m = std::bit_cast<double>((bits & 0xfffffffffffffU) | 0x3ff0000000000000U);
        if (m > 1.4142135623730951) {
            m = Ieee::mul(m, 0.5);
            ++exponent;
        }
        const double s = Ieee::div(Ieee::add(m, -1.0), Ieee::add(m, 1.0));
        const double s2 = Ieee::mul(s, s);
        double sum = 1.0 / 21.0;
        for (int k = 19; k >= 1; k -= 2) sum = Ieee::add(Ieee::mul(sum, s2), Ieee::div(1.0, k));
        return Ieee::add(Ieee::mul(exponent, 0.6931471805599453),
                         Ieee::mul(2.0, Ieee::mul(s, sum)));
    }

    static constexpr float of(std::uint32_t word) {
        const double p = Ieee::mul(Ieee::add(word, 0.5), 0x1p-32);
        const double q = Ieee::add(p, -0.5);
        if (-0.425 <= q && q <= 0.425) {
            const double r = Ieee::add(0.180625, -Ieee::mul(q, q));
            return static_cast<float>(Ieee::mul(q, ratio(r, normal_centre())));
        }
        const double r = Ieee::sqrt(-log(q < 0 ? p : Ieee::add(1.0, -p)));
        // p ≥ 2^-33, hence r < 5: the far tail of AS 241 is never reached.
        const double magnitude = ratio(Ieee::add(r, -1.6), normal_tail());
        return static_cast<float>(q < 0 ? -magnitude : magnitude);
    }
};

}  // namespace gallop
