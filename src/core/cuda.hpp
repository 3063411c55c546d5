#pragma once

// Only in builds with CUDA. Read by the CUDA compiler, too: nothing here may include fmt.

#include <cuda_runtime_api.h>

#include "core/handle.hpp"

namespace gallop {

/// What a CUDA error means for who asked.
enum class CudaFault {
    none,
    memory,     ///< too little of it: the same work may succeed in smaller pieces
    no_device,  ///< this machine or driver cannot run this build at all
    busy,       ///< the device cannot be used now: another process holds it
    refused,    ///< this call was not valid or not possible here; the device is as it was
    lost,       ///< the context is gone: a kernel's fault, a hardware error; this process must end
};

/// Source: the descriptions of cudaError_t in CUDA's runtime API reference. What is not known there is
/// taken for lost.
CudaFault fault_of(cudaError_t status);

/// Throws when a CUDA call failed: OutOfMemoryError, NoDeviceError, BusyDeviceError, Error (refused) or
/// DeviceError (lost). The text says what was asked for (`what`, e.g. "copying to the device"), where,
/// and what helps.
void check_cuda(cudaError_t status, const char* what, const char* file = __builtin_FILE(),
                int line = __builtin_LINE());

/// A queue of work on the current device.
using Stream = Handle<cudaStream_t, cudaStreamDestroy>;
/// A point in a stream that others can wait for.
using Event = Handle<cudaEvent_t, cudaEventDestroy>;

/// A stream that doesn't wait for the default one. Throws DeviceError.
Stream make_stream();

/// Makes a device the current one of this thread, having looked whether it can be used; threads that wait for
/// it will sleep. Throws NoDeviceError, with the reason: there is no GPU, the driver is too old or out of reach
/// (as in a container without its files), there are fewer devices, the device is of another architecture than
/// the kernels were compiled for; BusyDeviceError, when another process holds it.
void open_device(int device);

}  // namespace gallop
