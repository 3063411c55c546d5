#include "farm/pace.hpp"

namespace gallop {
namespace {

constexpr double window_seconds = 900;
constexpr std::size_t window_clips = 8;
constexpr double sample_seconds = 1;  ///< samples that follow faster replace each other

}  // namespace

void Pace::sample(double now, double cost, std::size_t clips) {
    if (samples_.size() > 1 && now - samples_[samples_.size() - 2].time < sample_seconds)
        samples_.back() = {now, cost, clips};
    else
        samples_.push_back({now, cost, clips});
    while (samples_.size() > 2 && now - samples_[1].time >= window_seconds &&
           samples_[1].clips + window_clips <= clips)
        samples_.pop_front();
}

double Pace::clips_per_hour() const {
    const double seconds = samples_.back().time - samples_.front().time;
    if (seconds <= 0 || samples_.back().clips <= samples_.front().clips) return 0;
    return static_cast<double>(samples_.back().clips - samples_.front().clips) * 3600 / seconds;
}

std::optional<double> Pace::seconds_left(double cost_left) const {
    const double seconds = samples_.back().time - samples_.front().time;
    const double cost = samples_.back().cost - samples_.front().cost;
    if (cost_left <= 0) return 0;
    if (seconds <= 0 || cost <= 0) return {};
    return cost_left * seconds / cost;
}

}  // namespace gallop
