#pragma once

#include <vector>

#include "ops/backend.hpp"
#include "pipeline/schedule.hpp"

namespace gallop {

/// UniPC of order 2 (bh2, data prediction, flow parameterisation, lower order at the end, corrector
/// always on) for one modality. Picture and sound each have their own.
/// Source: Zhao et al., UniPC, NeurIPS 2023; FlowUniPCMultistepScheduler in scheduler_unipc.py.
class UniPc {
public:
    UniPc(NoiseLevels levels, Backend& on) : levels_(std::move(levels)), on_(on) {}

    /// Advances `sample` in place from level i to level i + 1, for i = 0, 1, … in turn. `velocity`
    /// was computed at `sample`. Both f32, same shape.
    void step(ConstTensorView velocity, TensorView sample);

private:
    void correct(TensorView sample, const Tensor& prediction);

    NoiseLevels levels_;
    Backend& on_;
    std::size_t index_ = 0;
    int order_ = 0;  ///< of the last predictor
    Tensor newest_;  ///< predictions m_{i−1}, m_{i−2}
    Tensor older_;
    Tensor corrected_;  ///< x̂_{i−1}
};

/// The distilled model's step from level i to i + 1: x₀ = x − σ v, then fresh noise z at the next
/// level: x = σ' z + (1 − σ') x₀. In place. Source: step_ddim in scheduler_unipc.py.
void renoise_step(const NoiseLevels& levels, std::size_t i, ConstTensorView velocity,
                  ConstTensorView noise, Backend& on, TensorView sample);

/// The angle-parameterised stochastic step: with φ = θ·π/2 and the next level σ',
/// x = (1 − σ' + σ' cos φ)(x − σ v) + σ' cos φ · v + σ' sin φ · z. θ = 0 is Euler's step. In place.
/// Source: step_sde in scheduler_unipc.py.
void stochastic_step(const NoiseLevels& levels, std::size_t i, double theta,
                     ConstTensorView velocity, ConstTensorView noise, Backend& on,
                     TensorView sample);

}  // namespace gallop
