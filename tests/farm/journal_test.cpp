#include "farm/journal.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.hpp"
#include "core/log.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

TEST(Journal, WritesLinesThatAreJson) {
    const std::string line = journal_line({{"event", "done"}, {"id", "abcd"}});
    ASSERT_TRUE(line.ends_with("\"}\n"));
    const Json event = Json::parse(line);
    EXPECT_EQ(event["event"], "done");
    EXPECT_EQ(event["sum"].get<std::string>().size(), 16U);
}

TEST(Journal, ReadsItsOwnLines) {
    const Json one = {{"event", "done"}, {"text", "a \"quoted\" } line\n"}};
    const Json two = {{"event", "failed"}, {"n", 2}};
    const JournalContent content = read_journal(journal_line(one) + journal_line(two));
    EXPECT_THAT(content.events, testing::ElementsAre(one, two));
    EXPECT_FALSE(content.truncated);
    EXPECT_EQ(content.damaged_lines, 0U);
}

TEST(Journal, DropsATruncatedLastLineWhereverItWasCut) {
    const std::string one = journal_line({{"event", "done"}});
    const std::string two = journal_line({{"event", "failed"}});
    for (std::size_t cut = 1; cut < two.size(); ++cut) {
        const JournalContent content = read_journal(one + two.substr(0, cut));
        EXPECT_EQ(content.events.size(), 1U);
        EXPECT_TRUE(content.truncated);
        EXPECT_EQ(content.whole_bytes, one.size());
    }
}

TEST(Journal, IgnoresALineWhoseSumIsWrong) {
    const std::string one = journal_line({{"event", "done"}, {"n", 1}});
    for (std::size_t at = 0; at + 1 < one.size(); ++at) {
        std::string damaged = one;
        damaged[at] ^= 1;
        if (damaged.find('\n') != damaged.size() - 1) continue;
        const JournalContent content = read_journal(damaged + one);
        EXPECT_EQ(content.events.size(), 1U) << at;
        EXPECT_EQ(content.damaged_lines, 1U) << at;
    }
}

TEST(Journal, CutsTheTruncatedLineBeforeItAppends) {
    set_log_level(LogLevel::error);
    const test::TemporaryFolder folder;
    const auto path = folder / "journal.jsonl";
    std::ofstream(path) << journal_line({{"n", 1}}) << "{\"n\":2,\"su";
    {
        Journal journal(path);
        EXPECT_EQ(journal.events().size(), 1U);
        journal.append({{"n", 3}});
        EXPECT_EQ(journal.events().size(), 2U);
    }
    EXPECT_EQ(read_text(path), journal_line({{"n", 1}}) + journal_line({{"n", 3}}));
    set_log_level(LogLevel::info);
}

}  // namespace
}  // namespace gallop
