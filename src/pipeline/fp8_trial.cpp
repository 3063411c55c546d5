#include "pipeline/fp8_trial.hpp"

#include <cmath>
#include <limits>
#include <set>

#include "model/fp8.hpp"

namespace gallop {
namespace {

/// x, truth: f32 on the host.
double relative_l2(const Tensor& x, const Tensor& truth) {
    const auto values = x.span<float>();
    const auto expected = truth.span<float>();
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double e = expected[i];
        error += (values[i] - e) * (values[i] - e);
        size += e * e;
    }
    const double relative = error == 0 ? 0 : std::sqrt(error / size);
    return std::isfinite(relative) ? relative : std::numeric_limits<double>::infinity();
}

Velocity velocity_of(Transformer& network, const Fp8Case& one, Backend& on) {
    const Velocity there = network.forward({one.video, one.audio, *one.text});
    return {on.download(there.video), on.download(there.audio)};
}

}  // namespace

std::vector<Velocity> velocities_of(Transformer& network, const std::vector<Fp8Case>& cases,
                                    Backend& on) {
    std::vector<Velocity> made;
    for (const Fp8Case& one : cases) made.push_back(velocity_of(network, one, on));
    return made;
}

void Fp8Trial::put(const std::vector<Fp8Part>& parts) {
    Weights& weights = network_.weights();
    std::set<std::string> wanted;
    for (const Fp8Part& part : parts) wanted.insert(weight_name(part));
    for (auto at = kept_.begin(); at != kept_.end();) {
        if (wanted.contains(at->first)) {
            ++at;
            continue;
        }
        weights.take(at->first + std::string(fp8_scale_suffix));
        weights.put(at->first, std::move(at->second));
        at = kept_.erase(at);
    }
    for (const std::string& name : wanted) {
        if (kept_.contains(name)) continue;
        const Tensor& original = kept_.emplace(name, weights.take(name)).first->second;
        put_fp8(weights, name, original, on_);
    }
}

std::vector<Fp8Error> Fp8Trial::errors(const std::vector<Fp8Part>& parts,
                                       const std::function<void()>& each) {
    put(parts);
    std::vector<Fp8Error> made;
    for (std::size_t i = 0; i < cases_.size(); ++i) {
        const Velocity velocity = velocity_of(network_, cases_[i], on_);
        made.push_back({relative_l2(velocity.video, truth_[i].video),
                        relative_l2(velocity.audio, truth_[i].audio)});
        if (each) each();
    }
    return made;
}

}  // namespace gallop
