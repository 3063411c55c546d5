#pragma once

#include <cstdint>

namespace gallop::emulation {

/// Convolutions that the emulated cuDNN has taken in this process.
std::uint64_t cudnn_convolutions();

}  // namespace gallop::emulation
