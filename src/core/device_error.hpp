#pragma once

#include <string_view>

#include "core/error.hpp"

namespace gallop {

/// This machine has no device that this build can use: no GPU, a driver that is too old, another
/// architecture. Asking again here changes nothing; the text says what would.
struct NoDeviceError : DeviceError {
    using DeviceError::DeviceError;
};

/// The device can be used, but not now: another process holds it. Later it may be free.
struct BusyDeviceError : NoDeviceError {
    using NoDeviceError::NoDeviceError;
};

/// With which status a renderer ends that has lost its device or whose memory is in pieces; it has
/// told its agent before, unless it could not speak any more.
inline constexpr int device_lost_status = 75;

/// Whether code compiled for `architectures`, as CMake lists them ("80-real;90a-real;100"), runs on a
/// device of that compute capability: machine code serves its own major version from its minor
/// version on, "a" code its own version alone, and what is not "-real" also carries PTX, which every
/// later device translates.
bool architectures_serve(std::string_view architectures, int major, int minor);

}  // namespace gallop
