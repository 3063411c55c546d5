#pragma once

#include <cstddef>
#include <cstdint>

// What a test may learn from the emulated GPU's runtime, and do to it.

namespace gallop::emulation {

/// What was asked so far of all that holds up the host, or may.
struct Calls {
    std::uint64_t waits = 0;  ///< for a stream or an event
    std::uint64_t allocations =
        0;  ///< of device memory and of pinned memory; returns of the latter
    std::uint64_t pageable_copies = 0;  ///< from or to memory that the copy engines don't reach
    bool operator==(const Calls&) const = default;
};
Calls calls();

/// Kernels launched so far.
std::uint64_t launches();

/// While it lives, kernels fault from the `launch`-th one from now on (1: the next): the context is lost. When
/// it goes the GPU works again, but what was returned meanwhile stays lent.
class Fault {
public:
    explicit Fault(std::uint64_t launch);
    ~Fault();
    Fault(const Fault&) = delete;
    Fault& operator=(const Fault&) = delete;
};

/// While it lives, the GPU has room for so many bytes more than are lent now.
class LittleMemory {
public:
    explicit LittleMemory(std::size_t left);
    ~LittleMemory();
    LittleMemory(const LittleMemory&) = delete;
    LittleMemory& operator=(const LittleMemory&) = delete;

private:
    std::size_t before_;
};

}  // namespace gallop::emulation
