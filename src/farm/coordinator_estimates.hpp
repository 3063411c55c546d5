#pragma once

#include <vector>

#include "farm/coordinator_ledger.hpp"

namespace gallop::coordinator {

/// Corrects planned seconds by measured ones: log(measured / planned) = scale + bucket + host, each
/// learnt by a scalar Kalman filter that shares every measurement's surprise among the three by how
/// unsure each still is. A bucket or host not yet measured profits from the others.
class Estimates {
public:
    explicit Estimates(std::size_t buckets) : buckets_(buckets, prior_offset) {}

    /// An item took `seconds` where `planned` were planned. Both in seconds; others are ignored.
    void measured(std::uint16_t bucket, HostIndex host, double planned, double seconds);

    /// Planned seconds of the bucket times this are seconds on a host of speed 1.
    double factor(std::uint16_t bucket) const;
    /// Of the host, relative to all; 1 for an unknown one.
    double speed(HostIndex host) const;

private:
    struct Guess {
        double log;       ///< of a ratio
        double variance;  ///< of that
        double ratio;     ///< exp(log)
        void learn(double surprise, double spread, double least);
    };
    static constexpr Guess prior_scale{0, 1.0, 1};   // the cost model may be off by e
    static constexpr Guess prior_offset{0, 0.1, 1};  // a bucket or a host by 30 %
    Guess scale_ = prior_scale;
    std::vector<Guess> buckets_;
    std::vector<Guess> hosts_;
};

}  // namespace gallop::coordinator
