#pragma once

#include <cstddef>

// The emulated GPU's memory: out of the host's reach but while the GPU works; new and returned arrays are
// full of NaN, and what a kernel writes beside one is found when it is returned.

namespace gallop::emulation {

/// While one lives, device memory can be read and written.
class OpenMemory {
public:
    OpenMemory();
    ~OpenMemory();
    OpenMemory(const OpenMemory&) = delete;
    OpenMemory& operator=(const OpenMemory&) = delete;
};

/// An array at a multiple of 256 bytes; null when the GPU has no room.
void* take_device_memory(std::size_t bytes);
/// Throws std::logic_error when something was written beside it, or when it isn't an array.
void return_device_memory(void* data);
bool is_device_memory(const void* data);
std::size_t device_memory_used();
std::size_t device_memory_size();
void resize_device_memory(std::size_t bytes);

}  // namespace gallop::emulation
