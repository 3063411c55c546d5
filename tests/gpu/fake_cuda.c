// Machines that this one is not: preloaded before CUDA's runtime, it answers for a device as
// $GALLOP_FAKE_GPU says. "none": a driver and no GPU; "shut": a driver whose files are out of reach; "old": a driver of CUDA 11.4; "ampere": an A100; "held":
// a GPU of another process; "full": an H100 without memory; "broken": an H100 whose context is lost.

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

static int is(const char* name) {
    const char* asked = getenv("GALLOP_FAKE_GPU");
    return asked && strcmp(asked, name) == 0;
}

cudaError_t cudaGetDeviceCount(int* count) {
    *count = is("none") ? 0 : 1;
    if (is("old")) return cudaErrorInsufficientDriver;
    if (is("shut")) return cudaErrorUnknown;
    return is("none") ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = is("old") ? 11040 : 13000;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    (void)device;
    return is("held") ? cudaErrorDevicesUnavailable : cudaSuccess;
}

cudaError_t cudaInitDevice(int device, unsigned flags, unsigned which) {
    (void)device, (void)flags, (void)which;
    return is("held") ? cudaErrorDevicesUnavailable : cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr which, int device) {
    (void)device;
    *value = which == cudaDevAttrComputeCapabilityMajor ? (is("ampere") ? 8 : 9) : 0;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    (void)flags;
    *stream = 0;
    return is("broken") ? cudaErrorIllegalAddress : cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    (void)stream;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* properties, int device) {
    (void)device;
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "a GPU that is not there");
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
    (void)device;
    *pool = 0;
    return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr which, void* value) {
    (void)pool, (void)which, (void)value;
    return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep) {
    (void)pool, (void)keep;
    return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** data, size_t bytes, cudaStream_t stream) {
    (void)bytes, (void)stream;
    *data = 0;
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaGetLastError(void) { return cudaSuccess; }
