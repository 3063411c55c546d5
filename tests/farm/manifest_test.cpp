#include "farm/manifest.hpp"

#include "farm/manifest_case.hpp"

namespace gallop {
namespace {

using test::Clip;
using testing::ElementsAre;
using testing::HasSubstr;

using ManifestTest = test::ManifestCase;

TEST_F(ManifestTest, ReadsAnItemWithTheDefaultsOfTheDistilledModel) {
    const std::string text = with_items("items: [{name: cafe, prompt: A barista}]");
    const Manifest manifest = parse(text);
    EXPECT_EQ(manifest.name, "test");
    EXPECT_EQ(manifest.outputs.root, "runs/test");
    EXPECT_EQ(manifest.model.path, (folder_ / "model").string());
    const std::vector<Clip> all = clips(text);
    ASSERT_EQ(all.size(), 1U);
    const Item& item = all[0].item;
    EXPECT_EQ(item.name, "cafe");
    EXPECT_EQ(item.prompt, "A barista");
    EXPECT_EQ(item.seed, 42U);
    EXPECT_EQ(item.variant, "distill");
    EXPECT_EQ(item.base.steps, 8);
    EXPECT_EQ(item.base.passes, 1);
    EXPECT_EQ(item.sr, "");
    EXPECT_EQ(item.size, (Size{448, 256}));
    EXPECT_EQ(item.frames, 125);
    EXPECT_EQ(item.audio_latents, 126);
}

TEST_F(ManifestTest, GivesTheBaseModelGuidance) {
    const Item item = only("defaults: {}\nitems: [{prompt: p}]", {{"model.variant=base"}, {}});
    EXPECT_EQ(item.base.steps, 32);
    EXPECT_EQ(item.base.passes, 2);
    EXPECT_EQ(item.base.guidance, 5.0);
    EXPECT_EQ(item.base.guidance_late, 2.0);
    EXPECT_EQ(item.base.guidance_until, 500);
    EXPECT_EQ(item.base.audio_guidance, 5.0);
}

TEST_F(ManifestTest, NamesTheLineOfAnUnknownKey) {
    EXPECT_THAT(mistakes(with_items("items:\n  - prompt: p\n    sed: 4\n")),
                ElementsAre("6:5: unknown key \"sed\"; did you mean \"seed\"?"));
}

TEST_F(ManifestTest, ListsEveryMistakeAtOnceInOrder) {
    const auto lines = mistakes(
        "version: 1\n"
        "name: test\n"
        "model: {path: nowhere, variant: destill}\n"
        "defaults:\n"
        "  seconds: -1\n"
        "items:\n"
        "  - {name: a, prompt: p, image: no.png}\n"
        "  - {name: a, prompt: q, resolution: 450x256}\n"
        "  - {name: c, resolution: 256p, steps: {base: 0}}\n"
        "  - {name: d, prompt: p, seconds: 1, frames: 5}\n"
        "sweep: {matrx: {}}\n");
    EXPECT_THAT(
        lines,
        ElementsAre(
            "3:15: model.path is \"nowhere\", but there is no such folder (ROOT/nowhere)",
            "3:33: model.variant is destill (must be one of: base, distill); did you mean distill?",
            "5:12: seconds is -1 (must be a number from 0.001 to 600)",
            "7:33: image is \"no.png\", but there is no such file (ROOT/no.png)",
            HasSubstr("8:12: name is \"a\", as at ROOT/m.yaml:7:12 (names must differ)"),
            "8:38: resolution is 450x256 (width and height must be multiples of 32 from 32 to "
            "8192); the nearest is 448x256",
            "9:5: an item without a prompt",
            "9:47: steps.base is 0 (must be a whole number from 1 to 1000)",
            "10:46: frames stands beside seconds (one of the two)",
            "11:9: unknown key \"matrx\"; did you mean \"matrix\"?"));
}

TEST_F(ManifestTest, RefusesAnotherVersion) {
    EXPECT_THAT(mistakes("version: 2\nname: a\nmodel: {path: model}\nitems: [{prompt: p}]\n"),
                ElementsAre("1:10: version is 2 (this program reads version 1)"));
}

TEST_F(ManifestTest, WantsAtLeastOneItem) {
    EXPECT_THAT(mistakes(with_items("items: []\n")), ElementsAre(HasSubstr("items is empty")));
    EXPECT_THAT(mistakes(with_items("")), ElementsAre(HasSubstr("items is empty")));
    EXPECT_THAT(mistakes(with_items("items: cafe\n")), ElementsAre("4:8: items must be a list"));
}

TEST_F(ManifestTest, WantsVersionNameAndModel) {
    EXPECT_THAT(mistakes("items: [{prompt: p}]\n"),
                testing::UnorderedElementsAre(HasSubstr("\"version\" is missing"),
                                              HasSubstr("\"name\" is missing"),
                                              HasSubstr("model.path is missing")));
}

TEST_F(ManifestTest, KnowsTheNamedResolutions) {
    Item item = only("items: [{prompt: p, resolution: 540p}]");
    EXPECT_EQ(item.base_size, (Size{448, 256}));
    EXPECT_EQ(item.size, (Size{896, 512}));
    EXPECT_EQ(item.sr, "540p_sr");
    EXPECT_EQ(item.super.steps, 5);
    item = only("items: [{prompt: p, resolution: 1080p}]");
    EXPECT_EQ(item.base_size, (Size{448, 256}));
    EXPECT_EQ(item.size, (Size{1920, 1088}));
    EXPECT_EQ(item.sr, "1080p_sr");
    item = only("items: [{prompt: p, resolution: 540p, sr: none}]");
    EXPECT_EQ(item.base_size, (Size{896, 512}));
    EXPECT_EQ(item.sr, "");
}

TEST_F(ManifestTest, TakesAnySizeThatIsAMultipleOf32) {
    Item item = only("items: [{prompt: p, resolution: 64x96}]");
    EXPECT_EQ(item.size, (Size{64, 96}));
    EXPECT_EQ(item.base_size, (Size{64, 96}));
    EXPECT_EQ(item.sr, "");
    item = only("items: [{prompt: p, resolution: 640x384, sr: 540p_sr, base_resolution: 320x192}]");
    EXPECT_EQ(item.base_size, (Size{320, 192}));
    for (const char* wrong : {"0x32", "-32x32", "32x", "x32", "32x32x32", "99999999999999999999x32",
                              "8224x32", "540", "32 x 32"})
        EXPECT_THAT(mistakes(with_items(std::string("items: [{prompt: p, resolution: \"") + wrong +
                                        "\"}]")),
                    ElementsAre(HasSubstr("4:33: resolution is ")))
            << wrong;
}

TEST_F(ManifestTest, HalvesTheSizeForTheBaseStageAndSaysSo) {
    const Item item = only("items: [{prompt: p, resolution: 704x384, sr: 540p_sr}]");
    EXPECT_EQ(item.base_size, (Size{352, 192}));
    ASSERT_EQ(notes_.count(), 1U);
    EXPECT_EQ(notes_.all()[0].text,
              "the base stage runs at 352x192, half of 704x384; base_resolution sets another size");
    EXPECT_EQ(notes_.all()[0].where.column, 33);
}

TEST_F(ManifestTest, RefusesABaseSizeWithoutSuperResolution) {
    EXPECT_THAT(
        mistakes(with_items("items: [{prompt: p, resolution: 256p, base_resolution: 64x64}]")),
        ElementsAre(
            HasSubstr("4:56: base_resolution is 64x64, but no super-resolution stage follows")));
    EXPECT_THAT(
        mistakes(with_items("items: [{prompt: p, resolution: 540p, base_resolution: 1080p}]")),
        ElementsAre("4:56: base_resolution is 1920x1088 (at most the final 896x512)"));
}

// 25 sound latents a second and one more; four pictures a latent frame and one more.
TEST(ClipLength, FollowsFromSeconds) {
    const auto check = [](double seconds, int latents, int frames) {
        EXPECT_EQ(length_of_seconds(seconds).audio_latents, latents) << seconds;
        EXPECT_EQ(length_of_seconds(seconds).frames, frames) << seconds;
    };
    check(4, 101, 101);
    check(5, 126, 125);
    check(10, 251, 249);
    check(1, 26, 25);
    check(1.16, 30, 29);
    check(0.04, 2, 1);
    check(0.001, 1, 1);
}

TEST(ClipLength, FollowsFromFrames) {
    const auto check = [](int frames, int latents) {
        EXPECT_EQ(length_of_frames(frames).frames, frames);
        EXPECT_EQ(length_of_frames(frames).audio_latents, latents) << frames;
    };
    check(1, 1);
    check(2, 5);
    check(5, 5);
    check(6, 9);
    check(125, 125);
    check(126, 129);
}

// Whole latents of 2048 samples up to 29 s; above, in windows, what is begun counts.
TEST(ClipLength, FollowsFromDrivingSound) {
    const auto check = [](Index samples, int latents, int frames) {
        EXPECT_EQ(length_of_sound(samples).audio_latents, latents) << samples;
        EXPECT_EQ(length_of_sound(samples).frames, frames) << samples;
    };
    check(4 * 51200, 100, 97);
    check(2047, 0, 0);
    check(2048, 1, 1);
    check(4095, 1, 1);
    check(51200 + 1000, 25, 25);
    check(29 * 51200 - 1, 724, 721);
    check(29 * 51200, 725, 725);
    check(29 * 51200 + 1, 726, 725);
    check(29 * 51200 + 25600, 738, 737);  // 29.5 s: 737.5
    check(30 * 51200, 750, 749);
}

TEST(ClipLength, CountsTheSamplesOfADuration) {
    EXPECT_EQ(samples_of_seconds(4), 204800);
    EXPECT_EQ(samples_of_seconds(29.5), 1510400);
    EXPECT_EQ(samples_of_seconds(0.145), 7424);  // 7,423.999… in doubles
    EXPECT_EQ(samples_of_seconds(0.001), 51);
}

TEST_F(ManifestTest, NamesTheSettingThatIsWrong) {
    const std::string text = with_items("items: [{prompt: p}, {prompt: q}]");
    EXPECT_THAT(
        mistakes(text, {{"steps.base=no"}, {}}),
        ElementsAre(
            "--set steps.base=no: steps.base is no (must be a whole number from 1 to 1000)"));
    EXPECT_THAT(mistakes(text, {{"step.base=1"}, {}}),
                ElementsAre("--set step.base=1: unknown key \"step\"; did you mean \"steps\"?"));
    EXPECT_THAT(mistakes(text, {{"items=[]"}, {}}),
                ElementsAre(HasSubstr("items cannot be set from the command line")));
    EXPECT_THAT(mistakes(text, {{"steps"}, {}}), ElementsAre(HasSubstr("must be NAME=VALUE")));
}

TEST_F(ManifestTest, NamesThePresetThatIsMissingOrWrong) {
    EXPECT_THAT(mistakes(with_items("use: [presets/distil-540p.yaml]\nitems: [{prompt: p}]")),
                ElementsAre(HasSubstr("did you mean \"presets/distill-540p.yaml\"?")));
    write("bad.yaml", "defaults:\n  seconds: long\n");
    EXPECT_THAT(
        mistakes(with_items("use: [bad.yaml]\nitems: [{prompt: p}]")),
        ElementsAre("ROOT/bad.yaml:2:12: seconds is long (must be a number from 0.001 to 600)"));
    write("nested.yaml", "use: [bad.yaml]\n");
    EXPECT_THAT(mistakes(with_items("use: [nested.yaml]\nitems: [{prompt: p}]")),
                ElementsAre(HasSubstr("ROOT/nested.yaml:1:6: use stands in a preset")));
}

TEST_F(ManifestTest, ReadsTheShippedPresets) {
    const Item draft = only("use: [presets/draft-256p.yaml]\nitems: [{prompt: p}]");
    EXPECT_EQ(draft.size, (Size{448, 256}));
    EXPECT_EQ(draft.variant, "distill");
    const Item base = only("use: presets/base-256p.yaml\nitems: [{prompt: p}]");
    EXPECT_EQ(base.variant, "base");
    EXPECT_EQ(base.base.steps, 32);
    EXPECT_EQ(only("use: [presets/distill-540p.yaml]\nitems: [{prompt: p}]").sr, "540p_sr");
    EXPECT_EQ(only("use: [presets/distill-1080p.yaml]\nitems: [{prompt: p}]").size,
              (Size{1920, 1088}));
}

TEST_F(ManifestTest, ChecksTheTaskAgainstTheInputs) {
    EXPECT_EQ(mistakes(with_items("items: [{prompt: p, task: ti2av, image: photo.png}]")).size(),
              0U);
    EXPECT_EQ(
        mistakes(with_items("items: [{prompt: p, task: a2v, image: photo.png, audio: voice.wav}]"))
            .size(),
        0U);
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, task: ti2av}]")),
                ElementsAre("4:27: task is ti2av (needs image)"));
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, task: a2v, image: photo.png}]")),
                ElementsAre("4:27: task is a2v (needs audio)"));
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, task: t2av, image: photo.png}]")),
                ElementsAre(HasSubstr("4:27: task is t2av, but image is \"photo.png\"")));
}

TEST_F(ManifestTest, LetsAnItemsImageWinOverTheTaskOfTheDefaults) {
    const Item item = only("defaults: {task: t2av}\nitems: [{prompt: p, image: photo.png}]");
    EXPECT_EQ(item.image, (folder_ / "photo.png").string());
    EXPECT_THAT(mistakes(with_items("defaults: {task: ti2av}\nitems: [{prompt: p}]")),
                ElementsAre("4:18: task is ti2av (needs image)"));
}

TEST_F(ManifestTest, ReadsANegativePromptFromAFile) {
    write("faults.txt", "blurry");
    EXPECT_EQ(
        only("items: [{prompt: p, passes: 2, negative_prompt_file: faults.txt}]").negative_prompt,
        "blurry");
    write("lines.txt", "blurry\r\n\r\nshaky\r\n\r\n\n");
    EXPECT_EQ(
        only("items: [{prompt: p, passes: 2, negative_prompt_file: lines.txt}]").negative_prompt,
        "blurry\r\n\r\nshaky");
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, negative_prompt_file: none.txt}]")),
                ElementsAre(HasSubstr("4:43: negative_prompt_file: ROOT/none.txt: cannot open")));
    EXPECT_THAT(mistakes(with_items(
                    "items: [{prompt: p, negative_prompt: n, negative_prompt_file: faults.txt}]")),
                ElementsAre(HasSubstr("negative_prompt_file stands beside negative_prompt")));
}

TEST_F(ManifestTest, TakesTheShippedNegativePromptWhereOneIsUsed) {
    EXPECT_EQ(only("items: [{prompt: p, negative_prompt: n}]").negative_prompt, "");
    EXPECT_EQ(only("items: [{prompt: p, negative_prompt: n, passes: 2}]").negative_prompt, "n");
    const std::string shipped = only("items: [{prompt: p, passes: 2}]").negative_prompt;
    EXPECT_GT(shipped.size(), 100U);
    EXPECT_EQ(only("items: [{prompt: p, resolution: 540p, sr: {passes: 2}}]").negative_prompt,
              shipped);
}

TEST_F(ManifestTest, WantsTheFoldersOfTheNetworksInUse) {
    std::filesystem::remove(folder_ / "model" / "540p_sr");
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, resolution: 540p}]")),
                ElementsAre("3:15: model.path is \"ROOT/model\", but it has no folder 540p_sr"));
}

TEST_F(ManifestTest, DrawsSeedsFromNamesAndSamples) {
    const auto seeds = each(
        clips(with_items(
            "seeds: {base: 7, samples: 2}\n"
            "items: [{name: a, prompt: p}, {name: b, prompt: p}, {name: c, prompt: p, seed: 9}]")),
        [](const Clip& clip) { return clip.item.seed; });
    EXPECT_THAT(seeds,
                ElementsAre(derive_seed(7, "a", 0), derive_seed(7, "a", 1), derive_seed(7, "b", 0),
                            derive_seed(7, "b", 1), 9U, derive_seed(9, "", 1)));
    std::vector<std::uint64_t> sorted = seeds;
    for (const std::uint64_t seed : sorted) EXPECT_LT(seed, std::uint64_t{1} << 53);
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(std::unique(sorted.begin(), sorted.end()), sorted.end());
}

TEST_F(ManifestTest, NamesSamples) {
    EXPECT_THAT(names(clips(with_items("seeds: {samples: 2}\nitems: [{name: a, prompt: p}]"))),
                ElementsAre("a-s0", "a-s1"));
}

TEST_F(ManifestTest, SharesSeedsWhereItemsAreNotToDiffer) {
    const auto seeds = each(
        clips(with_items("seeds: {base: 7, vary_by: sample}\nitems: [{prompt: p}, {prompt: q}]")),
        [](const Clip& clip) { return clip.item.seed; });
    EXPECT_THAT(seeds, ElementsAre(7U, 7U));
    EXPECT_THAT(mistakes(with_items("seeds: {samples: 2, vary_by: [item]}\nitems: [{prompt: p}]")),
                ElementsAre(HasSubstr("4:8: samples is 2, but vary_by does not name sample")));
    EXPECT_THAT(mistakes(with_items("seeds: {vary_by: [sampel]}\nitems: [{prompt: p}]")),
                ElementsAre("4:19: seeds.vary_by names \"sampel\" (must be a list of: item, cell, "
                            "sample); did you mean sample?"));
}

TEST_F(ManifestTest, ChoosesWhatFp8IsAbout) {
    const auto with = [&](const std::string& model) {
        return "version: 1\nname: test\nmodel: {path: model, " + model + "}\nitems: [{prompt: p}]";
    };
    EXPECT_EQ(parse(with("precision: fp8")).model.fp8, Fp8Choice{});
    const Manifest manifest = parse(
        with("precision: fp8, fp8: {linears: [up, down], layers: \"4-35\", text_encoder: true}"));
    EXPECT_THAT(manifest.model.fp8.linears, ElementsAre("up", "down"));
    EXPECT_EQ(manifest.model.fp8.layers, "4-35");
    EXPECT_TRUE(manifest.model.fp8.text_encoder);

    const auto only = [&](const std::string& model, const ManifestOptions& options = {}) {
        const auto all = mistakes(with(model), options);
        EXPECT_EQ(all.size(), 1U) << model;
        return all.empty() ? std::string() : all[0];
    };
    EXPECT_THAT(only("precision: fp8, fp8: {linears: [upp]}"), HasSubstr("did you mean up"));
    EXPECT_THAT(only("precision: fp8, fp8: {linears: []}"), HasSubstr("qkv, proj, up, down"));
    EXPECT_THAT(only("precision: fp8, fp8: {layers: most}"), HasSubstr("\"inner\""));
    EXPECT_THAT(only("precision: fp8, fp8: {layers: \"30-40\"}"), HasSubstr("layers 0 to 39"));
    EXPECT_EQ(parse(with("precision: fp8, fp8: {qkv: none, up: \"1-4\"}")).model.fp8,
              (Fp8Choice{.qkv = "none", .up = "1-4"}));
    EXPECT_THAT(only("precision: fp8, fp8: {up: \"30-40\"}"),
                testing::AllOf(HasSubstr("model.fp8.up"), HasSubstr("layers 0 to 39")));
    EXPECT_THAT(only("fp8: {layers: all}"), HasSubstr("only fp8 multiplies in E4M3"));
    // One look at bf16 needs no editing.
    EXPECT_THAT(
        mistakes(with("precision: fp8, fp8: {layers: all}"), {{"model.precision=bf16"}, {}}),
        testing::IsEmpty());
}

TEST_F(ManifestTest, ReadsOutputs) {
    const Manifest manifest =
        parse(with_items("outputs: {root: there, video: {crf: 20, preset: slow, pix_fmt: yuv444p}, "
                         "audio: {bitrate: 96k}, "
                         "latents: {keep: [final], dtype: f32}}\nitems: [{prompt: p}]"));
    EXPECT_EQ(manifest.outputs.root, "there");
    EXPECT_EQ(manifest.outputs.crf, 20);
    EXPECT_EQ(manifest.outputs.preset, "slow");
    EXPECT_EQ(manifest.outputs.audio_bitrate, 96000);
    EXPECT_FALSE(manifest.outputs.keep_base);
    EXPECT_TRUE(manifest.outputs.keep_final);
    EXPECT_EQ(manifest.outputs.latents, DType::f32);
    EXPECT_THAT(
        mistakes(with_items(
            "outputs: {audio: {bitrate: 9k}, latents: {keep: [bass]}}\nitems: [{prompt: p}]")),
        ElementsAre("4:28: outputs.audio.bitrate is 9k (bits a second, from 32k to 512k)",
                    HasSubstr("outputs.latents.keep names \"bass\"")));
}

TEST_F(ManifestTest, RefusesZeroBytesAndPathsAsNames) {
    EXPECT_THAT(mistakes(with_items("items: [{prompt: \"a\\0b\"}]")),
                ElementsAre("4:18: text holds the character U+0000"));
    EXPECT_THAT(mistakes("version: 1\nname: ../up\nmodel: {path: model}\nitems: [{prompt: p}]\n"),
                ElementsAre(HasSubstr("2:7: name is \"../up\"")));
    EXPECT_THAT(
        mistakes("version: 1\nname: \"a\\eb\"\nmodel: {path: model}\n"
                 "items: [{prompt: p, name: \"c\\nd\"}, {prompt: p, name: \"\\u009b2J\"}]\n"),
        ElementsAre(
            "2:7: name is \"a\\u001bb\" (names a folder: no control characters)",
            "4:27: name is \"c\\nd\" (must be one line without control characters, but holds "
            "U+000A)",
            "4:54: name is \"\\u009b2J\" (must be one line without control characters, but "
            "holds U+009B)"));
}

TEST_F(ManifestTest, TellsDuplicateKeysAndEmptyValuesBesideAllOtherMistakes) {
    EXPECT_THAT(
        mistakes(with_items("items:\n  - prompt:\n    seed: 1\n    seed: 2\n  - prompt: p\n"
                            "    secnods: 3\nname: again\n")),
        ElementsAre("5:5: prompt is empty (must be text)", "7:5: duplicate key \"seed\"",
                    HasSubstr("9:5: unknown key \"secnods\""), "10:1: duplicate key \"name\""));
}

TEST_F(ManifestTest, SaysOnceThatAPromptIsEmptyWhereverItStands) {
    const std::string two = "items: [{name: a}, {name: b}]\n";
    for (const std::string& empty : std::vector<std::string>{"~", "\"\"", "\" \""}) {
        const auto only_once = ElementsAre(HasSubstr("prompt is empty (must be text)"));
        EXPECT_THAT(mistakes(with_items("items: [{name: a, prompt: " + empty + "}]\n")), only_once);
        EXPECT_THAT(mistakes(with_items("defaults: {prompt: " + empty + "}\n" + two)), only_once);
        EXPECT_THAT(
            mistakes(with_items(two + "overrides: [{match: {}, set: {prompt: " + empty + "}}]\n")),
            only_once);
    }
    EXPECT_THAT(mistakes(with_items("items: [{name: a, prompt: [p]}]\n")),
                ElementsAre(HasSubstr("prompt is a list (must be text)")));
    EXPECT_THAT(mistakes(with_items("items: [{name: a}]\nsweep: {matrix: {seed: [1, 2]}}\n")),
                ElementsAre(HasSubstr("an item without a prompt")));
}

TEST_F(ManifestTest, TakesDottedAndNestedFieldsAlike) {
    EXPECT_EQ(only("items: [{prompt: p, steps.base: 3, guidance.late: 1, passes: 2}]").base.steps,
              3);
    EXPECT_EQ(only("items: [{prompt: p, steps: {base: 3}}]").base.steps, 3);
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, steps: 3}]")),
                ElementsAre("4:28: steps is 3 (must be a map with base, sr)"));
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, steps: {base: 3}, steps.base: 4}]")),
                ElementsAre("4:39: steps.base is set twice in one place"));
    EXPECT_THAT(mistakes(with_items("items: [{prompt: p, steps: {bsae: 3}}]")),
                ElementsAre("4:29: unknown key \"bsae\"; did you mean \"base\"?"));
}

TEST_F(ManifestTest, SpreadsOneGuidanceOverPictureAndSound) {
    const Item item = only("items: [{prompt: p, passes: 2, guidance: 1.5}]");
    EXPECT_EQ(item.base.guidance, 1.5);
    EXPECT_EQ(item.base.audio_guidance, 1.5);
    EXPECT_EQ(item.base.guidance_late, 1.5);
    EXPECT_EQ(item.base.guidance_until, 500);
}

}  // namespace
}  // namespace gallop
