#pragma once

// Only in builds with CUDA. Read by the CUDA compiler, too: nothing here may include fmt.

#include <cuda_runtime_api.h>

#include "core/handle.hpp"

namespace gallop {

/// Throws when a CUDA call failed: OutOfMemoryError when memory ran out, else DeviceError. The text
/// says what was asked for (`what`, e.g. "copying to the device") and where.
void check_cuda(cudaError_t status, const char* what, const char* file = __builtin_FILE(),
                int line = __builtin_LINE());

/// A queue of work on the current device.
using Stream = Handle<cudaStream_t, cudaStreamDestroy>;
/// A point in a stream that others can wait for.
using Event = Handle<cudaEvent_t, cudaEventDestroy>;

/// A stream that doesn't wait for the default one. Throws DeviceError.
Stream make_stream();

/// Makes a device the current one of this thread, having looked whether it can be used. Throws
/// DeviceError, with the reason: there is no GPU, the driver is too old, there are fewer devices, the
/// device is of another architecture than the kernels were compiled for.
void open_device(int device);

}  // namespace gallop
