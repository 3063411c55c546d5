#include "farm/plan.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using testing::HasSubstr;

class PlanTest : public testing::Test {
protected:
    PlanTest() {
        for (const char* network : {"distill", "540p_sr"})
            write(std::string("model/") + network + "/model.safetensors", network);
        write("model/vae/w.pth", "vae");
        write("photo.png", "one");
    }
    void write(const std::string& name, const std::string& text) {
        std::filesystem::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name) << text;
    }
    /// 16-bit mono sound at 51,200 Hz.
    void write_sound(const std::string& name, int samples) {
        std::ofstream file(folder_ / name, std::ios::binary);
        const auto number = [&](std::uint32_t value, int bytes) {
            for (int i = 0; i < bytes; ++i) file.put(static_cast<char>(value >> (8 * i)));
        };
        file << "RIFF";
        number(36 + 2 * static_cast<std::uint32_t>(samples), 4);
        file << "WAVEfmt ";
        for (const auto& [value, bytes] :
             {std::pair{16U, 4}, {1U, 2}, {1U, 2}, {51200U, 4}, {102400U, 4}, {2U, 2}, {16U, 2}})
            number(value, bytes);
        file << "data";
        number(2 * static_cast<std::uint32_t>(samples), 4);
        for (int i = 0; i < samples; ++i) number(static_cast<std::uint32_t>(i % 100 * 100), 2);
    }
    Plan plan(const std::string& items, const std::vector<std::string>& set = {}) {
        return make_plan(parse_manifest("version: 1\nname: test\nmodel: {path: model}\n" + items,
                                        folder_ / "m.yaml", set),
                         folder_ / "cache.json");
    }
    std::string id(const std::string& item, const std::vector<std::string>& set = {}) {
        return plan("items: [{" + item + "}]", set).items.at(0).item.id;
    }
    test::TemporaryFolder folder_;
};

TEST_F(PlanTest, GivesIdsOf32HexDigits) {
    EXPECT_THAT(id("prompt: p"), testing::MatchesRegex("[0-9a-f]{32}"));
}

TEST_F(PlanTest, GivesTheSameIdWhateverTheNameAndTheEncoding) {
    const std::string first = id("name: a, prompt: p");
    EXPECT_EQ(id("name: b, prompt: p"), first);
    EXPECT_EQ(id("prompt: p", {"outputs.video.crf=30", "outputs.latents.keep=[]"}), first);
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
    EXPECT_TRUE(ids.insert(id("prompt: p", {"model.precision=fp32"})).second);
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
    Item item = plan("items: [{prompt: p, audio: voice.wav, seconds: 4}]").items[0].item;
    EXPECT_EQ(item.audio_latents, 25);
    EXPECT_EQ(item.frames, 25);
    item = plan("items: [{prompt: p, audio: voice.wav, seconds: 0.4}]").items[0].item;
    EXPECT_EQ(item.audio_latents, 10);
    EXPECT_EQ(item.frames, 9);
    item = plan("items: [{prompt: p, audio: voice.wav, frames: 8}]").items[0].item;
    EXPECT_EQ(item.audio_latents, 9);
    EXPECT_EQ(item.frames, 8);
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

TEST_F(PlanTest, LocksOneResolvedItemALine) {
    const std::string text = lock_text(plan("items: [{name: a, prompt: p}, {name: b, prompt: q}]"));
    const auto line = nlohmann::json::parse(text.substr(0, text.find('\n')));
    EXPECT_EQ(line["name"], "a");
    EXPECT_EQ(line["bucket"], "distill-448x256-125");
    EXPECT_EQ(line["item"]["prompt"], "p");
    EXPECT_FALSE(line["item"].contains("weights")) << "run.json has it";
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

}  // namespace
}  // namespace gallop
