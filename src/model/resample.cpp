#include "model/resample.hpp"

#include <bit>
#include <cmath>
#include <complex>
#include <memory>
#include <numbers>
#include <vector>

#include <kissfft/kissfft.hh>

namespace gallop {
namespace {

using Complex = std::complex<double>;
using Signal = std::vector<Complex>;

std::size_t largest_prime_factor(std::size_t n) {
    std::size_t largest = 1;
    for (std::size_t p = 2; p * p <= n; ++p)
        for (; n % p == 0; n /= p) largest = p;
    return n > 1 ? n : largest;
}

/// Kissfft does a prime factor p in p² steps; from here on three transforms of a power of two are
/// faster.
constexpr std::size_t largest_direct_factor = 150;

/// Bluestein's algorithm: with jk = (j² + k² − (k − j)²)/2 the transform is a convolution with a
/// chirp.
Signal chirp_transform(const Signal& x, bool inverse) {
    const std::size_t n = x.size();
    const std::size_t size = std::bit_ceil(2 * n - 1);
    const double sign = inverse ? 1.0 : -1.0;
    Signal chirp(n);
    for (std::size_t k = 0; k < n;
         ++k)  // the square is reduced first: the angle keeps all its digits
        chirp[k] = std::polar(1.0, sign * std::numbers::pi * static_cast<double>(k * k % (2 * n)) /
                                       static_cast<double>(n));
    Signal a(size);
    Signal b(size);
    for (std::size_t k = 0; k < n; ++k) {
        a[k] = x[k] * chirp[k];
        b[k] = b[(size - k) % size] = std::conj(chirp[k]);
    }
    const kissfft<double> fft(size, false);
    Signal a_spectrum(size);
    Signal b_spectrum(size);
    fft.transform(a.data(), a_spectrum.data());
    fft.transform(b.data(), b_spectrum.data());
    for (std::size_t k = 0; k < size; ++k) a_spectrum[k] *= b_spectrum[k];
    kissfft<double>(size, true).transform(a_spectrum.data(), a.data());
    Signal y(n);
    for (std::size_t k = 0; k < n; ++k) y[k] = a[k] * chirp[k] / static_cast<double>(size);
    return y;
}

/// The discrete Fourier transform, or its inverse without the division by n.
Signal transform(const Signal& x, bool inverse) {
    if (largest_prime_factor(x.size()) > largest_direct_factor) return chirp_transform(x, inverse);
    Signal y(x.size());
    kissfft<double>(x.size(), inverse).transform(x.data(), y.data());
    return y;
}

/// Works on complex signals, so that one transform serves two real channels.
Signal resampled(const Signal& x, std::size_t samples) {
    const Signal spectrum = transform(x, false);
    const std::size_t common = std::min(x.size(), samples);
    Signal kept(samples);
    for (std::size_t k = 0; k < (common + 1) / 2; ++k) kept[k] = spectrum[k];
    for (std::size_t k = 1; k < (common + 1) / 2; ++k) kept[samples - k] = spectrum[x.size() - k];
    if (const std::size_t nyquist = common / 2; common % 2 == 0) {
        if (samples < x.size()) {  // two frequencies become one
            kept[nyquist] = spectrum[nyquist] + spectrum[x.size() - nyquist];
        } else if (samples > x.size()) {  // one becomes two
            kept[nyquist] = kept[samples - nyquist] = 0.5 * spectrum[nyquist];
        } else {
            kept[nyquist] = spectrum[nyquist];
        }
    }
    Signal y = transform(kept, true);
    for (Complex& value : y) value /= static_cast<double>(x.size());
    return y;
}

}  // namespace

Tensor resample(ConstTensorView x, Index samples) {
    CHECK(x.shape().rank() == 2 && x.size(1) > 0 && samples > 0,
          "resampling a sound of shape {} to {} samples", to_string(x.shape()), samples);
    const Index channels = x.size(0);
    const Index length = x.size(1);
    const float* in = x.data<float>();
    Tensor y({channels, samples});
    float* out = y.data<float>();
    for (Index c = 0; c < channels; c += 2) {
        const bool pair = c + 1 < channels;
        Signal signal(static_cast<std::size_t>(length));
        for (Index s = 0; s < length; ++s)
            signal[static_cast<std::size_t>(s)] = {in[c * length + s],
                                                   pair ? in[(c + 1) * length + s] : 0.0F};
        signal = resampled(signal, static_cast<std::size_t>(samples));
        for (Index s = 0; s < samples; ++s) {
            const Complex value = signal[static_cast<std::size_t>(s)];
            out[c * samples + s] = static_cast<float>(value.real());
            if (pair) out[(c + 1) * samples + s] = static_cast<float>(value.imag());
        }
    }
    return y;
}

}  // namespace gallop
