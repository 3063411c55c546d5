#include "ops/cudnn_versions.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

TEST(CudnnVersions, AreRefusedWhereTheyAreKnownToBeWrong) {
    for (const std::size_t version : {8907U, 91000U, 91001U, 91400U, 100000U}) {
        EXPECT_FALSE(trust_in_cudnn(version).attention) << version;
        EXPECT_FALSE(trust_in_cudnn(version).convolution) << version;
        EXPECT_NE(trust_in_cudnn(version).why, "") << version;
    }
    for (const std::size_t version : {90000U, 91002U, 91100U, 91401U}) {
        EXPECT_TRUE(trust_in_cudnn(version).attention) << version;
        EXPECT_FALSE(trust_in_cudnn(version).convolution) << version;
    }
    for (const std::size_t version : {91500U, 91900U, 92600U}) {
        EXPECT_TRUE(trust_in_cudnn(version).attention) << version;
        EXPECT_TRUE(trust_in_cudnn(version).convolution) << version;
        EXPECT_EQ(trust_in_cudnn(version).why, "") << version;
    }
}

TEST(CudnnVersions, ShareKernelsWhereItWasLookedAt) {
    for (const std::size_t version : {91900U, 91901U})
        EXPECT_TRUE(trust_in_cudnn(version).shared_kernels) << version;
    for (const std::size_t version : {90000U, 91000U, 91400U, 91500U, 91899U, 92000U})
        EXPECT_FALSE(trust_in_cudnn(version).shared_kernels) << version;
}

TEST(CudnnVersions, AreWrittenAsPeopleDo) {
    EXPECT_EQ(cudnn_version_text(91900), "9.19.0");
    EXPECT_EQ(cudnn_version_text(91002), "9.10.2");
    EXPECT_EQ(cudnn_version_text(8907), "8.9.7");
}

}  // namespace
}  // namespace gallop
