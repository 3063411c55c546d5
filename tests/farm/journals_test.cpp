#include "farm/journals.hpp"

#include <fstream>

#include <gmock/gmock.h>

#include "farm/journal.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

void append(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::app) << text;
}

std::string line(int n) { return journal_line({{"event", "done"}, {"n", n}}); }

std::vector<int> numbers(JournalFollower& follower) {
    std::vector<int> all;
    follower.read_new([&](const Json& event) { all.push_back(event["n"]); });
    return all;
}

TEST(JournalFollower, ReadsWhatWasAddedSinceTheLastTime) {
    const TemporaryFolder run;
    JournalFollower follower(run.path());
    EXPECT_THAT(numbers(follower), ElementsAre());
    append(run.path() / "journal.jsonl", line(1) + line(2));
    EXPECT_THAT(numbers(follower), ElementsAre(1, 2));
    EXPECT_THAT(numbers(follower), ElementsAre());
    append(run.path() / "journal.jsonl", line(3));
    EXPECT_THAT(numbers(follower), ElementsAre(3));
}

TEST(JournalFollower, ReadsEveryProcessesJournalAndNothingElse) {
    const TemporaryFolder run;
    append(run.path() / "journal.jsonl", line(1));
    append(run.path() / "journal-a-17.jsonl", line(2));
    append(run.path() / "items.lock.jsonl", line(9));
    append(run.path() / "journal.jsonl.old", line(9));
    JournalFollower follower(run.path());
    EXPECT_THAT(numbers(follower), UnorderedElementsAre(1, 2));
    append(run.path() / "journal-b-4.jsonl", line(3));
    append(run.path() / "journal-a-17.jsonl", line(4));
    EXPECT_THAT(numbers(follower), UnorderedElementsAre(3, 4));
}

TEST(JournalFollower, LeavesALastLineWithoutAnEndForLater) {
    const TemporaryFolder run;
    const std::string last = line(2);
    append(run.path() / "journal.jsonl", line(1) + last.substr(0, 20));
    JournalFollower follower(run.path());
    EXPECT_THAT(numbers(follower), ElementsAre(1));
    EXPECT_THAT(numbers(follower), ElementsAre());
    append(run.path() / "journal.jsonl", last.substr(20));
    EXPECT_THAT(numbers(follower), ElementsAre(2));
}

TEST(JournalFollower, CountsDamagedLinesOnce) {
    const TemporaryFolder run;
    std::string bad = line(1);
    bad[bad.find(":1") + 1] = '7';
    append(run.path() / "journal.jsonl", bad + line(2));
    JournalFollower follower(run.path());
    EXPECT_THAT(numbers(follower), ElementsAre(2));
    EXPECT_EQ(numbers(follower).size(), 0U);
    EXPECT_EQ(follower.damaged_lines(), 1U);
}

TEST(JournalFollower, ReadsLinesLongerThanItsPortion) {
    const TemporaryFolder run;
    append(run.path() / "journal.jsonl",
           journal_line({{"n", 1}, {"text", std::string(9U << 20, 'x')}}) + line(2));
    JournalFollower follower(run.path());
    EXPECT_THAT(numbers(follower), ElementsAre(1, 2));
}

TEST(JournalFollower, GivesEachProcessAFileOfItsOwn) {
    const TemporaryFolder run;
    const auto first = own_journal_path(run.path());
    const auto second = own_journal_path(run.path());  // as if of another container
    EXPECT_NE(first, second);
    append(first, line(1));
    append(second, line(2));
    JournalFollower follower(run.path());
    EXPECT_THAT(numbers(follower), UnorderedElementsAre(1, 2));
}

}  // namespace
}  // namespace gallop
