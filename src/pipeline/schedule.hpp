#pragma once

#include <vector>

namespace gallop {

/// Noise levels of N steps. Source: FlowUniPCMultistepScheduler in scheduler_unipc.py.
struct NoiseLevels {
    std::vector<float> sigmas;   ///< N + 1, falling, the last one 0
    std::vector<int> timesteps;  ///< N, trunc(1000 σ); only for the guidance switch
};

/// `steps` ≥ 1 equally spaced levels from 0.999 down, shifted once: σ = shift·s / (1 + (shift −
/// 1)·s).
NoiseLevels noise_levels(int steps, double shift);

/// The signal factors of the zero-terminal-SNR table, ascending in noise: table[0] = 0.99957…,
/// table[999] = 0. Source: ZeroSNRDDPMDiscretization in video_generate.py.
std::vector<float> zero_snr_table();

}  // namespace gallop
