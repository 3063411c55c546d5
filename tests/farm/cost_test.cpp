#include "farm/cost.hpp"

#include <cmath>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

// A folder without gallop.yaml: the published 15B.
class CostTest : public testing::Test {
protected:
    Item item(Size size, const std::string& sr) {
        Item made;
        made.size = size;
        made.sr = sr;
        made.prompt = std::string(1476, 'a');  // 400 tokens
        return made;
    }
    Calibration unit() {
        Calibration made;
        made.device = "test";
        made.precision = "bf16";
        for (auto& rate : made.rates) rate = {1e-15, 0, true};
        made.at(Stage::write) = {1e-9, 0, true};
        return made;
    }
    test::TemporaryFolder folder_;
    RunRequest request_ = [this] {
        RunRequest made;
        made.model.path = folder_.path().string();
        return made;
    }();
};

TEST(Tokens, AreEstimatedFromTheLength) {
    EXPECT_EQ(estimated_tokens(std::string(1476, 'a')), 400);
    EXPECT_EQ(estimated_tokens(std::string(100000, 'a')), 27029);
    EXPECT_EQ(estimated_tokens("日本語日"), 4);
}

// The figures of the published sizes at 5 s with 400 tokens of text: 4,110, 14,862 and 65,806
// tokens; 90 + 14, 324 + 181 and 1437 + 709 + 1693 TFLOP a forward.
TEST_F(CostTest, CountsTheForwardsOfThePublishedNetwork) {
    const WorkModel model({folder_.path().string(), "", Precision::bf16});
    const auto tera = [&](const char* network, Size size) {
        return model.forward(network, size, 126, 400) / 1e12;
    };
    EXPECT_NEAR(tera("distill", {448, 256}), 89.87 + 13.84, 0.3);
    EXPECT_NEAR(tera("540p_sr", {896, 512}), 324.8 + 180.9, 1.5);
    EXPECT_NEAR(tera("1080p_sr", {1920, 1088}), 1437 + 709 + 1693, 6);
}

// 65, 262 and 1191 TFLOP, the overlap of the chunks included.
TEST_F(CostTest, CountsTheTurboDecoder) {
    const WorkModel model({folder_.path().string(), "", Precision::bf16});
    EXPECT_NEAR(model.decode(VideoDecoder::turbo, {448, 256}, 32) / 1e12, 65.4, 0.7);
    EXPECT_NEAR(model.decode(VideoDecoder::turbo, {896, 512}, 32) / 1e12, 262, 3);
    EXPECT_NEAR(model.decode(VideoDecoder::turbo, {1920, 1088}, 32) / 1e12, 1191, 12);
}

TEST_F(CostTest, AddsStepsAndPassesAndStages) {
    const CostModel model(request_, unit());
    Item one = item({448, 256}, "");
    const double base = model.of(one).stages[static_cast<std::size_t>(Stage::base)];
    EXPECT_NEAR(base, 8 * 0.1037, 0.005);
    one.base.steps = 16;
    EXPECT_NEAR(model.of(one).stages[static_cast<std::size_t>(Stage::base)], 2 * base, 1e-9);
    one.base.passes = 2;
    one.negative_prompt = one.prompt;
    EXPECT_NEAR(model.of(one).stages[static_cast<std::size_t>(Stage::base)], 4 * base, 1e-9);
    const ItemCost large = model.of(item({896, 512}, "540p_sr"));
    EXPECT_NEAR(large.stages[static_cast<std::size_t>(Stage::sr)], 5 * 0.5057, 0.02);
    double sum = 0;
    for (const double seconds : large.stages) sum += seconds;
    EXPECT_DOUBLE_EQ(large.seconds, sum);
    EXPECT_NEAR(large.stages[static_cast<std::size_t>(Stage::write)], 896 * 512 * 125 * 1e-9, 1e-9);
}

// 30.6 GB of bf16 weights a transformer.
TEST_F(CostTest, SplitsItemsThatDoNotFitADevice) {
    Calibration small = unit();
    small.memory_bytes = 85e9;
    EXPECT_EQ(CostModel(request_, small).of(item({448, 256}, "")).gpus, 1);
    // With the arrays of 4,110 tokens, and the workspaces that must be free: 1 GiB and an eighth.
    EXPECT_NEAR(CostModel(request_, small).of(item({448, 256}, "")).memory_bytes, 33.7e9, 1e9);
    small.memory_bytes = 24e9;
    const ItemCost split = CostModel(request_, small).of(item({448, 256}, ""));
    EXPECT_EQ(split.gpus, 2);
    EXPECT_LE(split.memory_bytes, usable_memory * 24e9);
    request_.resources.gpus_per_item = 1;
    EXPECT_EQ(CostModel(request_, small).of(item({448, 256}, "")).gpus, 1) << "as asked";
}

// What an H100 of 80 GB must hold: in bf16 base and SR with a 1080p stage, the text encoder gone; in E4M3
// all three at once.
TEST_F(CostTest, A1080pClipFitsAnH100) {
    const double device = find_calibration("h100", "bf16", "").memory_bytes * usable_memory;
    const Item clip = item({1920, 1088}, "1080p_sr");
    const auto with_text = [](const ClipWork& work) {
        return static_cast<double>(work.memory_bytes() +
                                   work.memory[static_cast<std::size_t>(Stage::text)].weights);
    };
    const ClipWork wide = WorkModel({folder_.path().string(), "", Precision::bf16}, 128).of(clip);
    EXPECT_LT(static_cast<double>(wide.memory_bytes()), device);
    EXPECT_GT(with_text(wide), device) << "the text encoder must leave";
    const ClipWork narrow = WorkModel({folder_.path().string(), "", Precision::fp8}, 128).of(clip);
    EXPECT_LT(with_text(narrow), device);
}

// Splitting ends where heads don't divide, not in an error.
TEST_F(CostTest, SplitsNoFurtherThanTheHeadsDivide) {
    const WorkModel model({folder_.path().string(), "", Precision::bf16});
    EXPECT_TRUE(model.can_share(item({448, 256}, ""), 8));  // 40 heads
    EXPECT_FALSE(model.can_share(item({448, 256}, ""), 16));
    Calibration small = unit();
    small.memory_bytes = 1e9;
    EXPECT_EQ(CostModel(request_, small).of(item({448, 256}, "")).gpus, 8);
}

TEST_F(CostTest, PredictsTheBytesOfLatents) {
    const CostModel model(request_, unit());
    // 48 × 32 × 16 × 28 and 126 × 64 values of two bytes, and the file's own.
    EXPECT_EQ(model.of(item({448, 256}, "")).latents_bytes, 2 * (688128 + 8064) + 8192);
    request_.outputs.keep_base = request_.outputs.keep_final = false;
    EXPECT_EQ(CostModel(request_, unit()).of(item({448, 256}, "")).latents_bytes, 0);
}

TEST(Makespan, GivesTheLongestItemToWhoeverIsFree) {
    std::vector<float> seconds = {2, 3, 7, 5, 4};
    EXPECT_EQ(makespan(seconds, 1), 21);
    EXPECT_EQ(makespan(seconds, 2), 11);  // 7 + 3, 5 + 4 + 2
    EXPECT_EQ(makespan(seconds, 9), 7);
    std::vector<float> none;
    EXPECT_EQ(makespan(none, 3), 0);
}

TEST(SlurmTime, IsAFifthMoreInFullQuarters) {
    EXPECT_EQ(suggested_time(60, 120), "00:15:00");
    EXPECT_EQ(suggested_time(3600, 120), "01:30:00");
    EXPECT_EQ(suggested_time(200000, 0), "2-18:45:00");
}

TEST(CalibrationFit, FindsRateAndFixedPart) {
    std::vector<Measured> clips;
    for (const double amount : {1e12, 3e12, 10e12}) {
        Measured clip;
        clip.work.amount[static_cast<std::size_t>(Stage::base)] = amount;
        clip.seconds[static_cast<std::size_t>(Stage::base)] = 0.25 + 2e-12 * amount;
        clips.push_back(clip);
    }
    Calibration before;
    before.at(Stage::sr).seconds_per_unit = 7;
    const Calibration made = calibrated(before, clips);
    EXPECT_NEAR(made.at(Stage::base).seconds_per_unit, 2e-12, 1e-15);
    EXPECT_NEAR(made.at(Stage::base).seconds, 0.25, 1e-3);
    EXPECT_TRUE(made.at(Stage::base).measured);
    EXPECT_EQ(made.at(Stage::sr).seconds_per_unit, 7) << "nothing was measured of it";
    clips.resize(1);
    EXPECT_NEAR(calibrated(before, clips).at(Stage::base).seconds_per_unit, 2.25e-12, 1e-15);
}

TEST(CalibrationFile, ComesBackAndKeepsOtherPrecisions) {
    const test::TemporaryFolder folder;
    Calibration made = find_calibration("h100", "bf16", "");
    EXPECT_GT(made.memory_bytes, 7e10);
    EXPECT_FALSE(made.at(Stage::base).measured);
    made.at(Stage::base) = {1e-15, 0.5, true};
    write_calibration(folder / "calibration-h100.json", made);
    Calibration fp8 = find_calibration("h100", "fp8", "");
    write_calibration(folder / "calibration-h100.json", fp8);
    const Calibration back = find_calibration("h100", "bf16", folder.path());
    EXPECT_EQ(back.at(Stage::base).seconds, 0.5);
    EXPECT_TRUE(back.at(Stage::base).measured);
    EXPECT_EQ(find_calibration("cpu", "fp8", "").precision, "fp8") << "the nearest stands in";
    EXPECT_THROW(find_calibration("abacus", "bf16", ""), InputError);
    std::ofstream(folder / "bad.json")
        << "{\"device\": \"x\", \"precisions\": {\"bf16\": {\"bsae\": {}}}}";
    EXPECT_THROW(read_calibration(folder / "bad.json", "bf16"), InputError);
}

}  // namespace
}  // namespace gallop
