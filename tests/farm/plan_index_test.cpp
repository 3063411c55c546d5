#include "farm/plan_index.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/log.hpp"
#include "farm/plan_case.hpp"

namespace gallop {
namespace {

using testing::HasSubstr;

/// A run directory of four distinct items in three buckets, and one duplicate.
class PlanIndexTest : public test::PlanCase {
protected:
    PlanIndexTest() {
        plan(
            "items:\n"
            "  - {name: a, prompt: \"quote \\\" and \\\\ {brace\"}\n"
            "  - {name: b, prompt: q, image: photo.png}\n"
            "  - {name: c, prompt: q, frames: 7, passes: 2}\n"
            "  - {name: d, prompt: q, image: photo.png}\n"
            "  - {name: e, prompt: r, resolution: 540p, decoder: wan}\n");
    }

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
};

TEST_F(PlanIndexTest, KnowsEveryItemInTheOrderOfThePlan) {
    const PlanIndex index = read_plan_index(run_);
    ASSERT_EQ(index.rows.size(), 4U);
    EXPECT_THAT(index.buckets, testing::ElementsAre("distill-448x256-125", "distill-448x256-7",
                                                    "distill-448x256-125-540p_sr-896x512-wan"));
    const std::vector<PlannedItem> items = read();
    const std::uint16_t buckets[] = {0, 0, 1, 2};
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(id_text(index.rows[i].id), items[i].item.id);
        EXPECT_EQ(index.rows[i].bucket, buckets[i]);
        EXPECT_EQ(index.rows[i].gpus, 1);
        EXPECT_FLOAT_EQ(index.rows[i].seconds, static_cast<float>(items[i].predicted));
    }
    EXPECT_LE(sizeof(PlanRow), 40U);
}

TEST_F(PlanIndexTest, GivesBackEachItemAsItWasPlanned) {
    const std::vector<PlannedItem> items = read();
    EXPECT_EQ(items[0].item.prompt, "quote \" and \\ {brace");
    EXPECT_EQ(items[1].item.image, (folder_ / "photo.png").string());
    EXPECT_EQ(items[2].item.frames, 7);
    EXPECT_EQ(items[2].item.base.passes, 2);
    EXPECT_GT(items[2].item.negative_prompt.size(), 100U);
    EXPECT_EQ(items[3].item.sr, "540p_sr");
    EXPECT_EQ(items[3].item.size, (Size{896, 512}));
    EXPECT_EQ(items[3].item.decoder, VideoDecoder::wan);
    for (const PlannedItem& planned : items) {
        EXPECT_EQ(id_of(planned.resolved), planned.item.id);
        EXPECT_TRUE(planned.cell.is_null());
    }
}

TEST_F(PlanIndexTest, ReadsTheConfigAsItWasWritten) {
    const RunConfig config = read_run_config(run_);
    EXPECT_EQ(config.name, "test");
    EXPECT_EQ(config.model.path, (folder_ / "model").string());
    EXPECT_EQ(config.items, 4U);
    EXPECT_EQ(config.duplicates, 1U);
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
