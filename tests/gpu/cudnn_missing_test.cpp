#include <dlfcn.h>
#include <gtest/gtest.h>

#include "ops/cuda_dnn.hpp"

// A machine without cuDNN; CTest sees to it that the loader finds none.

namespace gallop {
namespace {

TEST(CudnnMissing, IsDoneWithout) {
    ASSERT_EQ(dlopen("libcudnn.so.9", RTLD_NOW), nullptr) << "it is there: nothing was tested";
    EXPECT_EQ(open_cudnn(host_memory(), nullptr), nullptr);
}

}  // namespace
}  // namespace gallop
