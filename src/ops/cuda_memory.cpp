#include "ops/cuda_memory.hpp"

#include <algorithm>
#include <cstdint>

#include "core/check.hpp"
#include "core/cuda.hpp"

namespace gallop {

StreamMemory::StreamMemory(int device, cudaStream_t stream) : device_(device), stream_(stream) {
    check_cuda(cudaDeviceGetDefaultMemPool(&pool_, device), "opening the memory pool");
    std::uint64_t keep_all = ~std::uint64_t{0};
    check_cuda(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all),
               "setting up the memory pool");
}

std::optional<std::size_t> StreamMemory::left() const {
    check_cuda(cudaSetDevice(device_), "choosing the GPU");
    std::size_t free = 0;
    std::size_t all = 0;
    check_cuda(cudaMemGetInfo(&free, &all), "asking how much memory is left");
    std::uint64_t reserved = 0;
    std::uint64_t used = 0;
    check_cuda(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved),
               "asking what the memory pool keeps");
    check_cuda(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used),
               "asking what the memory pool keeps");
    return free + static_cast<std::size_t>(reserved - used);
}

std::byte* StreamMemory::lend(std::size_t bytes) {
    void* data = nullptr;
    const std::size_t size = std::max<std::size_t>(bytes, 1);
    cudaError_t status = cudaMallocAsync(&data, size, stream_);
    if (status == cudaErrorMemoryAllocation) {
        // What the pool keeps in pieces of the wrong sizes goes back to the device first.
        static_cast<void>(cudaGetLastError());
        check_cuda(cudaStreamSynchronize(stream_), "waiting for the device");
        check_cuda(cudaMemPoolTrimTo(pool_, 0), "trimming the memory pool");
        status = cudaMallocAsync(&data, size, stream_);
    }
    if (status != cudaSuccess)
        check_cuda(status, fmt::format("allocating {} bytes on the GPU", size).c_str());
    return static_cast<std::byte*>(data);
}

void StreamMemory::take_back(std::byte* data, std::size_t /*bytes*/) noexcept {
    static_cast<void>(cudaFreeAsync(data, stream_));
}

std::byte* PinnedPages::allocate(std::size_t bytes) {
    check_cuda(cudaSetDevice(device_), "choosing the GPU");
    void* data = nullptr;
    check_cuda(cudaHostAlloc(&data, std::max<std::size_t>(bytes, 1), cudaHostAllocDefault),
               fmt::format("pinning {} bytes of host memory", bytes).c_str());
    return static_cast<std::byte*>(data);
}

void PinnedPages::release(std::byte* data, std::size_t /*bytes*/) noexcept {
    static_cast<void>(cudaFreeHost(data));
}

}  // namespace gallop
