#include "ops/cudnn_problems.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

TEST(CudnnProblems, AreAboutMemoryWhereAnyEngineRanOutOfIt) {
    EXPECT_TRUE(
        is_about_memory("finalize failed with code: "
                        "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"));
    EXPECT_TRUE(
        is_about_memory("No valid execution plans built.\nPlan at index 0: "
                        "CUDNN_STATUS_NOT_SUPPORTED\nPlan at index 1: "
                        "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"));
    EXPECT_TRUE(is_about_memory("cudnn_status: CUDNN_STATUS_ALLOC_FAILED"));
    EXPECT_TRUE(is_about_memory("cudaMalloc failed with out of memory"));
}

// Attention is compiled when it is first asked for, which takes libraries of the toolkit's.
TEST(CudnnProblems, OfTheSurroundingsComeWithAdvice) {
    for (const char* problem :
         {"CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED", "rtc->loadModule()", "nvrtc: error"})
        EXPECT_NE(advice_on(problem).find("libnvrtc"), std::string_view::npos) << problem;
    EXPECT_EQ(advice_on("Plan at index 0: CUDNN_STATUS_NOT_SUPPORTED_SHAPE"), "");
}

TEST(CudnnProblems, AreRefusalsOtherwise) {
    EXPECT_FALSE(is_about_memory(""));
    EXPECT_FALSE(
        is_about_memory("No execution plans support the graph.\nPlan at index 0: "
                        "CUDNN_STATUS_NOT_SUPPORTED_SHAPE"));
    EXPECT_FALSE(is_about_memory("Skipping plan since workspace violation. Requires 4294967296"));
}

}  // namespace
}  // namespace gallop
