#include "model/resample.hpp"

#include <algorithm>
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

/// e^(±2πi·part/whole), + for the inverse.
Complex root(std::size_t part, std::size_t whole, bool inverse) {
    return std::polar(1.0, (inverse ? 2.0 : -2.0) * std::numbers::pi * static_cast<double>(part) /
                               static_cast<double>(whole));
}

/// The discrete Fourier transform of one length, or its inverse without the division by it.
class Transform {
public:
    virtual ~Transform() = default;
    /// x, y: n values each, not the same.
    virtual void run(const Complex* x, Complex* y) = 0;
};

std::unique_ptr<Transform> make_transform(std::size_t n, bool inverse);

/// Kissfft, for lengths of small prime factors: a factor p costs it p² steps.
class Direct final : public Transform {
public:
    Direct(std::size_t n, bool inverse) : fft_(n, inverse) {}
    void run(const Complex* x, Complex* y) override { fft_.transform(x, y); }

private:
    kissfft<double> fft_;
};

/// Bluestein's algorithm, for a large prime length: by jk = (j² + k² − (k − j)²)/2 the transform is
/// a convolution with a chirp, done by transforms of a power of two.
class Chirp final : public Transform {
public:
    Chirp(std::size_t n, bool inverse)
        : n_(n),
          size_(std::bit_ceil(2 * n - 1)),
          forward_(size_, false),
          backward_(size_, true),
          chirp_(n),
          spectrum_(size_),
          padded_(size_),
          work_(size_) {
        for (std::size_t k = 0; k < n; ++k)  // the square is reduced: the angle keeps its digits
            chirp_[k] = root(k * k % (2 * n), 2 * n, inverse);
        for (std::size_t k = 0; k < n; ++k)
            work_[k] = work_[(size_ - k) % size_] =
                std::conj(chirp_[k]) / static_cast<double>(size_);
        forward_.transform(work_.data(), spectrum_.data());
    }

    void run(const Complex* x, Complex* y) override {
        for (std::size_t k = 0; k < n_; ++k) padded_[k] = x[k] * chirp_[k];
        std::fill(padded_.begin() + static_cast<std::ptrdiff_t>(n_), padded_.end(), Complex());
        forward_.transform(padded_.data(), work_.data());
        for (std::size_t k = 0; k < size_; ++k) work_[k] *= spectrum_[k];
        backward_.transform(work_.data(), padded_.data());
        for (std::size_t k = 0; k < n_; ++k) y[k] = padded_[k] * chirp_[k];
    }

private:
    std::size_t n_;
    std::size_t size_;
    kissfft<double> forward_;
    kissfft<double> backward_;
    Signal chirp_;
    Signal spectrum_;
    Signal padded_;
    Signal work_;
};

/// One step of Cooley and Tukey's, n = p·q: q transforms of p values that lie q apart, then p of q.
class Split final : public Transform {
public:
    Split(std::size_t p, std::size_t q, bool inverse)
        : p_(p),
          q_(q),
          inverse_(inverse),
          outer_(make_transform(p, inverse)),
          inner_(make_transform(q, inverse)) {}

    void run(const Complex* x, Complex* y) override {
        Signal rows(p_ * q_);
        Signal in(std::max(p_, q_));
        Signal out(std::max(p_, q_));
        for (std::size_t j = 0; j < q_; ++j) {
            for (std::size_t i = 0; i < p_; ++i) in[i] = x[i * q_ + j];
            outer_->run(in.data(), out.data());
            for (std::size_t k = 0; k < p_; ++k)
                rows[k * q_ + j] = out[k] * root(j * k, p_ * q_, inverse_);
        }
        for (std::size_t k = 0; k < p_; ++k) {
            inner_->run(rows.data() + k * q_, out.data());
            for (std::size_t i = 0; i < q_; ++i) y[k + i * p_] = out[i];
        }
    }

private:
    std::size_t p_;
    std::size_t q_;
    bool inverse_;
    std::unique_ptr<Transform> outer_;
    std::unique_ptr<Transform> inner_;
};

/// From here on a prime factor is faster by its chirp.
constexpr std::size_t largest_direct_factor = 50;

std::unique_ptr<Transform> make_transform(std::size_t n, bool inverse) {
    const std::size_t p = largest_prime_factor(n);
    if (p <= largest_direct_factor) return std::make_unique<Direct>(n, inverse);
    if (p == n) return std::make_unique<Chirp>(n, inverse);
    return std::make_unique<Split>(p, n / p, inverse);
}

Signal transform(const Signal& x, bool inverse) {
    Signal y(x.size());
    make_transform(x.size(), inverse)->run(x.data(), y.data());
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

std::future<Tensor> resample_aside(Tensor sound) {
    return std::async(std::launch::async, [sound = std::move(sound)] {
        return resample(sound, sound.size(1) * resample_up / resample_down);
    });
}

}  // namespace gallop
