#include "pipeline/schedule.hpp"

#include <cmath>

#include "core/check.hpp"

namespace gallop {

NoiseLevels noise_levels(int steps, double shift) {
    CHECK(steps >= 1, "{} steps (at least 1)", steps);
    constexpr double highest = 0.9990000128746033;  // the single nearest 0.999
    NoiseLevels levels;
    for (int i = 0; i < steps; ++i) {
        const double s = highest * (1.0 - static_cast<double>(i) / steps);
        const double sigma = shift * s / (1.0 + (shift - 1.0) * s);
        levels.sigmas.push_back(static_cast<float>(sigma));
        levels.timesteps.push_back(static_cast<int>(sigma * 1000.0));
    }
    levels.sigmas.push_back(0.0F);
    return levels;
}

std::vector<float> zero_snr_table() {
    constexpr int count = 1000;
    const double start = std::sqrt(0.00085);
    const double end = std::sqrt(0.0120);
    std::vector<float> table;
    double product = 1.0;
    for (int k = 0; k < count; ++k) {
        const double root = start + (end - start) * k / (count - 1);
        product *= 1.0 - root * root;
        table.push_back(std::sqrt(static_cast<float>(product)));
    }
    // The rescaling is done in single precision, as the reference does.
    const float first = table.front();
    const float last = table.back();
    for (float& value : table) value = (value - last) * (first / (first - last));
    return table;
}

}  // namespace gallop
