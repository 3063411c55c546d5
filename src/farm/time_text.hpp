#pragma once

#include <chrono>
#include <string>

namespace gallop {

/// Now, as 2026-11-22T06:48:01Z.
std::string utc_text();

/// A clock that only goes forward, in seconds since some moment.
inline double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace gallop
