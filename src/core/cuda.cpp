#include "core/cuda.hpp"

#include <string>

#include <fmt/format.h>

#include "core/error.hpp"

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

}  // namespace

void check_cuda(cudaError_t status, const char* what, const char* file, int line) {
    if (status == cudaSuccess) [[likely]]
        return;
    // Errors that can be lived with, such as too little memory, must not be met again after the next
    // launch.
    static_cast<void>(cudaGetLastError());
    const std::string text = fmt::format("{}:{}: {}: {} ({})", file, line, what,
                                         cudaGetErrorString(status), cudaGetErrorName(status));
    if (status == cudaErrorMemoryAllocation) throw OutOfMemoryError(text);
    throw DeviceError(text);
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
        throw DeviceError(
            driver == 0
                ? std::string("no CUDA driver on this machine (an NVIDIA GPU and its driver are "
                              "needed); use the CPU backend")
                : fmt::format("the CUDA driver is too old: it serves CUDA up to {} (this build "
                              "needs {}); update the driver or use the CPU backend",
                              version_text(driver), version_text(CUDART_VERSION)));
    }
    if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
        static_cast<void>(cudaGetLastError());
        throw DeviceError(
            "no GPU is visible to CUDA (look at nvidia-smi and CUDA_VISIBLE_DEVICES); use the CPU "
            "backend");
    }
    check_cuda(status, "counting the GPUs");
    if (device < 0 || device >= count)
        throw DeviceError(
            fmt::format("GPU {} does not exist ({} visible, counted from 0)", device, count));
    check_cuda(cudaSetDevice(device), "opening the GPU");
    const int major = attribute(device, cudaDevAttrComputeCapabilityMajor);
    const int minor = attribute(device, cudaDevAttrComputeCapabilityMinor);
    // sm_90a code runs on 9.0 and nothing else.
    if (major != 9 || minor != 0)
        throw DeviceError(fmt::format(
            "GPU {} has compute capability {}.{} (the kernels are compiled for 9.0: H100, "
            "H200); use the CPU backend",
            device, major, minor));
}

}  // namespace gallop
