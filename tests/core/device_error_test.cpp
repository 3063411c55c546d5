#include "core/device_error.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

TEST(Architectures, MachineCodeServesItsMajorVersionFromItsMinorOn) {
    EXPECT_TRUE(architectures_serve("80-real", 8, 0));
    EXPECT_TRUE(architectures_serve("80-real", 8, 6));
    EXPECT_FALSE(architectures_serve("86-real", 8, 0));
    EXPECT_FALSE(architectures_serve("80-real", 9, 0));
    EXPECT_FALSE(architectures_serve("100-real", 9, 0));
    EXPECT_TRUE(architectures_serve("100-real", 10, 3));
    EXPECT_FALSE(architectures_serve("100-real", 12, 0));
}

TEST(Architectures, CodeOfOneVersionServesNoOther) {
    EXPECT_TRUE(architectures_serve("90a-real", 9, 0));
    EXPECT_TRUE(architectures_serve("90a", 9, 0));
    EXPECT_FALSE(architectures_serve("90a", 10, 0));
    EXPECT_FALSE(architectures_serve("90a-real", 8, 0));
}

TEST(Architectures, PtxServesEveryLaterDevice) {
    EXPECT_TRUE(architectures_serve("80", 12, 0));
    EXPECT_TRUE(architectures_serve("80-virtual", 9, 0));
    EXPECT_FALSE(architectures_serve("90-virtual", 8, 9));
}

TEST(Architectures, AnyOfTheListWillDo) {
    EXPECT_TRUE(architectures_serve("80-real;90a-real;100-real", 9, 0));
    EXPECT_TRUE(architectures_serve("80-real;90a-real;100-real", 10, 0));
    EXPECT_FALSE(architectures_serve("80-real;90a-real;100-real", 7, 5));
    EXPECT_FALSE(architectures_serve("", 9, 0));
    EXPECT_FALSE(architectures_serve("native", 9, 0));
}

}  // namespace
}  // namespace gallop
