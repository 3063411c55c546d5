#include "farm/coordinator_estimates.hpp"

#include <algorithm>
#include <cmath>

namespace gallop::coordinator {
namespace {

constexpr double noise = 0.01;         // one measurement is good to 10 %
constexpr double least_offset = 1e-4;  // never quite sure: machines and neighbours change

}  // namespace

void Estimates::Guess::learn(double surprise, double spread, double least) {
    const double gain = variance / spread;
    log += gain * surprise;
    variance = std::max(variance * (1 - gain), least);
    ratio = std::exp(log);
}

void Estimates::measured(std::uint16_t bucket, HostIndex host, double planned, double seconds) {
    if (!(planned > 0) || !(seconds > 0) || !std::isfinite(planned) || !std::isfinite(seconds))
        return;
    if (host >= hosts_.size()) hosts_.resize(host + std::size_t{1}, prior_offset);
    Guess& shape = buckets_[bucket];
    Guess& machine = hosts_[host];
    const double spread = scale_.variance + shape.variance + machine.variance + noise;
    // One wild measurement must not turn everything over.
    const double limit = 3 * std::sqrt(spread);
    const double surprise = std::clamp(
        std::log(seconds / planned) - scale_.log - shape.log - machine.log, -limit, limit);
    scale_.learn(surprise, spread, least_offset / 10);
    shape.learn(surprise, spread, least_offset);
    machine.learn(surprise, spread, least_offset);
}

double Estimates::factor(std::uint16_t bucket) const {
    return scale_.ratio * buckets_[bucket].ratio;
}

double Estimates::speed(HostIndex host) const {
    return host < hosts_.size() ? 1 / hosts_[host].ratio : 1;
}

}  // namespace gallop::coordinator
