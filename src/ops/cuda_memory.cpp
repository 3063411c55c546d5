#include "ops/cuda_memory.hpp"

#include <algorithm>
#include <cstdint>

#include "core/check.hpp"
#include "core/cuda.hpp"

namespace gallop {
namespace {

/// Room for the kernels that libraries load: those of cuDNN's attention and a few of cuBLASLt's are some
/// tens of MiB each.
constexpr std::size_t drivers_share = std::size_t{512} << 20;
/// Arrays of less don't change much in what the driver has left.
constexpr std::size_t large = std::size_t{64} << 20;

bool driver_is_short() {
    std::size_t free = 0;
    std::size_t all = 0;
    check_cuda(cudaMemGetInfo(&free, &all), "asking how much memory is left");
    return free < drivers_share;
}

/// What is not lent goes back to the driver, when all queued work is done.
void trim(cudaMemPool_t pool, cudaStream_t stream) {
    check_cuda(cudaStreamSynchronize(stream), "waiting for the device");
    check_cuda(cudaMemPoolTrimTo(pool, 0), "trimming the memory pool");
}

cudaMemPool_t pool_of(int device) {
    cudaMemPool_t pool = nullptr;
    check_cuda(cudaDeviceGetDefaultMemPool(&pool, device), "opening the memory pool");
    return pool;
}

}  // namespace

StreamMemory::StreamMemory(int device, cudaStream_t stream)
    : device_(device), stream_(stream), pool_(pool_of(device)) {
    std::uint64_t keep_all = ~std::uint64_t{0};
    check_cuda(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all),
               "setting up the memory pool");
}

std::optional<std::size_t> StreamMemory::left() const {
    check_cuda(cudaSetDevice(device_), "choosing the GPU");
    check_cuda(cudaStreamSynchronize(stream_), "waiting for the device");
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
        trim(pool_, stream_);
        status = cudaMallocAsync(&data, size, stream_);
    }
    if (status != cudaSuccess)
        check_cuda(status, fmt::format("allocating {} bytes on the GPU", size).c_str());
    if (size >= large && driver_is_short()) trim(pool_, stream_);
    return static_cast<std::byte*>(data);
}

void StreamMemory::take_back(std::byte* data, std::size_t /*bytes*/) noexcept {
    static_cast<void>(cudaFreeAsync(data, stream_));
}

bool freed_for_driver(cudaStream_t stream) {
    if (cudaStreamSynchronize(stream) != cudaSuccess || !driver_is_short()) return false;
    int device = 0;
    check_cuda(cudaGetDevice(&device), "asking for the current GPU");
    trim(pool_of(device), stream);
    return true;
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
