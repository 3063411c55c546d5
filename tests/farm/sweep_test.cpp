#include "farm/sweep.hpp"

#include "farm/manifest_case.hpp"

namespace gallop {
namespace {

using test::Clip;
using testing::ElementsAre;
using testing::HasSubstr;

class SweepTest : public test::ManifestCase {
protected:
    std::vector<std::string> cells(const std::string& text) {
        return each(clips(with_items(text)), [](const Clip& clip) { return clip.cell; });
    }
};

TEST_F(SweepTest, MultipliesTheMatrixTheFirstAxisSlowest) {
    EXPECT_THAT(cells("items: [{prompt: p}]\n"
                      "sweep: {matrix: {shift: [3.0, 5.0], steps.base: [8, 32]}}\n"),
                ElementsAre("shift=3-steps.base=8", "shift=3-steps.base=32", "shift=5-steps.base=8",
                            "shift=5-steps.base=32"));
    EXPECT_THAT(cells("items: [{prompt: p}]\nsweep: {matrix: {steps: {base: [8, 32]}}}\n"),
                ElementsAre("steps.base=8", "steps.base=32"));
}

TEST_F(SweepTest, StepsAZipInLockstepTimesTheMatrix) {
    EXPECT_THAT(
        cells("items: [{prompt: p}]\n"
              "sweep: {matrix: {shift: [3, 5]}, zip: [{resolution: [256p, 540p], seconds: [10, "
              "5]}]}\n"),
        ElementsAre("shift=3-resolution=256p-seconds=10", "shift=3-resolution=540p-seconds=5",
                    "shift=5-resolution=256p-seconds=10", "shift=5-resolution=540p-seconds=5"));
}

TEST_F(SweepTest, LeavesOutWhatIsExcludedAndAddsWhatIsIncluded) {
    EXPECT_THAT(cells("items: [{prompt: p}]\n"
                      "sweep:\n"
                      "  matrix: {shift: [3, 5], steps.base: [8, 32]}\n"
                      "  exclude: [{shift: 3, steps.base: 32}]\n"
                      "  include: [{shift: 9, seconds: 1}, {shift: 5, steps.base: 8}]\n"),
                ElementsAre("shift=3-steps.base=8", "shift=5-steps.base=8", "shift=5-steps.base=32",
                            "shift=9-seconds=1"))
        << "an included cell that is there already is no second one";
}

TEST_F(SweepTest, CollapsesTheAxisThatAnItemPins) {
    EXPECT_THAT(cells("items: [{prompt: p, shift: 7}]\n"
                      "sweep: {matrix: {shift: [3, 5], steps.base: [8, 32]}}\n"),
                ElementsAre("steps.base=8", "steps.base=32"));
    EXPECT_THAT(cells("items: [{prompt: p, shift: 7, steps: {base: 2}}]\n"
                      "sweep: {matrix: {shift: [3, 5], steps.base: [8, 32]}}\n"),
                ElementsAre(""));
    EXPECT_THAT(cells("items: [{prompt: p, frames: 9}]\nsweep: {matrix: {seconds: [1, 2]}}\n"),
                ElementsAre(""))
        << "frames pin seconds";
}

// guidance stands for four fields: an item that pins one of them still differs in the others.
TEST_F(SweepTest, KeepsAnAxisOfWhichAnItemPinsAPartOnly) {
    const auto made =
        clips(with_items("items: [{prompt: p, passes: 2, guidance.late: 1}]\n"
                         "sweep: {matrix: {guidance: [3, 5]}}\n"));
    ASSERT_EQ(made.size(), 2U);
    EXPECT_EQ(made[0].item.base.guidance, 3.0);
    EXPECT_EQ(made[1].item.base.guidance, 5.0);
    EXPECT_EQ(made[1].item.base.guidance_late, 1.0);
}

TEST_F(SweepTest, ExcludesByWhatAnItemPinsUnlessItPinsAllOfIt) {
    const std::string sweep =
        "sweep: {matrix: {resolution: [256p, 540p], steps.base: [8, 32]}, "
        "exclude: [{resolution: 256p, steps.base: 32}]}\n";
    EXPECT_THAT(cells("items: [{prompt: p, resolution: 256p}]\n" + sweep),
                ElementsAre("steps.base=8"));
    EXPECT_THAT(cells("items: [{prompt: p, resolution: 540p}]\n" + sweep),
                ElementsAre("steps.base=8", "steps.base=32"));
    EXPECT_THAT(cells("items: [{prompt: p, resolution: 256p, steps.base: 32}]\n" + sweep),
                ElementsAre(""))
        << "the item's own wish";
}

TEST_F(SweepTest, GivesEveryCellTheSameNoiseUnlessAsked) {
    const std::string text = "items: [{name: a, prompt: p}]\nsweep: {matrix: {shift: [3, 5]}}\n";
    auto made = clips(with_items(text + "seeds: {base: 7, samples: 2}\n"));
    ASSERT_EQ(made.size(), 4U);
    EXPECT_EQ(made[0].item.seed, derive_seed(7, "a", 0));
    EXPECT_EQ(made[2].item.seed, derive_seed(7, "a", 0));
    EXPECT_EQ(made[3].item.seed, derive_seed(7, "a", 1));
    EXPECT_THAT(names(made),
                ElementsAre("a-shift=3-s0", "a-shift=3-s1", "a-shift=5-s0", "a-shift=5-s1"));
    made = clips(with_items(text + "seeds: {base: 7, vary_by: [item, cell]}\n"));
    EXPECT_NE(made[0].item.seed, made[1].item.seed);
}

TEST_F(SweepTest, NamesCellsOfLongValuesByANumber) {
    const auto made =
        cells("items: [{name: a}]\nsweep: {matrix: {prompt: [rain, \"A long walk in it\"]}}\n");
    ASSERT_EQ(made.size(), 2U);
    EXPECT_EQ(made[0], "prompt=rain");
    EXPECT_THAT(made[1], testing::MatchesRegex("prompt=[0-9a-f]{8}"));
}

TEST_F(SweepTest, ListsEveryMistake) {
    EXPECT_THAT(mistakes(with_items(
                    "items: [{prompt: p}]\n"
                    "sweep:\n"
                    "  matrix: {guidence: [3], shift: 4, steps.base: [0, 8, 8], name: [a]}\n"
                    "  zip: [{resolution: [256p, 540p], seconds: [10]}]\n"
                    "  exclude: [{decoder: wan}, {}]\n"
                    "  include: [{shift: x}]\n")),
                ElementsAre(HasSubstr("6:12: unknown key \"guidence\"; did you mean \"guidance\"?"),
                            HasSubstr("6:34: shift of matrix is 4 (must be a list of values)"),
                            HasSubstr("6:50: steps.base is 0 (must be"),
                            HasSubstr("6:56: steps.base of matrix has 8 twice"),
                            HasSubstr("6:60: name cannot be swept"),
                            HasSubstr("7:45: zip has 1 values of seconds, but 2 of resolution"),
                            HasSubstr("8:23: exclude names decoder, which the sweep does not vary"),
                            HasSubstr("8:29: exclude has an empty map"),
                            HasSubstr("9:21: shift is x (must be a number")));
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p}]\n"
                                    "sweep: {matrix: {shift: [3]}, zip: {shift: [4]}}\n")),
                ElementsAre(HasSubstr("sweep varies shift twice")));
    EXPECT_THAT(mistakes(with_items("items: [{name: a, prompt: p}]\n"
                                    "sweep: {matrix: {shift: [3]}, exclude: [{shift: 3}]}\n")),
                ElementsAre("4:9: item \"a\": exclude leaves no cell of the sweep"));
}

}  // namespace
}  // namespace gallop
