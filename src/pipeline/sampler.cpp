#include "pipeline/sampler.hpp"

#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace gallop {
namespace {

/// Half the log signal-to-noise ratio of a level.
double lambda(double sigma) { return std::log(1.0 - sigma) - std::log(sigma); }

template <std::size_t N>
void combine(Backend& on, const std::array<Term, N>& terms, TensorView y) {
    on.combine(terms, y);
}

float f(double value) { return static_cast<float>(value); }

}  // namespace

void UniPc::step(ConstTensorView velocity, TensorView sample) {
    const std::size_t steps = levels_.timesteps.size();
    CHECK(index_ < steps, "step {} of {}", index_ + 1, steps);
    const double sigma = levels_.sigmas[index_];
    const double next = levels_.sigmas[index_ + 1];

    Tensor prediction = on_.empty(sample.shape());  // m_i = x_i − σ_i v_i, at the uncorrected x_i
    combine(on_, std::array<Term, 2>{{{1.0F, sample}, {f(-sigma), velocity}}}, prediction);
    if (index_ > 0) correct(sample, prediction);
    if (!corrected_.defined()) corrected_ = on_.empty(sample.shape());
    on_.copy(sample, corrected_);

    if (next == 0.0) {
        // h = ∞: only the prediction is left.
        on_.copy(prediction, sample);
    } else {
        order_ = index_ > 0 && index_ + 2 <= steps ? 2 : 1;
        const double h = lambda(next) - lambda(sigma);
        const double alpha_e = (1.0 - next) * std::expm1(-h);
        if (order_ == 1) {
            combine(on_,
                    std::array<Term, 2>{{{f(next / sigma), corrected_}, {f(-alpha_e), prediction}}},
                    sample);
        } else {
            const double r = (lambda(levels_.sigmas[index_ - 1]) - lambda(sigma)) / h;
            const double half = 0.5 * alpha_e / r;
            combine(on_,
                    std::array<Term, 3>{{{f(next / sigma), corrected_},
                                         {f(half - alpha_e), prediction},
                                         {f(-half), newest_}}},
                    sample);
        }
    }
    older_ = std::move(newest_);
    newest_ = std::move(prediction);
    ++index_;
}

void UniPc::correct(TensorView sample, const Tensor& prediction) {
    const double sigma = levels_.sigmas[index_];
    const double before = levels_.sigmas[index_ - 1];
    const double h = lambda(sigma) - lambda(before);
    const double e = std::expm1(-h);
    const double alpha_e = (1.0 - sigma) * e;
    const float carry = f(sigma / before);
    if (order_ == 1) {
        combine(on_,
                std::array<Term, 3>{{{carry, corrected_},
                                     {f(-0.5 * alpha_e), newest_},
                                     {f(-0.5 * alpha_e), prediction}}},
                sample);
        return;
    }
    const double r = (lambda(levels_.sigmas[index_ - 2]) - lambda(before)) / h;
    const double phi_1 = e / -h - 1.0;
    const double b_1 = phi_1 / e;
    const double phi_2 = phi_1 / -h - 0.5;
    const double b_2 = 2.0 * phi_2 / e;
    const double rho_1 = (b_1 - b_2) / (1.0 - r);
    const double rho_2 = b_1 - rho_1;
    // −αe·(m_{i−1} + ρ₁(m_{i−2} − m_{i−1})/r + ρ₂(m_i − m_{i−1}))
    combine(on_,
            std::array<Term, 4>{{{carry, corrected_},
                                 {f(-alpha_e * (1.0 - rho_1 / r - rho_2)), newest_},
                                 {f(-alpha_e * rho_1 / r), older_},
                                 {f(-alpha_e * rho_2), prediction}}},
            sample);
}

void renoise_step(const NoiseLevels& levels, std::size_t i, ConstTensorView velocity,
                  ConstTensorView noise, Backend& on, TensorView sample) {
    const double sigma = levels.sigmas[i];
    const double next = levels.sigmas[i + 1];
    combine(on,
            std::array<Term, 3>{
                {{f(1.0 - next), sample}, {f(-(1.0 - next) * sigma), velocity}, {f(next), noise}}},
            sample);
}

void stochastic_step(const NoiseLevels& levels, std::size_t i, double theta,
                     ConstTensorView velocity, ConstTensorView noise, Backend& on,
                     TensorView sample) {
    const double sigma = levels.sigmas[i];
    const double next = levels.sigmas[i + 1];
    const double phi = theta * std::numbers::pi / 2.0;
    const double keep = 1.0 - next + next * std::cos(phi);
    combine(on,
            std::array<Term, 3>{{{f(keep), sample},
                                 {f(next * std::cos(phi) - keep * sigma), velocity},
                                 {f(next * std::sin(phi)), noise}}},
            sample);
}

}  // namespace gallop
