#pragma once

#include <cstddef>
#include <deque>
#include <optional>

namespace gallop {

/// How fast a run goes, from what was finished lately: in the last quarter of an hour, or in the
/// time of the last eight clips where they took longer. Times are seconds since any moment.
class Pace {
public:
    explicit Pace(double now) : samples_{{now, 0, 0}} {}

    /// `cost`: predicted seconds of what this attempt has finished, the finished share of items
    /// under way included; `clips`: finished by this attempt.
    void sample(double now, double cost, std::size_t clips);

    /// Clips finished an hour; 0 before the first.
    double clips_per_hour() const;
    /// Seconds until `cost_left` predicted seconds are done; nothing while nothing was measured.
    std::optional<double> seconds_left(double cost_left) const;

private:
    struct Sample {
        double time;
        double cost;
        std::size_t clips;
    };
    std::deque<Sample> samples_;  ///< oldest first, at least one
};

}  // namespace gallop
