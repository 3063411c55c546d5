#include "farm/plan.hpp"

#include <set>

#include "farm/canonical_json.hpp"
#include "farm/id_set.hpp"
#include "farm/plan_case.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class PlanTest : public test::PlanCase {
protected:
    std::string id(const std::string& item, const ManifestOptions& options = {}) {
        return planned("items: [{" + item + "}]", options).at(0).item.id;
    }
    std::string refusal(const std::string& items, const ManifestOptions& options = {},
                        bool extend = false) {
        try {
            plan(items, options, extend);
        } catch (const InputError& wrong) {
            return wrong.what();
        }
        return "";
    }
};

TEST_F(PlanTest, GivesIdsOf32HexDigits) {
    EXPECT_THAT(id("prompt: p"), testing::MatchesRegex("[0-9a-f]{32}"));
}

TEST_F(PlanTest, GivesTheSameIdWhateverTheNameAndTheEncoding) {
    const std::string first = id("name: a, prompt: p");
    EXPECT_EQ(id("name: b, prompt: p"), first);
    EXPECT_EQ(id("prompt: p", {{"outputs.video.crf=30", "outputs.latents.keep=[]"}, {}}), first);
    EXPECT_EQ(id("prompt: p, seconds: 5, seed: 42, steps: {base: 8}"), first);
}

TEST_F(PlanTest, GivesAnotherIdForWhateverChangesPixels) {
    std::set<std::string> ids = {id("prompt: p")};
    for (const char* item :
         {"prompt: q", "prompt: p, seed: 1", "prompt: p, seconds: 4", "prompt: p, frames: 124",
          "prompt: p, steps: {base: 9}", "prompt: p, shift: 4", "prompt: p, resolution: 64x64",
          "prompt: p, resolution: 540p", "prompt: p, resolution: 540p, steps: {sr: 4}",
          "prompt: p, decoder: wan", "prompt: p, passes: 2, negative_prompt: n",
          "prompt: p, image: photo.png", "prompt: p, passes: 2"})
        EXPECT_TRUE(ids.insert(id(item)).second) << item;
    EXPECT_TRUE(ids.insert(id("prompt: p", {{"model.precision=fp32"}, {}})).second);
    EXPECT_TRUE(ids.insert(id("prompt: p", {{"model.precision=fp8"}, {}})).second);
    for (const char* choice : {"linears=[up, down]", "layers=all", "text_encoder=true"})
        EXPECT_TRUE(
            ids.insert(id("prompt: p",
                          {{"model.precision=fp8", std::string("model.fp8.") + choice}, {}}))
                .second)
            << choice;
}

TEST_F(PlanTest, LetsInputsAndWeightsCountByContent) {
    const std::string plain = id("prompt: p");
    const std::string before = id("prompt: p, image: photo.png");
    write("copy.png", "one");
    EXPECT_EQ(id("prompt: p, image: copy.png"), before);
    write("photo.png", "two");
    EXPECT_NE(id("prompt: p, image: photo.png"), before);

    write("model/540p_sr/model.safetensors", "changed");
    EXPECT_EQ(id("prompt: p"), plain) << "a network that the item does not use";
    write("model/distill/model.safetensors", "changed");
    EXPECT_NE(id("prompt: p"), plain);
}

TEST_F(PlanTest, ReadsWeightsOnceOnly) {
    const WeightsDigests first = digest_weights(folder_ / "model", {"distill"}, folder_ / "c.json");
    EXPECT_EQ(first.size(), 2U);
    // Another text in the cache is believed: the file was not read again.
    std::string cache = read_text(folder_ / "c.json");
    const std::size_t at = cache.find("distill/model.safetensors");
    ASSERT_NE(at, std::string::npos);
    const std::size_t digest = cache.find_last_of('"', cache.find(']', at)) - 64;
    cache.replace(digest, 64, 64, '0');
    std::ofstream(folder_ / "c.json") << cache;
    EXPECT_NE(digest_weights(folder_ / "model", {"distill"}, folder_ / "c.json"), first);
    std::ofstream(folder_ / "c.json") << "no JSON";
    EXPECT_EQ(digest_weights(folder_ / "model", {"distill"}, folder_ / "c.json"), first);
    EXPECT_EQ(digest_weights(folder_ / "model", {"distill"}, ""), first);
}

TEST_F(PlanTest, TakesTheLengthFromDrivingSound) {
    write_sound("voice.wav", 51200);
    Item item = planned("items: [{prompt: p, audio: voice.wav, seconds: 4}]")[0].item;
    EXPECT_EQ(item.audio_latents, 25);
    EXPECT_EQ(item.frames, 25);
    item = planned("items: [{prompt: p, audio: voice.wav, seconds: 0.4}]")[0].item;
    EXPECT_EQ(item.audio_latents, 10);
    EXPECT_EQ(item.frames, 9);
    item = planned("items: [{prompt: p, audio: voice.wav, frames: 8}]")[0].item;
    EXPECT_EQ(item.audio_latents, 9);
    EXPECT_EQ(item.frames, 8);
    EXPECT_EQ(item.audio_samples, 9 * 2048);
}

TEST_F(PlanTest, KeepsEverySampleOfDrivingSound) {
    const std::string one = "items: [{prompt: p, audio: voice.wav, seconds: 60}]";
    const auto item = [&](int samples) {
        write_sound("voice.wav", samples);
        return planned(one)[0].item;
    };
    const Item rest = item(51200 + 1000);
    EXPECT_EQ(rest.audio_samples, 52200);
    EXPECT_EQ(rest.audio_latents, 25);
    EXPECT_THAT(read_text(run_ / "items.lock.jsonl"), HasSubstr(R"("audio_samples":52200,)"));
    const Item long_one = item(29 * 51200 + 25600);  // 29.5 s, in windows: 737.5 latents
    EXPECT_EQ(long_one.audio_samples, 1510400);
    EXPECT_EQ(long_one.audio_latents, 738);
    EXPECT_EQ(long_one.frames, 737);
    // Whole latents say it themselves: a plan from before reads, and is, the same.
    EXPECT_EQ(item(51200).audio_samples, 51200);
    EXPECT_THAT(read_text(run_ / "items.lock.jsonl"), Not(HasSubstr("audio_samples")));
    EXPECT_EQ(planned("items: [{prompt: p}]")[0].item.audio_samples, 0);
}

TEST_F(PlanTest, TakesAsMuchSoundAsTheLengthAskedFor) {
    write_sound("voice.wav", 60000);
    // 29 pictures are 1.16 s: 59,391.999… samples in doubles.
    for (const char* length : {"frames: 29", "seconds: 1.16"}) {
        const Item item =
            planned(std::string("items: [{prompt: p, audio: voice.wav, ") + length + "}]")[0].item;
        EXPECT_EQ(item.audio_samples, 29 * 2048) << length;
        EXPECT_EQ(item.audio_latents, 29) << length;
        EXPECT_EQ(item.frames, 29) << length;
    }
}

TEST_F(PlanTest, SaysWhereSoundIsCutThatNobodyAskedToCut) {
    write_sound("voice.wav", 6 * 51200);
    const auto notes = [&](const std::string& length) {
        run_ = folder_ / ("cut" + length);
        return plan("items:\n  - {prompt: p, audio: voice.wav" + length + "}\n").notes.all();
    };
    const auto cut = notes("");
    ASSERT_EQ(cut.size(), 1U);
    EXPECT_THAT(to_string(cut[0].where), HasSubstr("m.yaml:5:5"));
    EXPECT_THAT(cut[0].text, HasSubstr("only the first 5 s of"));
    for (const char* length : {", seconds: 5", ", frames: 20", ", seconds: 9"})
        EXPECT_EQ(notes(length).size(), 0U) << length;
}

TEST_F(PlanTest, NamesTheItemWhoseSoundIsTooShort) {
    write_sound("click.wav", 2000);
    write_sound("voice.wav", 51200);
    try {
        plan(
            "items:\n  - {prompt: p, audio: click.wav}\n  - {prompt: p, audio: voice.wav, frames: "
            "125}\n"
            "  - {prompt: p, audio: photo.png}\n");
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("m.yaml:5:5: item \"item-0001\""));
        EXPECT_THAT(wrong.what(), HasSubstr("m.yaml:6:5: item \"item-0002\""));
        EXPECT_THAT(wrong.what(), HasSubstr("m.yaml:7:5: "));
    }
}

TEST_F(PlanTest, SaysWhichPromptsAreReadInPart) {
    const std::string once = "    prompt: \"" + std::string(5000, 'a') + "\"\n";
    const PlanResult made = plan("items:\n  - name: long\n" + once +
                                 "  - {name: short, prompt: p}\n"
                                 "sweep: {matrix: {steps.base: [2, 3]}}\n");
    ASSERT_EQ(made.notes.all().size(), 1U);
    EXPECT_THAT(to_string(made.notes.all()[0].where), HasSubstr("m.yaml:6:13"));
    EXPECT_THAT(made.notes.all()[0].text, HasSubstr("prompt: the prompt has about 1353 tokens"));
}

// Each line is written by hand for speed; it must be what the JSON library makes of it.
TEST_F(PlanTest, WritesCanonicalLines) {
    write("a.jsonl", R"({"name": "n\"1", "prompt": "a \"quote\" \u0007 é", "image": "photo.png"})"
                     "\n");
    write_sound("voice.wav", 3000);
    plan(
        "items: [{from: a.jsonl}, {name: b, prompt: q, resolution: 540p, passes: 2, decode.tiled: "
        "true, sr: {passes: 2, audio_noise: 1e-7}, audio: voice.wav}]\n"
        "sweep: {matrix: {steps.base: [2, 3]}}\nseeds: {base: 5, samples: 2}\n");
    const std::string text = read_text(run_ / "items.lock.jsonl");
    std::size_t lines = 0;
    for (std::size_t at = 0; at < text.size(); ++lines) {
        const std::size_t end = text.find('\n', at);
        const std::string line = text.substr(at, end - at);
        EXPECT_EQ(line, canonical_json(nlohmann::json::parse(line)));
        at = end + 1;
    }
    EXPECT_EQ(lines, 8U);
    const auto items = read();  // and each agrees with its id
    EXPECT_EQ(items[0].item.name, "n\"1-steps.base=2-s0");
    EXPECT_EQ(items[0].item.prompt, "a \"quote\" \u0007 é");
    EXPECT_EQ(items[0].cell, nlohmann::json({{"steps.base", 2}}));
    EXPECT_EQ(items[1].item.seed, derive_seed(5, "n\"1", 1));
    EXPECT_TRUE(items[4].item.tiled_decode);
    EXPECT_EQ(items[4].item.super.passes, 2);
    EXPECT_EQ(items[4].item.audio_samples, 3000);
    EXPECT_GT(items[4].item.negative_prompt.size(), 100U);
    EXPECT_EQ(id_of(items[7].resolved), items[7].item.id);
}

TEST_F(PlanTest, RendersDuplicatesOnceAndKeepsTheirNames) {
    const PlanResult made =
        plan("items: [{name: a, prompt: p}, {name: b, prompt: p}, {name: c, prompt: q}]");
    EXPECT_EQ(made.config.items, 2U);
    EXPECT_EQ(made.config.duplicates, 1U);
    const auto items = read();
    EXPECT_EQ(items[0].item.name, "a");
    EXPECT_EQ(items[1].item.name, "c");
    EXPECT_EQ(read_text(run_ / "duplicates.jsonl"),
              "{\"id\":\"" + items[0].item.id + "\",\"name\":\"b\"}\n");
}

TEST_F(PlanTest, CountsAndPredictsByBucket) {
    const PlanResult made = plan(
        "items: [{name: a, prompt: p}, {name: b, prompt: q}, {name: c, prompt: q, seconds: 1}]\n"
        "outputs: {latents: {keep: []}}");
    ASSERT_EQ(made.config.buckets.size(), 2U);
    const Bucket& first = made.config.buckets[0];
    EXPECT_EQ(first.name, "distill-448x256-125");
    EXPECT_EQ(first.items, 2U);
    EXPECT_GT(first.seconds, made.config.buckets[1].seconds);
    EXPECT_EQ(first.latents_bytes, 0U);
    EXPECT_EQ(made.files, 3U);
    ASSERT_EQ(made.seconds.size(), 3U);
    EXPECT_NEAR(made.gpu_seconds, made.seconds[0] + made.seconds[1] + made.seconds[2], 1e-3);
    EXPECT_NEAR(read()[0].predicted, first.seconds, 1e-3 * first.seconds) << "four digits";
    const RunConfig back = read_run_config(run_);
    EXPECT_EQ(back.buckets[0].stages, first.stages);
    EXPECT_EQ(back.device, "h100");
}

TEST_F(PlanTest, WritesNothingWithoutADirectoryOrWithMistakes) {
    PlanOptions how;
    how.calibration = find_calibration("cpu", "bf16", "");
    EXPECT_EQ(make_plan(manifest("items: [{prompt: p}]"), how).config.items, 1U);
    write("a.jsonl", "{\"prompt\": \"p\"}\n{\"prompt\": 1, \"seconds\": 0}\n");
    EXPECT_THAT(refusal("items: [{from: a.jsonl}]"), HasSubstr("a.jsonl:2:"));
    std::vector<std::string> left;
    for (const auto& entry : std::filesystem::directory_iterator(run_))
        left.push_back(entry.path().filename().string());
    EXPECT_THAT(left, ElementsAre());
}

TEST_F(PlanTest, RefusesADirectoryOfSomethingElse) {
    write("run/thesis.tex", "x");
    EXPECT_THAT(refusal("items: [{prompt: p}]"), HasSubstr("holds \"thesis.tex\" but no run.json"));
    std::filesystem::remove(folder_ / "run" / "thesis.tex");
    EXPECT_EQ(refusal("items: [{prompt: p}]"), "");
    EXPECT_THAT(refusal("items: [{prompt: p}]"), HasSubstr("holds a plan already"));
}

TEST_F(PlanTest, ExtendsByAddingOnly) {
    plan("items: [{name: a, prompt: p}, {name: b, prompt: p}]");
    const std::string before = read_text(run_ / "items.lock.jsonl");
    const PlanResult made = plan(
        "items: [{name: a, prompt: p}, {name: b, prompt: p}, {name: c, prompt: new}]", {}, true);
    EXPECT_EQ(made.added, 1U);
    EXPECT_EQ(made.config.items, 2U);
    EXPECT_EQ(made.config.duplicates, 1U);
    EXPECT_TRUE(read_text(run_ / "items.lock.jsonl").starts_with(before))
        << "lines stay where they are";
    EXPECT_EQ(read()[1].item.name, "c");
    EXPECT_EQ(read_plan_index(run_).rows.size(), 2U);
    EXPECT_EQ(read_run_config(run_).buckets[0].items, 2U);

    EXPECT_THAT(
        refusal("items: [{name: a, prompt: other}, {name: c, prompt: new}]", {}, true),
        HasSubstr("1 of its 2 items are no longer in the manifest, or were changed there: a"));
    EXPECT_EQ(read().size(), 2U);
}

TEST_F(PlanTest, ExplainsWhyItCannotExtend) {
    const std::string items = "items: [{prompt: p}]";
    plan(items);
    EXPECT_THAT(refusal(items, {{"outputs.video.crf=30"}, {}}, true),
                HasSubstr("outputs.video.crf is 30, but the run was planned with 18"));
    EXPECT_THAT(refusal(items, {{"model.variant=base"}, {}}, true),
                HasSubstr("model.variant is base, but the run was planned with distill"));
    EXPECT_EQ(refusal(items, {{"retry.attempts=9"}, {}}, true), "") << "policy may change";
    EXPECT_EQ(read_run_config(run_).retry.attempts, 9);
    write("model/distill/model.safetensors", "trained on");
    EXPECT_THAT(refusal(items, {}, true), HasSubstr("its network distill has changed"));
}

TEST_F(PlanTest, StaysFrozenAndSaysThatTheManifestHasChanged) {
    PlanOptions how;
    how.directory = run_;
    how.calibration = find_calibration("cpu", "bf16", "");
    const auto said_by = [&](const char* items, bool extend) {
        how.extend = extend;
        testing::internal::CaptureStderr();
        ensure_plan(manifest(items), how);
        return testing::internal::GetCapturedStderr();
    };
    const char* const one = "items: [{name: a, prompt: p}]";
    const char* const two = "items: [{name: a, prompt: p}, {name: b, prompt: q}]";
    EXPECT_EQ(said_by(one, false), "");
    EXPECT_EQ(said_by(one, false), "");
    EXPECT_THAT(said_by(two, false), HasSubstr("changed since"));
    EXPECT_EQ(read().size(), 1U);
    std::ofstream(run_ / "COMPLETE") << "complete";
    EXPECT_EQ(said_by(two, true), "");
    EXPECT_EQ(read().size(), 2U);
    EXPECT_FALSE(std::filesystem::exists(run_ / "COMPLETE")) << "there is work again";
    EXPECT_EQ(said_by(two, false), "");
    // Who gives --set means it.
    how.extend = false;
    how.overridden = true;
    EXPECT_NO_THROW(ensure_plan(manifest(two), how));
    try {
        ensure_plan(manifest(one), how);
        FAIL() << "an option that changes nothing";
    } catch (const InputError& refused) {
        EXPECT_THAT(refused.what(), HasSubstr("leave them out"));
    }
}

TEST_F(PlanTest, RefusesAChangedModelOrNumerics) {
    plan("items: [{prompt: p}]");
    RunConfig config = read_run_config(run_);
    EXPECT_NO_THROW(refuse_changed_model(config, ""));
    config.numerics = numerics_version + 1;
    EXPECT_THROW(refuse_changed_model(config, ""), InputError);
    config.numerics = numerics_version;
    write("model/vae/w.pth", "other");
    try {
        refuse_changed_model(config, "");
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("its text encoder or a decoder has changed"));
    }
}

TEST_F(PlanTest, ReadsInputsOnceOnly) {
    const std::string first = id("prompt: p, image: photo.png");
    EXPECT_EQ(id("prompt: p, image: photo.png"), first);
    // A torn record is cut off, and what it held is read again.
    const std::filesystem::path cache = folder_ / "cache" / "inputs.bin";
    EXPECT_EQ(std::filesystem::file_size(cache), 52U);
    std::filesystem::resize_file(cache, 30);
    EXPECT_EQ(id("prompt: p, image: photo.png"), first);
    EXPECT_EQ(std::filesystem::file_size(cache), 52U);
}

TEST(IdSetTest, KeepsAMillionIdsIn16BytesEachAndAFifth) {
    IdSet set;
    Sha256 sha;
    const auto id = [&](int i) {
        sha.reset();
        sha.update(std::to_string(i));
        const auto digest = sha.finish();
        Id128 made{};
        std::copy_n(digest.begin(), made.size(), made.begin());
        return made;
    };
    for (int i = 0; i < 100000; ++i) ASSERT_TRUE(set.insert(id(i)));
    for (int i = 0; i < 100000; ++i) ASSERT_FALSE(set.insert(id(i)));
    EXPECT_EQ(set.size(), 100000U);
    EXPECT_LE(set.slots(), 131072U);
    EXPECT_NE(set.find(id(5)), IdSet::absent);
    EXPECT_EQ(set.find(id(100000)), IdSet::absent);
    EXPECT_TRUE(set.insert(Id128{}));
    EXPECT_FALSE(set.insert(Id128{}));
}

}  // namespace
}  // namespace gallop
