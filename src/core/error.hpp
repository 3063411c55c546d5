#pragma once

#include <stdexcept>

namespace gallop {

/// This try failed; another try, perhaps elsewhere, may succeed.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// The request is wrong: never retry. The text starts with file:line:column where there is one.
struct InputError : Error {
    using Error::Error;
};

/// Device or host memory ran out; the same work may succeed with tiling or on more devices.
struct OutOfMemoryError : Error {
    using Error::Error;
};

/// The device context is lost: this process ends and its item goes back.
struct DeviceError : Error {
    using Error::Error;
};

}  // namespace gallop
