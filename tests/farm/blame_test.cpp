#include "farm/blame.hpp"

#include <gtest/gtest.h>

namespace gallop {
namespace {

/// What the journals say, line by line.
class BlameTest : public testing::Test {
protected:
    void failed(const char* host, std::size_t item, const char* kind = "error") {
        blame_.apply({{"event", "failed"}, {"host", host}, {"agent", 7}, {"kind", kind}}, item);
    }
    void done(const char* host, std::size_t item) {
        blame_.apply({{"event", "done"}, {"host", host}, {"agent", 7}}, item);
    }
    /// Items that fail on one host and are done on another.
    void fail_and_do(const char* host, const char* other, std::size_t first, std::size_t count) {
        for (std::size_t item = first; item < first + count; ++item) {
            failed(host, item);
            done(other, item);
        }
    }
    Blame blame_;
};

TEST_F(BlameTest, IsOfWhoFailsAtWhatOthersDo) {
    fail_and_do("a", "b", 0, 2);
    EXPECT_EQ(blame_.of("a-7"), 2);
    EXPECT_EQ(blame_.of("b-7"), 0);
    EXPECT_FALSE(blame_.drives_out("a-7", {"b-7"}));
    fail_and_do("a", "b", 2, 1);
    EXPECT_TRUE(blame_.drives_out("a-7", {"b-7"}));
    EXPECT_FALSE(blame_.drives_out("a-7", {})) << "nobody else is there";
    EXPECT_FALSE(blame_.drives_out("b-7", {"a-7"}));
}

TEST_F(BlameTest, CountsAnItemOnceAndNotOfWhoDidItAtLast) {
    for (int tries = 0; tries < 4; ++tries) failed("a", 0);
    failed("b", 0);
    done("b", 0);
    EXPECT_EQ(blame_.of("a-7"), 1);
    EXPECT_EQ(blame_.of("b-7"), 0);
}

TEST_F(BlameTest, IsTakenBackByWhatIsDone) {
    fail_and_do("a", "b", 0, 3);
    for (std::size_t item = 10; item < 12; ++item) done("a", item);
    EXPECT_EQ(blame_.of("a-7"), 2);
}

TEST_F(BlameTest, IsNotForFullDisksNorForMemoryNorForWhatNobodyDid) {
    for (std::size_t item = 0; item < 9; item += 3) {
        failed("a", item, "disk");
        done("b", item);
        failed("a", item + 1, "out_of_memory");
        done("b", item + 1);
        failed("a", item + 2);
        blame_.apply({{"event", "quarantined"}}, item + 2);
        blame_.apply({{"event", "retry"}}, item + 2);
        done("b", item + 2);
    }
    EXPECT_EQ(blame_.of("a-7"), 0);
}

TEST_F(BlameTest, DrivesNobodyOutWhenAllHaveHadTheSameTrouble) {
    for (std::size_t item = 0; item < 8; ++item) failed("a", item);
    for (std::size_t item = 8; item < 16; ++item) failed("b", item);
    for (std::size_t item = 0; item < 8; ++item) {
        done("b", item);
        done("a", item + 8);
    }
    EXPECT_GE(blame_.of("a-7"), Blame::too_much);
    EXPECT_GE(blame_.of("b-7"), Blame::too_much);
    EXPECT_FALSE(blame_.drives_out("a-7", {"b-7"}));
    EXPECT_FALSE(blame_.drives_out("b-7", {"a-7"}));
    EXPECT_TRUE(blame_.drives_out("b-7", {"a-7", "c-7"})) << "a third host had no trouble";
}

}  // namespace
}  // namespace gallop
