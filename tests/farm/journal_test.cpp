#include "farm/journal.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/file_errors.hpp"
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
    const std::string one = journal_line({{"n", 1}});
    // The last newline may be far from the end.
    for (const std::string& cut : {std::string("{\"n\":2,\"su"), std::string(200'000, 'x')}) {
        std::ofstream(path) << one << cut;
        {
            Journal journal(path);
            journal.append({{"n", 3}});
        }
        EXPECT_EQ(read_text(path), one + journal_line({{"n", 3}}));
    }
    std::ofstream(path) << "no line at all";
    { const Journal journal(path); }
    EXPECT_EQ(read_text(path), "");
    set_log_level(LogLevel::info);
}

TEST(Journal, HasEveryLineOnDiskOnceItIsFlushed) {
    const test::TemporaryFolder folder;
    const auto path = folder / "journal.jsonl";
    Journal journal(path);
    std::string expected;
    for (int i = 0; i < 500; ++i) {
        journal.append({{"n", i}});
        expected += journal_line({{"n", i}});
        if (i % 100 == 99) {
            journal.flush();
            EXPECT_EQ(read_text(path), expected);
        }
    }
    EXPECT_EQ(journal.trouble(), "");
}

TEST(Journal, SaysThatTheDiskIsFull) {
    set_log_level(LogLevel::error);
    const test::TemporaryFolder folder;
    std::filesystem::create_symlink("/dev/full", folder / "journal.jsonl");
    Journal journal(folder / "journal.jsonl");
    journal.append({{"n", 1}});
    EXPECT_THROW(journal.flush(), DiskError);
    EXPECT_THAT(journal.trouble(), testing::HasSubstr("No space left"));
    set_log_level(LogLevel::info);
}

}  // namespace
}  // namespace gallop
