#include "core/cuda.hpp"

#include <string>
#include <typeinfo>

#include <gmock/gmock.h>

#include "core/device_error.hpp"

// How CUDA's errors are told apart; none of it needs a GPU.

namespace gallop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// The type and text of what check_cuda throws.
std::pair<const std::type_info*, std::string> thrown(cudaError_t status) {
    try {
        check_cuda(status, "trying", "some.cpp", 7);
    } catch (const Error& error) {
        return {&typeid(error), error.what()};
    }
    return {nullptr, ""};
}

void expect_thrown(cudaError_t status, const std::type_info& type, const char* hint) {
    const auto [what, text] = thrown(status);
    ASSERT_NE(what, nullptr) << cudaGetErrorName(status);
    EXPECT_STREQ(what->name(), type.name()) << text;
    EXPECT_THAT(text, AllOf(HasSubstr("some.cpp:7: trying"), HasSubstr(cudaGetErrorName(status)),
                            HasSubstr(hint)));
}

TEST(CudaErrors, SuccessThrowsNothing) { EXPECT_NO_THROW(check_cuda(cudaSuccess, "trying")); }

TEST(CudaErrors, TooLittleMemoryCanBeMetBySmallerPieces) {
    expect_thrown(cudaErrorMemoryAllocation, typeid(OutOfMemoryError), "out of memory");
}

TEST(CudaErrors, WhatThisMachineCannotRunIsNoFaultOfTheItem) {
    expect_thrown(cudaErrorNoDevice, typeid(NoDeviceError), "no CUDA-capable device");
    expect_thrown(cudaErrorInsufficientDriver, typeid(NoDeviceError), "update the CUDA driver");
    expect_thrown(cudaErrorSystemDriverMismatch, typeid(NoDeviceError), "update the CUDA driver");
    expect_thrown(cudaErrorNoKernelImageForDevice, typeid(NoDeviceError),
                  "CMAKE_CUDA_ARCHITECTURES");
}

TEST(CudaErrors, AGpuThatAnotherProcessHoldsMayBeFreeLater) {
    expect_thrown(cudaErrorDevicesUnavailable, typeid(BusyDeviceError), "another process");
}

TEST(CudaErrors, ARefusedCallLeavesTheDeviceAsItWas) {
    expect_thrown(cudaErrorInvalidValue, typeid(Error), "invalid argument");
    expect_thrown(cudaErrorInvalidConfiguration, typeid(Error), "invalid configuration");
    expect_thrown(cudaErrorLaunchOutOfResources, typeid(Error), "resources");
}

TEST(CudaErrors, AKernelsFaultEndsTheProcess) {
    for (const cudaError_t sticky :
         {cudaErrorIllegalAddress, cudaErrorMisalignedAddress, cudaErrorIllegalInstruction,
          cudaErrorLaunchFailure, cudaErrorLaunchTimeout, cudaErrorHardwareStackError,
          cudaErrorAssert, cudaErrorNvlinkUncorrectable, cudaErrorUnknown})
        expect_thrown(sticky, typeid(DeviceError), "this process must end");
    expect_thrown(cudaErrorECCUncorrectable, typeid(DeviceError), "reset");
}

TEST(CudaErrors, OpeningAMissingDeviceSaysWhatToDo) {
    try {
        open_device(1000);
        FAIL() << "there are a thousand GPUs";
    } catch (const NoDeviceError& error) {
        EXPECT_THAT(error.what(), ::testing::AnyOf(HasSubstr("driver"), HasSubstr("GPU")));
    }
}

}  // namespace
}  // namespace gallop
