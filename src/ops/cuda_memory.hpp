#pragma once

#include <cstddef>
#include <optional>

#include <cuda_runtime_api.h>

#include "core/memory_use.hpp"

namespace gallop {

/// Device memory from CUDA's pool, in the order of one stream: what comes back is used again by later
/// work without waiting for the device. Throws OutOfMemoryError, DeviceError.
class StreamMemory final : public CountedMemory {
public:
    StreamMemory(int device, cudaStream_t stream);

    Device device() const override { return Device::cuda; }
    /// What the driver has, and what the pool keeps without lending it. Waits for the stream: what was
    /// returned counts when the work before is done.
    std::optional<std::size_t> left() const override;

private:
    /// Leaves the driver some room for the kernels that libraries load.
    std::byte* lend(std::size_t bytes) override;
    void take_back(std::byte* data, std::size_t bytes) noexcept override;

    int device_;
    cudaStream_t stream_;
    cudaMemPool_t pool_;
};

/// What to make of a library's call that failed for no reason of its own. Libraries load their kernels when
/// they first launch them, into what CUDA's pools leave to the driver; where that is too little they name
/// another error. True when the stream is sound and the driver has little left: what the current device's
/// pool keeps without lending it was given back, so call once more; if that fails, too, memory is what was
/// missing (OutOfMemoryError). Waits for the stream.
bool freed_for_driver(cudaStream_t stream);

/// Host pages that the device's copy engines reach themselves. Throws OutOfMemoryError, DeviceError.
class PinnedPages final : public Memory {
public:
    explicit PinnedPages(int device) : device_(device) {}

    Device device() const override { return Device::cpu; }
    std::byte* allocate(std::size_t bytes) override;
    void release(std::byte* data, std::size_t bytes) noexcept override;

private:
    int device_;
};

}  // namespace gallop
