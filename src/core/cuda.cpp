#include "core/cuda.hpp"

#include <string>

#include <fmt/format.h>

#include "core/device_error.hpp"

namespace gallop {
namespace {

/// 13000 is 13.0.
std::string version_text(int version) {
    return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

int attribute(int device, cudaDeviceAttr which) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "asking what the device can do");
    return value;
}

/// What helps, behind the name of what went wrong; may be empty.
const char* hint_of(cudaError_t status) {
    switch (status) {
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidKernelImage:
        case cudaErrorUnsupportedPtxVersion:
            return "; this build's kernels are not for this GPU (CMAKE_CUDA_ARCHITECTURES)";
        case cudaErrorInsufficientDriver:
        case cudaErrorCallRequiresNewerDriver:
        case cudaErrorSystemDriverMismatch: return "; update the CUDA driver";
        case cudaErrorDevicesUnavailable:
            return "; another process holds the GPU (nvidia-smi shows which, and its compute mode)";
        case cudaErrorECCUncorrectable:
            return "; the GPU's memory is damaged: it needs a reset (nvidia-smi -q -d ECC)";
        default: break;
    }
    return fault_of(status) == CudaFault::lost ? "; the GPU's context is lost and this process "
                                                 "must end (the kernel's log names the "
                                                 "fault as an Xid)"
                                               : "";
}

/// check_cuda of a call that opens a GPU: nothing can be lost that was never there.
void check_opening(cudaError_t status, const char* what) {
    if (fault_of(status) != CudaFault::lost || status == cudaErrorECCUncorrectable)
        return check_cuda(status, what);
    static_cast<void>(cudaGetLastError());
    throw NoDeviceError(fmt::format(
        "{}: {} ({}); CUDA cannot open a GPU here: look at the driver (nvidia-smi, "
        "/dev/nvidia-uvm, the "
        "rights of /dev/nvidia*) and at the container's runtime, or use the CPU backend",
        what, cudaGetErrorString(status), cudaGetErrorName(status)));
}

}  // namespace

CudaFault fault_of(cudaError_t status) {
    switch (status) {
        case cudaSuccess: return CudaFault::none;
        case cudaErrorMemoryAllocation:
        case cudaErrorMemoryValueTooLarge: return CudaFault::memory;
        case cudaErrorInsufficientDriver:
        case cudaErrorCallRequiresNewerDriver:
        case cudaErrorNoDevice:
        case cudaErrorInvalidDevice:
        case cudaErrorDeviceNotLicensed:
        case cudaErrorInitializationError:
        case cudaErrorStubLibrary:
        case cudaErrorSystemNotReady:
        case cudaErrorSystemDriverMismatch:
        case cudaErrorCompatNotSupportedOnDevice:
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidKernelImage:
        case cudaErrorUnsupportedPtxVersion: return CudaFault::no_device;
        case cudaErrorDevicesUnavailable: return CudaFault::busy;
        case cudaErrorInvalidValue:
        case cudaErrorInvalidConfiguration:
        case cudaErrorInvalidDeviceFunction:
        case cudaErrorInvalidDevicePointer:
        case cudaErrorInvalidMemcpyDirection:
        case cudaErrorInvalidPitchValue:
        case cudaErrorInvalidSymbol:
        case cudaErrorInvalidResourceHandle:
        case cudaErrorLaunchOutOfResources:
        case cudaErrorNotSupported:
        case cudaErrorNotPermitted:
        case cudaErrorSymbolNotFound: return CudaFault::refused;
        default: return CudaFault::lost;
    }
}

void check_cuda(cudaError_t status, const char* what, const char* file, int line) {
    if (status == cudaSuccess) [[likely]]
        return;
    // Errors that can be lived with, such as too little memory, must not be met again after the next
    // launch.
    static_cast<void>(cudaGetLastError());
    const std::string text =
        fmt::format("{}:{}: {}: {} ({}){}", file, line, what, cudaGetErrorString(status),
                    cudaGetErrorName(status), hint_of(status));
    switch (fault_of(status)) {
        case CudaFault::memory: throw OutOfMemoryError(text);
        case CudaFault::no_device: throw NoDeviceError(text);
        case CudaFault::busy: throw BusyDeviceError(text);
        case CudaFault::refused: throw Error(text);
        default: throw DeviceError(text);
    }
}

Stream make_stream() {
    Stream stream;
    check_cuda(cudaStreamCreateWithFlags(stream.out(), cudaStreamNonBlocking), "making a stream");
    return stream;
}

void open_device(int device) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaErrorInsufficientDriver) {
        static_cast<void>(cudaGetLastError());
        int driver = 0;
        static_cast<void>(cudaDriverGetVersion(&driver));
        // Without a driver, too, CUDA calls it insufficient.
        throw NoDeviceError(
            driver == 0
                ? std::string("no CUDA driver on this machine (an NVIDIA GPU and its driver are "
                              "needed); use the CPU backend")
                : fmt::format("the CUDA driver is too old: it serves CUDA up to {} (this build "
                              "needs {}); update the driver or use the CPU backend",
                              version_text(driver), version_text(CUDART_VERSION)));
    }
    if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
        static_cast<void>(cudaGetLastError());
        throw NoDeviceError(
            "no GPU is visible to CUDA (look at nvidia-smi and CUDA_VISIBLE_DEVICES); use the CPU "
            "backend");
    }
    check_opening(status, "counting the GPUs");
    if (device < 0 || device >= count)
        throw NoDeviceError(
            fmt::format("GPU {} does not exist ({} visible, counted from 0)", device, count));
    // A thread that waits for the device sleeps: the cores are for writing clips.
    check_opening(
        cudaInitDevice(device, cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid),
        "opening the GPU");
    check_opening(cudaSetDevice(device), "opening the GPU");
    const int major = attribute(device, cudaDevAttrComputeCapabilityMajor);
    const int minor = attribute(device, cudaDevAttrComputeCapabilityMinor);
    if (!architectures_serve(GALLOP_CUDA_ARCHITECTURES, major, minor))
        throw NoDeviceError(fmt::format(
            "GPU {} has compute capability {}.{} (this build's kernels are compiled for "
            "{}; H100 and H200 are 9.0); build for it (CMAKE_CUDA_ARCHITECTURES) or use "
            "the CPU backend",
            device, major, minor, GALLOP_CUDA_ARCHITECTURES));
}

}  // namespace gallop
