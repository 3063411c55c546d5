#include "farm/verify.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/log.hpp"
#include "support/test_run.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using test::TestRun;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class VerifyTest : public testing::Test {
protected:
    VerifyTest() : run_(4) {
        set_log_level(LogLevel::error);
        run_.attempt(1);
        for (std::size_t item = 0; item < 3; ++item) run_.render(item);
    }
    ~VerifyTest() override { set_log_level(LogLevel::info); }

    /// "NAME FILE-SUFFIX: WHAT" of each problem.
    std::vector<std::string> problems(VerifyOptions options = {}) {
        std::vector<std::string> found;
        options.problem = [&](const VerifyProblem& one) {
            found.push_back(one.name + " " + fs::path(one.file).extension().string() + ": " +
                            one.what);
        };
        count_ = verify_run(test::history_of(run_), options);
        EXPECT_EQ(count_.problems, found.size());
        return found;
    }
    fs::path clip(std::size_t item) const { return clip_path(run_.path(), run_.id(item)); }
    fs::path latents(std::size_t item) const { return latents_path(run_.path(), run_.id(item)); }

    TestRun run_;
    VerifyCount count_;
};

TEST_F(VerifyTest, FindsNothingInAWholeRun) {
    EXPECT_THAT(problems(), IsEmpty());
    EXPECT_EQ(count_.clips, 3U);
    EXPECT_EQ(count_.strays, 0U);
    EXPECT_EQ(count_.bytes, fs::file_size(clip(0)) + fs::file_size(clip(1)) +
                                fs::file_size(clip(2)) + fs::file_size(latents(0)) +
                                fs::file_size(latents(1)) + fs::file_size(latents(2)));
}

TEST_F(VerifyTest, FindsMissingShortAndChangedFiles) {
    fs::remove(clip(0));
    fs::resize_file(latents(1), 100);
    std::string bytes = read_text(clip(2));
    bytes[bytes.size() / 2] ^= 1;
    write_atomically(clip(2), bytes);
    EXPECT_THAT(problems(), ElementsAre("item0 .mp4: is not there",
                                        HasSubstr("item1 .h5: has 100 bytes (the journal says "),
                                        HasSubstr("item2 .mp4: its SHA-256 is ")));
}

TEST_F(VerifyTest, FindsAClipOfAnotherItemWhateverTheJournalSays) {
    // The journal was made to agree with files that belong to another item, or are too short.
    fs::copy_file(clip(0), clip(1), fs::copy_options::overwrite_existing);
    fs::copy_file(latents(0), latents(1), fs::copy_options::overwrite_existing);
    const auto row = [&](const fs::path& path) {
        return nlohmann::json{{"path", path.lexically_relative(run_.path()).string()},
                              {"bytes", fs::file_size(path)},
                              {"sha256", digest_file(path)}};
    };
    run_.append({{"event", "done"},
                 {"id", run_.id(1)},
                 {"clip", row(clip(1))},
                 {"latents", row(latents(1))}});
    EXPECT_THAT(problems(), ElementsAre(HasSubstr("item1 .mp4: its comment is"),
                                        "item1 .h5: its attribute id is not the item's"));
}

TEST_F(VerifyTest, CountsWhatBelongsToNoFinishedClip) {
    fs::create_directories(clip(3).parent_path());
    std::ofstream(clip(3)) << "half a clip";
    std::ofstream(clip(3).parent_path() / ".x.mp4.1.0.tmp") << "left over";
    EXPECT_THAT(problems(), IsEmpty());
    EXPECT_EQ(count_.strays, 2U);
}

TEST_F(VerifyTest, ComparesASampleThatIsRenderedAgain) {
    VerifyOptions options;
    options.sample = 2;
    options.scratch = run_.folder() / "scratch";
    std::vector<std::string> rendered;
    bool changed = false;
    options.render = [&](const PlannedItem& planned, const fs::path& folder) {
        rendered.push_back(planned.item.name);
        for (const char* kind : {"clips", "latents"})
            fs::copy(run_.path() / kind, folder / kind, fs::copy_options::recursive);
        if (changed) std::ofstream(clip_path(folder, planned.item.id), std::ios::app) << "x";
    };
    EXPECT_THAT(problems(options), IsEmpty());
    EXPECT_THAT(rendered, ElementsAre("item0", "item2"));
    EXPECT_EQ(count_.rendered, 2U);
    EXPECT_FALSE(fs::exists(options.scratch));
    changed = true;
    EXPECT_THAT(problems(options),
                ElementsAre(HasSubstr("item0 .mp4: rendered again, its SHA-256 is "),
                            HasSubstr("item2 .mp4: rendered again, its SHA-256 is ")));
    options.sample = 100;  // more than there are: all of them
    rendered.clear();
    problems(options);
    EXPECT_EQ(rendered.size(), 3U);
    options.render = [](const PlannedItem&, const fs::path&) { throw Error("no memory"); };
    EXPECT_THAT(problems(options), ElementsAre("item0 .mp4: no memory", "item1 .mp4: no memory",
                                               "item2 .mp4: no memory"));
}

TEST_F(VerifyTest, ComparesAsItWasRenderedOrSaysThatItCannot) {
    std::vector<nlohmann::json> done;
    RunHistory history(run_.path());
    history.update([&](const nlohmann::json& event, std::optional<std::size_t>) {
        if (event.value("event", "") == "done") done.push_back(event);
    });
    const auto say = [&](std::size_t item, const char* what, const nlohmann::json& value) {
        nlohmann::json event = done.at(item);
        event.erase("sum");
        event[what] = value;
        run_.append(event);
    };
    say(0, "tiled", true);
    say(1, "strips", 3);
    say(2, "gpus", 2);
    VerifyOptions options;
    options.sample = 3;
    options.scratch = run_.folder() / "scratch";
    options.render = [&](const PlannedItem& planned, const fs::path& folder) {
        EXPECT_EQ(planned.item.tiled_decode, planned.item.name == "item0");
        for (const char* kind : {"clips", "latents"})
            fs::copy(run_.path() / kind, folder / kind, fs::copy_options::recursive);
        std::ofstream(clip_path(folder, planned.item.id), std::ios::app) << "x";
    };
    EXPECT_THAT(problems(options),
                ElementsAre(HasSubstr("item0 .mp4: rendered again, its SHA-256 is ")));
    EXPECT_EQ(count_.rendered, 3U);
    EXPECT_EQ(count_.not_comparable, 2U);
}

}  // namespace
}  // namespace gallop
