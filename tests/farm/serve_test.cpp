#include "farm/serve.hpp"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/temporary_folder.hpp"
#include "tests/farm/recording_link.hpp"

namespace gallop {
namespace {

TEST(WorkAndBeat, TellsTheOthersAndThoseWhoWatchThatRankZeroIsThere) {
    const test::TemporaryFolder folder;
    const RunLock lock(folder / "run");
    std::filesystem::remove(folder / "run" / "HEARTBEAT");
    test::RecordingLink link(3);
    work_and_beat(lock, link, [] { std::this_thread::sleep_for(std::chrono::milliseconds(700)); });
    EXPECT_GE(link.sent_to(1, "ping"), 1);
    EXPECT_GE(link.sent_to(2, "ping"), 1);
    EXPECT_TRUE(std::filesystem::exists(folder / "run" / "HEARTBEAT"));
}

TEST(WorkAndBeat, ThrowsWhatTheWorkThrows) {
    const test::TemporaryFolder folder;
    const RunLock lock(folder / "run");
    test::RecordingLink link(1);
    EXPECT_THROW(work_and_beat(lock, link, [] { throw InputError("no plan"); }), InputError);
}

}  // namespace
}  // namespace gallop
