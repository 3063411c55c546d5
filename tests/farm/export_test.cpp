#include "farm/export.hpp"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/log.hpp"
#include "farm/index.hpp"
#include "farm/tar.hpp"
#include "support/test_run.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using test::history_of;
using test::TestRun;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<Json> rows_of(const fs::path& path) {
    std::vector<Json> rows;
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
    return rows;
}

TEST(Index, IsRebuiltFromTheJournalInThePlansOrder) {
    TestRun run(4, [](RunConfig& config) { config.sweep = {{"guidance", {3.0, 5.0}}}; });
    run.attempt(1);
    run.done(3);
    run.failed(1, "error", "once");
    run.done(1);
    run.quarantined(2, "r", "e");
    std::ofstream(run.path() / "duplicates.jsonl")
        << canonical_json({{"id", run.id(1)}, {"name", "twin"}}) << "\n"
        << canonical_json({{"id", run.id(2)}, {"name", "other"}}) << "\n"
        << canonical_json({{"id", run.id(1)}, {"name", "third"}}) << "\n";
    EXPECT_EQ(write_index(history_of(run)), 2U);
    const std::vector<Json> rows = rows_of(run.path() / "index.jsonl");
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[0]["id"], run.id(1));
    EXPECT_EQ(rows[0]["names"], Json({"item1", "twin", "third"}));
    EXPECT_EQ(rows[0]["prompt"], "prompt, \"of\" 1");
    EXPECT_EQ(rows[0]["seed"], 101);
    EXPECT_EQ(rows[0]["width"], 64);
    EXPECT_EQ(rows[0]["duration"], 0.2);
    EXPECT_EQ(rows[0]["cell"]["guidance"], 5.0);
    EXPECT_EQ(rows[0]["clip"]["bytes"], 1001);
    EXPECT_EQ(rows[0]["seconds"]["base"], 1.5);
    EXPECT_EQ(rows[0]["host"], "n0");
    EXPECT_EQ(rows[0]["failed_tries"], 1);
    EXPECT_EQ(rows[1]["id"], run.id(3));
    const std::string before = read_text(run.path() / "index.jsonl");
    write_index(history_of(run));
    EXPECT_EQ(read_text(run.path() / "index.jsonl"), before);
}

TEST(Csv, QuotesWhatNeedsIt) {
    EXPECT_EQ(csv_field("plain"), "plain");
    EXPECT_EQ(csv_field(""), "");
    EXPECT_EQ(csv_field("a,b"), "\"a,b\"");
    EXPECT_EQ(csv_field("say \"x\""), "\"say \"\"x\"\"\"");
    EXPECT_EQ(csv_field("two\nlines"), "\"two\nlines\"");
}

TEST(Csv, HasARowForEachClip) {
    TestRun run(3, [](RunConfig& config) { config.sweep = {{"steps.base", {8, 32}}}; });
    run.attempt(1);
    run.done(0);
    run.done(2);
    const fs::path out = run.folder() / "table.csv";
    EXPECT_EQ(export_csv(history_of(run), out.string()), 2U);
    std::ifstream in(out);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    ASSERT_EQ(lines.size(), 3U);
    EXPECT_TRUE(lines[0].starts_with("id,name,prompt,seed,width,height,"));
    EXPECT_TRUE(lines[0].ends_with(",time,cell.steps.base\r"));
    EXPECT_TRUE(
        lines[1].starts_with(run.id(0) + ",item0,\"prompt, \"\"of\"\" 0\",100,64,32,5,0.2,"));
    EXPECT_TRUE(lines[1].ends_with(",8\r"));
    EXPECT_EQ(std::count(lines[0].begin(), lines[0].end(), ','), 19);
}

std::map<std::string, std::string> files_in(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(folder))
        files[entry.path().filename().string()] = read_text(entry.path());
    return files;
}

TEST(WebDataset, PutsEachClipWithItsJsonIntoShards) {
    set_log_level(LogLevel::error);
    TestRun run(3);
    run.attempt(1);
    for (const std::size_t item : {2U, 0U, 1U}) run.render(item);
    WebDatasetOptions options{.out = run.folder() / "out", .latents = true};
    options.shard_bytes = 1;  // smaller than a clip: one a shard
    ExportCount count = export_webdataset(history_of(run), options);
    EXPECT_EQ(count.clips, 3U);
    EXPECT_EQ(count.shards, 3U);
    EXPECT_EQ(count.kept, 0U);
    const auto first = files_in(options.out);
    EXPECT_EQ(first.size(), 4U);
    const Json index = Json::parse(first.at("index.json"));
    EXPECT_EQ(index["shardlist"][1]["url"], "test-000001.tar");
    EXPECT_EQ(index["shardlist"][1]["nsamples"], 1);
    EXPECT_EQ(index["shardlist"][1]["filesize"], first.at("test-000001.tar").size());
    EXPECT_EQ(index["shardlist"][1]["sha256"], digest_file(options.out / "test-000001.tar"));
    EXPECT_THAT(first.at("test-000000.tar"), HasSubstr(run.id(0) + ".mp4"));
    EXPECT_THAT(first.at("test-000000.tar"), HasSubstr(run.id(0) + ".h5"));
    EXPECT_THAT(first.at("test-000002.tar"), HasSubstr("\"prompt\":\"prompt, \\\"of\\\" 2\""));

    // An interrupted export goes on: what is there is kept, what is missing or cut is written again.
    fs::remove(options.out / "test-000002.tar");
    fs::resize_file(options.out / "test-000001.tar", 2000);
    count = export_webdataset(history_of(run), options);
    EXPECT_EQ(count.kept, 1U);
    EXPECT_EQ(files_in(options.out), first);

    // One large shard replaces the three.
    options.shard_bytes = 1'000'000'000;
    count = export_webdataset(history_of(run), options);
    EXPECT_EQ(count.shards, 1U);
    EXPECT_EQ(files_in(options.out).size(), 2U);
    set_log_level(LogLevel::info);
}

TEST(WebDataset, StaysBelowTheSizeOfAShard) {
    set_log_level(LogLevel::error);
    TestRun run(4);
    run.attempt(1);
    for (std::size_t item = 0; item < 4; ++item) run.render(item);
    WebDatasetOptions options{.out = run.folder() / "out"};
    export_webdataset(history_of(run), options);
    const std::uint64_t whole = fs::file_size(options.out / "test-000000.tar");
    options.shard_bytes = whole;
    EXPECT_EQ(export_webdataset(history_of(run), options).kept, 1U);
    options.shard_bytes = whole - 1;
    EXPECT_EQ(export_webdataset(history_of(run), options).shards, 2U);
    for (const auto& [name, content] : files_in(options.out))
        if (name.ends_with(".tar")) {
            EXPECT_LE(content.size(), whole - 1);
        }
    set_log_level(LogLevel::info);
}

TEST(WebDataset, RefusesAClipThatIsNotAsTheJournalSays) {
    set_log_level(LogLevel::error);
    TestRun run(2);
    run.attempt(1);
    run.render(0);
    run.render(1);
    fs::resize_file(clip_path(run.path(), run.id(1)), 100);
    const WebDatasetOptions options{.out = run.folder() / "out"};
    try {
        export_webdataset(history_of(run), options);
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("has 100 bytes (the journal says"));
    }
    EXPECT_FALSE(fs::exists(options.out / "index.json"));
    set_log_level(LogLevel::info);
}

}  // namespace
}  // namespace gallop
