#include "farm/plan_index.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/plan.hpp"
#include "farm/run_directory.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A run directory of four distinct items in three buckets, and one duplicate.
class PlanIndexTest : public testing::Test {
protected:
    PlanIndexTest() {
        set_log_level(LogLevel::error);
        for (const char* network : {"distill", "540p_sr"}) {
            fs::create_directories(folder_ / "model" / network);
            std::ofstream(folder_ / "model" / network / "model.safetensors") << network;
        }
        std::ofstream(folder_ / "photo.png") << "one";
        plan_ =
            make_plan(parse_manifest("version: 1\nname: test\nmodel: {path: model}\n"
                                     "items:\n"
                                     "  - {name: a, prompt: \"quote \\\" and \\\\ {brace\"}\n"
                                     "  - {name: b, prompt: q, image: photo.png}\n"
                                     "  - {name: c, prompt: q, frames: 7, passes: 2}\n"
                                     "  - {name: d, prompt: q, image: photo.png}\n"
                                     "  - {name: e, prompt: r, resolution: 540p, decoder: wan}\n",
                                     folder_ / "m.yaml"),
                      "");
        fs::create_directories(run_);
        prepare_run_directory(plan_, run_);
    }
    ~PlanIndexTest() override { set_log_level(LogLevel::info); }

    /// What reading the index says when the lock holds `text`.
    std::string refusal(const std::string& text) {
        std::ofstream(run_ / "items.lock.jsonl") << text;
        try {
            read_plan_index(run_);
        } catch (const InputError& wrong) {
            return wrong.what();
        }
        return "";
    }

    test::TemporaryFolder folder_;
    fs::path run_ = folder_ / "run";
    Plan plan_;
};

TEST_F(PlanIndexTest, KnowsEveryItemInTheOrderOfThePlan) {
    const PlanIndex index = read_plan_index(run_);
    ASSERT_EQ(index.rows.size(), 4U);
    EXPECT_THAT(index.buckets, testing::ElementsAre("distill-448x256-125", "distill-448x256-7",
                                                    "distill-448x256-125-540p_sr-896x512"));
    const std::uint16_t buckets[] = {0, 0, 1, 2};
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(id_text(index.rows[i].id), plan_.items[i].item.id);
        EXPECT_EQ(index.rows[i].bucket, buckets[i]);
        EXPECT_EQ(index.rows[i].gpus, 1);
        EXPECT_FLOAT_EQ(index.rows[i].seconds, static_cast<float>(plan_.items[i].predicted));
    }
    EXPECT_LE(sizeof(PlanRow), 40U);
}

TEST_F(PlanIndexTest, GivesBackEachItemAsItWasPlanned) {
    const RunConfig config = read_run_config(run_);
    const PlanIndex index = read_plan_index(run_, config);
    for (std::size_t i = 0; i < index.rows.size(); ++i) {
        const PlannedItem read =
            read_planned_item(run_, config, index.rows[i].offset, index.rows[i].bytes);
        const Item& item = plan_.items[i].item;
        EXPECT_EQ(read.resolved, plan_.items[i].resolved);
        EXPECT_EQ(read.item.id, item.id);
        EXPECT_EQ(read.item.name, item.name);
        EXPECT_EQ(read.item.prompt, item.prompt);
        EXPECT_EQ(read.item.negative_prompt, item.negative_prompt);
        EXPECT_EQ(read.item.image, item.image);
        EXPECT_EQ(read.item.sr, item.sr);
        EXPECT_EQ(read.item.size, item.size);
        EXPECT_EQ(read.item.frames, item.frames);
        EXPECT_EQ(read.item.base.passes, item.base.passes);
        EXPECT_EQ(read.item.decoder, item.decoder);
    }
    EXPECT_GT(read_planned_item(run_, config, index.rows[2].offset, index.rows[2].bytes)
                  .item.negative_prompt.size(),
              100U);
}

TEST_F(PlanIndexTest, ReadsTheConfigAsItWasWritten) {
    const RunConfig config = read_run_config(run_);
    EXPECT_EQ(config.name, "test");
    EXPECT_EQ(config.model.path, (folder_ / "model").string());
    EXPECT_EQ(config.items, 4U);
    EXPECT_EQ(config.duplicates, 1U);
    EXPECT_EQ(read_text(run_ / "duplicates.jsonl"),
              "{\"id\":\"" + plan_.items[1].item.id + "\",\"name\":\"d\"}\n");
    std::ofstream(run_ / "run.json") << "{\"format\":1}";
    EXPECT_THROW(read_run_config(run_), InputError);
    std::ofstream(run_ / "run.json") << "text";
    EXPECT_THROW(read_run_config(run_), InputError);
}

TEST_F(PlanIndexTest, RefusesALockThatIsNotAsPlanned) {
    const std::string whole = read_text(run_ / "items.lock.jsonl");
    EXPECT_THAT(refusal(whole.substr(0, whole.size() - 1)), HasSubstr("holds"));
    for (std::size_t at = 0; at < whole.size(); at += 7) {
        std::string changed = whole;
        changed[at] = static_cast<char>(changed[at] ^ 1);
        EXPECT_NE(refusal(changed), "") << at;
    }
    // What follows was not committed by run.json: an extension that a kill cut short.
    EXPECT_EQ(refusal(whole + "{\"half"), "");
}

TEST_F(PlanIndexTest, RefusesAnItemThatIsNotWhatItsIdSays) {
    const RunConfig config = read_run_config(run_);
    const PlanRow row = read_plan_index(run_, config).rows[1];
    std::string text = read_text(run_ / "items.lock.jsonl");
    text[text.find("\"prompt\":\"q\"", row.offset) + 10] = 'x';
    std::ofstream(run_ / "items.lock.jsonl") << text;
    EXPECT_THROW(read_planned_item(run_, config, row.offset, row.bytes), InputError);
    EXPECT_THROW(read_planned_item(run_, config, row.offset + 1, row.bytes), InputError);
    EXPECT_THROW(read_planned_item(run_, config, 1U << 30, 10), InputError);
    EXPECT_THROW(id_bytes("abc"), InputError);
}

}  // namespace
}  // namespace gallop
