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
    /// What the driver has, and what the pool keeps without lending it.
    std::optional<std::size_t> left() const override;

private:
    std::byte* lend(std::size_t bytes) override;
    void take_back(std::byte* data, std::size_t bytes) noexcept override;

    int device_;
    cudaStream_t stream_;
    cudaMemPool_t pool_ = nullptr;
};

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
