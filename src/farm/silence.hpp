#pragma once

namespace gallop {

/// How long nothing was heard of somebody. A pause of one's own is not their silence: what they said
/// meanwhile may still be on its way, or they waited as well. Times: seconds since any moment.
class Silence {
public:
    explicit Silence(double now) : heard_(now), looked_(now) {}

    void heard(double now) { heard_ = now; }

    /// Seconds of it. To be asked several times a second: a longer gap is a pause of one's own.
    double look(double now) {
        if (now - looked_ > own_pause_seconds) heard_ = now;
        looked_ = now;
        return now - heard_;
    }

private:
    static constexpr double own_pause_seconds = 3;
    double heard_;
    double looked_;
};

}  // namespace gallop
