// CUDA's runtime API, as far as the engine calls it, on an emulated GPU of compute capability 9.0.

#include "emulation/runtime.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include <cuda_runtime_api.h>

#include "emulation/chance.hpp"
#include "emulation/device_memory.hpp"
#include "emulation/queue.hpp"

namespace {

using namespace gallop::emulation;
using Clock = std::chrono::steady_clock;
using Lock = std::lock_guard<std::recursive_mutex>;

struct EmulatedEvent {
    Place place;
    std::shared_ptr<Clock::time_point> when = std::make_shared<Clock::time_point>();
};

/// Arrays of pinned host memory: where each begins, and its bytes.
std::map<const std::byte*, std::size_t>& pinned() {
    static std::map<const std::byte*, std::size_t> all;
    return all;
}

/// Whether the copy engines read and write there themselves.
bool reached_by_device(const void* data) {
    if (is_device_memory(data)) return true;
    const auto* at = static_cast<const std::byte*>(data);
    auto after = pinned().upper_bound(at);
    if (after == pinned().begin()) return false;
    --after;
    return at < after->first + after->second;
}

std::map<cudaStream_t, std::shared_ptr<Queue>>& streams() {
    static std::map<cudaStream_t, std::shared_ptr<Queue>> all;
    return all;
}

/// Bytes that the memory pool has of the driver: what was lent at most since it was trimmed.
std::size_t& pool_bytes() {
    static std::size_t bytes = 0;
    return bytes;
}

Calls counted;

EmulatedEvent& of(cudaEvent_t event) { return *reinterpret_cast<EmulatedEvent*>(event); }

/// `pieces` lines of `bytes`, each so far from the one before.
cudaError_t copy(void* to, std::size_t to_step, const void* from, std::size_t from_step,
                 std::size_t bytes, std::size_t pieces, cudaStream_t stream) {
    const auto moved = [to, to_step, from_step, bytes, pieces](const std::byte* source) {
        for (std::size_t i = 0; i < pieces; ++i)
            std::memcpy(static_cast<std::byte*>(to) + i * to_step, source + i * from_step, bytes);
    };
    if (!reached_by_device(from) || !reached_by_device(to)) ++counted.pageable_copies;
    if (!reached_by_device(from)) {
        // Pageable memory is the caller's again when the call returns.
        const auto* host = static_cast<const std::byte*>(from);
        const std::vector<std::byte> staged(host, host + (pieces - 1) * from_step + bytes);
        return enqueue(stream, [moved, staged] { moved(staged.data()); });
    }
    const cudaError_t status =
        enqueue(stream, [moved, from] { moved(static_cast<const std::byte*>(from)); });
    // What goes to pageable memory is there when the call returns.
    return reached_by_device(to) ? status : reach(end_of(stream));
}

/// New memory of some kind.
cudaError_t lent(void* data) {
    ++counted.allocations;
    return remember(data == nullptr ? cudaErrorMemoryAllocation : context_state());
}

}  // namespace

namespace gallop::emulation {

Calls calls() {
    const Lock lock(device_mutex());
    return counted;
}

LittleMemory::LittleMemory(std::size_t left) : before_(device_memory_size()) {
    const Lock lock(device_mutex());
    static_cast<void>(reach_all());
    resize_device_memory(device_memory_used() + left);
    pool_bytes() = device_memory_used();  // it never had more
}
LittleMemory::~LittleMemory() {
    const Lock lock(device_mutex());
    resize_device_memory(before_);
}

}  // namespace gallop::emulation

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaInitDevice(int device, unsigned /*flags*/, unsigned /*which*/) {
    return remember(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaSetDevice(int device) {
    return remember(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int /*device*/) {
    switch (which) {
        case cudaDevAttrComputeCapabilityMajor: *value = 9; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
        default: return remember(cudaErrorInvalidValue);
    }
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int /*device*/) {
    *properties = {};
    std::strcpy(properties->name, "emulated GPU");
    properties->major = 9;
    properties->totalGlobalMem = device_memory_size();
    properties->multiProcessorCount = 1;
    return cudaSuccess;
}

cudaError_t cudaGetLastError() { return take_last_error(); }
const char* cudaGetErrorName(cudaError_t status) {
    switch (status) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
        case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
        case cudaErrorNotReady: return "cudaErrorNotReady";
        default: return "another error";
    }
}
const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorMemoryAllocation ? "out of memory" : cudaGetErrorName(status);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
    const Lock lock(device_mutex());
    const std::shared_ptr<Queue> made = make_queue();
    *stream = reinterpret_cast<cudaStream_t>(made.get());
    streams()[*stream] = made;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const Lock lock(device_mutex());
    drop_queue(streams().at(stream));
    streams().erase(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const Lock lock(device_mutex());
    ++counted.waits;
    return remember(reach(end_of(stream)));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
    const Lock lock(device_mutex());
    wait_for(stream, of(event).place);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
    *event = reinterpret_cast<cudaEvent_t>(new EmulatedEvent);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const Lock lock(device_mutex());
    delete &of(event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const Lock lock(device_mutex());
    const cudaError_t status = enqueue(stream, [when = of(event).when] { *when = Clock::now(); });
    of(event).place = end_of(stream);
    return remember(status);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    const Lock lock(device_mutex());
    const Place& place = of(event).place;
    if (!place.queue || place.queue->done >= place.number) return remember(context_state());
    // Whoever asks again and again sees an end.
    if (chance()() % 2 == 0) static_cast<void>(reach({place.queue, place.queue->done + 1}));
    return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const Lock lock(device_mutex());
    ++counted.waits;
    return remember(reach(of(event).place));
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    const Lock lock(device_mutex());
    *milliseconds =
        std::chrono::duration<float, std::milli>(*of(end).when - *of(begin).when).count();
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int /*device*/) {
    static int only;
    *pool = reinterpret_cast<cudaMemPool_t>(&only);
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr which, void* value) {
    const Lock lock(device_mutex());
    const std::uint64_t bytes =
        which == cudaMemPoolAttrReservedMemCurrent ? pool_bytes() : device_memory_used();
    std::memcpy(value, &bytes, sizeof bytes);
    return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) {
    const Lock lock(device_mutex());
    pool_bytes() = device_memory_used();
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* all) {
    const Lock lock(device_mutex());
    *all = device_memory_size();
    *free = *all - std::min(*all, pool_bytes());
    return remember(context_state());
}
cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t /*stream*/) {
    const Lock lock(device_mutex());
    *data = take_device_memory(bytes);
    if (*data == nullptr) {
        static_cast<void>(reach_all());  // what is on its way back counts
        *data = take_device_memory(bytes);
    }
    pool_bytes() = std::max(pool_bytes(), device_memory_used());
    return lent(*data);
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
    const Lock lock(device_mutex());
    return remember(enqueue(stream, [data] { return_device_memory(data); }));
}
cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned /*flags*/) {
    const Lock lock(device_mutex());
    *data = std::malloc(bytes);
    pinned()[static_cast<const std::byte*>(*data)] = bytes;
    return lent(*data);
}
cudaError_t cudaFreeHost(void* data) {
    const Lock lock(device_mutex());
    ++counted.allocations;
    static_cast<void>(reach_all());
    pinned().erase(static_cast<const std::byte*>(data));
    std::free(data);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind /*kind*/,
                            cudaStream_t stream) {
    const Lock lock(device_mutex());
    return remember(copy(to, bytes, from, bytes, bytes, 1, stream));
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_step, const void* from,
                              std::size_t from_step, std::size_t width, std::size_t height,
                              cudaMemcpyKind /*kind*/, cudaStream_t stream) {
    const Lock lock(device_mutex());
    if (width > to_step || width > from_step) return remember(cudaErrorInvalidPitchValue);
    if (height == 0) return cudaSuccess;
    return remember(copy(to, to_step, from, from_step, width, height, stream));
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
    const Lock lock(device_mutex());
    return remember(enqueue(stream, [data, value, bytes] { std::memset(data, value, bytes); }));
}

}  // extern "C"
