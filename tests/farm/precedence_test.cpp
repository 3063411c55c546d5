// Who wins: presets < defaults < sweep cell < the item's own fields < overrides in order < --set. The
// values are worked out by hand from that line.

#include "farm/manifest_case.hpp"

namespace gallop {
namespace {

using test::Clip;
using testing::ElementsAre;
using testing::HasSubstr;

class PrecedenceTest : public test::ManifestCase {
protected:
    /// `shift` of every clip: a field that nothing else depends on.
    std::vector<double> shifts(const std::string& text, const ManifestOptions& options = {}) {
        return each(clips(with_items(text), options),
                    [](const Clip& clip) { return clip.item.base.shift; });
    }
};

TEST_F(PrecedenceTest, GoesByTheLayers) {
    write("low.yaml", "defaults: {shift: 1}\n");
    write("high.yaml", "defaults: {shift: 2}\n");
    std::string text = "items: [{name: a, prompt: p}]\n";
    EXPECT_THAT(shifts(text), ElementsAre(5.0));
    text += "use: [low.yaml]\n";
    EXPECT_THAT(shifts(text), ElementsAre(1.0));
    text.replace(text.find("[low.yaml]"), 10, "[low.yaml, high.yaml]");
    EXPECT_THAT(shifts(text), ElementsAre(2.0)) << "presets are merged left to right";
    text += "defaults: {shift: 3}\n";
    EXPECT_THAT(shifts(text), ElementsAre(3.0));
    text += "sweep: {matrix: {shift: [4, 6]}}\n";
    EXPECT_THAT(shifts(text), ElementsAre(4.0, 6.0));
    text += "overrides: [{match: {shift: 6}, set: {shift: 7}}]\n";
    EXPECT_THAT(shifts(text), ElementsAre(4.0, 7.0));
    EXPECT_THAT(shifts(text, {{"shift=9"}, {}}), ElementsAre(9.0, 9.0));
}

TEST_F(PrecedenceTest, PutsAnItemsOwnFieldOverTheSweep) {
    EXPECT_THAT(shifts("items: [{name: a, prompt: p, shift: 8}, {name: b, prompt: p}]\n"
                       "sweep: {matrix: {shift: [4, 6]}}\n"
                       "overrides: [{match: {shift: 8}, set: {shift: 7}}]\n"),
                ElementsAre(7.0, 4.0, 6.0));
}

TEST_F(PrecedenceTest, AppliesOverridesInOrderEachToWhatTheOnesBeforeMade) {
    EXPECT_THAT(shifts("items: [{prompt: p}]\n"
                       "overrides:\n"
                       "  - {match: {shift: 5}, set: {shift: 6}}\n"
                       "  - {match: {shift: 5}, set: {shift: 1}}\n"
                       "  - {match: {shift: 6}, set: {shift: 7}}\n"
                       "  - {set: {passes: 2}}\n"),
                ElementsAre(7.0));
}

TEST_F(PrecedenceTest, MatchesDefaultsThatNobodyWrote) {
    EXPECT_THAT(shifts("items: [{prompt: p}]\n"
                       "overrides: [{match: {steps.base: 8, resolution: 256p, task: t2av}, "
                       "set: {shift: 2}}]\n"),
                ElementsAre(2.0));
    EXPECT_THAT(shifts("items: [{prompt: p}]\n"
                       "overrides: [{match: {steps: {base: 8}}, set: {shift: 2}}]\n",
                       {{"model.variant=base"}, {}}),
                ElementsAre(5.0))
        << "the base model takes 32 steps";
}

TEST_F(PrecedenceTest, MatchesAnyOfSeveralValuesAndNamesByPattern) {
    const std::string items =
        "items: [{name: day-1, prompt: p}, {name: night-1, prompt: p}, {name: dusk, prompt: p}]\n";
    EXPECT_THAT(
        shifts(items + "overrides: [{match: {name: [\"day-*\", \"d?sk\"]}, set: {shift: 2}}]\n"),
        ElementsAre(2.0, 5.0, 2.0));
    EXPECT_THAT(
        shifts(items + "overrides: [{match: {resolution: [256p, 540p]}, set: {shift: 2}}]\n"),
        ElementsAre(2.0, 2.0, 2.0));
}

TEST_F(PrecedenceTest, SaysWhichOverrideMatchesNothing) {
    shifts("items: [{prompt: p}]\noverrides:\n  - {match: {resolution: 1080p}, set: {shift: 2}}\n");
    ASSERT_EQ(notes_.count(), 1U);
    EXPECT_EQ(notes_.all()[0].text, "this override matches no item");
    EXPECT_EQ(notes_.all()[0].where.line, 6);
}

TEST_F(PrecedenceTest, LetsLaterLayersUndoSecondsByFramesAndBack) {
    const auto frames = [&](const std::string& text, const ManifestOptions& options = {}) {
        return only(text, options).frames;
    };
    EXPECT_EQ(frames("defaults: {frames: 9}\nitems: [{prompt: p, seconds: 1}]"), 25);
    EXPECT_EQ(frames("defaults: {seconds: 1}\nitems: [{prompt: p, frames: 9}]"), 9);
    EXPECT_EQ(frames("items: [{prompt: p, frames: 9}]", {{"seconds=1"}, {}}), 25);
}

TEST_F(PrecedenceTest, MergesMapsFieldByField) {
    write("low.yaml",
          "defaults: {seconds: 1, steps: {base: 3, sr: 2}, decoder: wan}\n"
          "outputs: {video: {crf: 30}}\nretry: {attempts: 7}\n");
    const std::string text =
        "use: [low.yaml]\ndefaults: {steps: {base: 4}, passes: 2, guidance: 3}\n"
        "outputs: {video: {preset: slow}}\n"
        "items: [{name: b, prompt: p, frames: 7, guidance: {late: 1}}]\n";
    const Item item = only(text);
    EXPECT_EQ(item.frames, 7);
    EXPECT_EQ(item.base.steps, 4);
    EXPECT_EQ(item.super.steps, 2);
    EXPECT_EQ(item.base.guidance, 3.0);
    EXPECT_EQ(item.base.audio_guidance, 3.0);
    EXPECT_EQ(item.base.guidance_late, 1.0);
    EXPECT_EQ(item.decoder, VideoDecoder::wan);
    const Manifest manifest = parse(with_items(text));
    EXPECT_EQ(manifest.outputs.crf, 30);
    EXPECT_EQ(manifest.outputs.preset, "slow");
    EXPECT_EQ(manifest.retry.attempts, 7);
    EXPECT_EQ(parse(with_items(text), {{"outputs.video.crf=12", "name=other"}, {}}).outputs.crf,
              12);
}

TEST_F(PrecedenceTest, RefusesOverridesThatCannotBe) {
    EXPECT_THAT(
        mistakes(with_items("items: [{prompt: p}]\n"
                            "overrides:\n"
                            "  - {match: {resolutoin: 540p}, set: {shift: 2}}\n"
                            "  - {match: {resolution: 541p}, set: {shift: 2}}\n"
                            "  - {match: {resolution: 540p}, set: {name: x}}\n"
                            "  - {match: {resolution: 540p}}\n"
                            "  - {when: {}, set: {shift: 2}}\n"
                            "  - 7\n")),
        ElementsAre(HasSubstr("6:14: unknown key \"resolutoin\"; did you mean \"resolution\"?"),
                    HasSubstr("7:26: resolution is \"541p\""),
                    HasSubstr("8:45: name cannot be overridden"),
                    HasSubstr("9:5: an override without set changes nothing"),
                    HasSubstr("10:6: unknown key \"when\""),
                    HasSubstr("11:5: 7 (must be a map with match and set)")));
}

}  // namespace
}  // namespace gallop
