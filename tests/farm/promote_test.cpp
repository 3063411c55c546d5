#include "farm/promote.hpp"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/clip.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "media/h5.hpp"
#include "support/ready.hpp"
#include "support/test_run.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using State = ItemHistory::State;
using test::TestRun;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

TEST(PromotedSize, FollowsTheScripts) {
    EXPECT_EQ(promoted_size("540p", {448, 256}), (Size{896, 512}));
    EXPECT_EQ(promoted_size("1080p", {448, 256}), (Size{1920, 1088}));
    EXPECT_EQ(promoted_size("1080p", {256, 448}), (Size{1088, 1920}));
    EXPECT_EQ(promoted_size("1080p", {64, 32}), (Size{288, 128}));  // 274 and 137, in 32s
    EXPECT_EQ(promoted_size("640x352", {448, 256}), (Size{640, 352}));
    for (const char* wrong : {"720p", "640", "640x", "x640", "640x350", "-64x64", "64x64x64",
                              "16384x32", "32x32", "448x256"})
        EXPECT_THROW(promoted_size(wrong, {448, 256}), InputError) << wrong;
}

class PromoteTest : public testing::Test {
protected:
    PromoteTest() {
        set_log_level(LogLevel::error);
        for (const char* network : {"distill", "540p_sr"}) {
            fs::create_directories(models_ / network);
            std::ofstream(models_ / network / "model.safetensors") << network;
        }
        std::ofstream(settings_ / "arch.yaml") << "layers: 2";
        run_ = std::make_unique<TestRun>(3, [&](RunConfig& config) {
            config.model.path = models_.path().string();
            config.model.arch = (settings_ / "arch.yaml").string();
            config.arch_digest = digest_file(config.model.arch);
            config.weights = digest_weights(models_.path(), {"distill"}, "");
            config.outputs.latents = DType::f32;
            config.outputs.preset = "ultrafast";
        });
        run_->attempt(1);
        run_->render(0);
        run_->render(1);
        request_.words = {"item0"};
        request_.resolution = "128x64";
        request_.out = run_->folder() / "promoted";
    }
    ~PromoteTest() override { set_log_level(LogLevel::info); }

    RunHistory history(const fs::path& run) {
        RunHistory read(run);
        read.update();
        return read;
    }
    std::vector<Promotion> plan() {
        return plan_promotion(history(run_->path()), request_, config_);
    }
    std::string refusal() {
        try {
            plan();
        } catch (const InputError& wrong) {
            return wrong.what();
        }
        return "";
    }
    /// Promotes, noting which base latents the second stage was given.
    PromoteCount promote() {
        const std::vector<Promotion> promotions = plan();
        write_promotion(request_.out, promotions, config_);
        const Stages stages = {
            .denoise = [](const Item&, const Conditioning&, const ProgressSink&) -> Latents {
                throw Error("the base stage ran");
            },
            .decode_video =
                [](const Tensor& latent, const PictureDecode& how, const FrameSink& sink,
                   const ProgressSink&) {
                    const Tensor pictures = Tensor::zeros(
                        {how.frames, latent.size(2) * 16, latent.size(3) * 16, 3}, DType::u8);
                    sink(pictures);
                },
            .decode_audio =
                [](const Tensor& latent) {
                    return test::ready(Tensor::zeros({2, latent.size(0) * samples_per_frame}));
                },
            .take_timings =
                [] {
                    return StageSeconds{{{"sr", 0.5}}};
                }};
        const RefineStage refine = [&](const Item& item, const Conditioning&, Latents base,
                                       const ProgressSink&) {
            if (broken_) throw Error("latents are not finite");
            refined_.push_back(base.video_base.data<float>()[0]);
            base.video_final = Tensor({48, 2, item.size.height / 16, item.size.width / 16});
            for (Index i = 0; i < base.video_final.numel(); ++i)
                base.video_final.data<float>()[i] = static_cast<float>(i % 5);
            return base;
        };
        return render_promotion(request_.out, promotions, stages, refine, "cpu");
    }

    test::TemporaryFolder models_, settings_;
    std::unique_ptr<TestRun> run_;
    PromoteRequest request_;
    RunConfig config_;
    std::vector<float> refined_;
    bool broken_ = false;
};

TEST_F(PromoteTest, MakesTheItemThatTheResolutionWouldHaveGiven) {
    const std::vector<Promotion> promotions = plan();
    ASSERT_EQ(promotions.size(), 1U);
    const Promotion& one = promotions[0];
    EXPECT_TRUE(one.exact);
    EXPECT_EQ(one.planned.item.name, "item0");
    EXPECT_EQ(one.planned.item.size, (Size{128, 64}));
    EXPECT_EQ(one.planned.item.base_size, (Size{64, 32}));
    EXPECT_EQ(one.planned.item.sr, "540p_sr");
    Json resolved = history(run_->path()).planned(0).resolved;
    resolved["size"] = {128, 64};
    resolved["sr"] = {{"model", "540p_sr"},    {"steps", 5},         {"passes", 1},
                      {"shift", 5.0},          {"guidance", 3.5},    {"trick_frames", 13},
                      {"trick_guidance", 2.0}, {"noise_value", 220}, {"audio_noise", 0.7}};
    resolved["weights"] = digest_weights(models_.path(), {"distill", "540p_sr"}, "");
    EXPECT_EQ(one.planned.item.id, id_of(resolved));
}

TEST_F(PromoteTest, RendersFromTheDraftsLatentsIntoARunOfItsOwn) {
    PromoteCount count = promote();
    EXPECT_EQ(count.done, 1U);
    EXPECT_EQ(count.failed, 0U);
    EXPECT_THAT(refined_, ElementsAre(0));  // item0's values start at 0, item1's at 1
    RunHistory promoted = history(request_.out);
    ASSERT_EQ(promoted.size(), 1U);
    EXPECT_EQ(promoted[0].state, State::done);
    EXPECT_EQ(promoted.config().name, "test-128x64");
    EXPECT_EQ(promoted.outcome(), "complete");
    EXPECT_EQ(promoted.planned(0).item.size, (Size{128, 64}));
    EXPECT_THAT(read_text(request_.out / "COMPLETE"), StartsWith("complete "));
    EXPECT_TRUE(fs::exists(request_.out / "index.jsonl"));
    EXPECT_TRUE(fs::exists(request_.out / "report" / "index.html"));
    const Mp4Facts facts =
        verify_mp4(clip_path(request_.out, promoted.planned(0).item.id), 5, 128, 64);
    EXPECT_THAT(facts.tags.at("comment"), HasSubstr(promoted.planned(0).item.id));

    // More drafts join; what is done is not rendered again.
    request_.words = {"item1", "item0"};
    count = promote();
    EXPECT_EQ(count.done, 2U);
    EXPECT_THAT(refined_, ElementsAre(0, 1));
    promoted = history(request_.out);
    EXPECT_EQ(promoted.size(), 2U);
    EXPECT_EQ(promoted.attempt(), 2);
    EXPECT_EQ(promoted.count(State::done), 2U);
    EXPECT_EQ(promoted.config().buckets.at(0).items, 2U);
}

TEST_F(PromoteTest, TriesAgainWhatFailed) {
    broken_ = true;
    EXPECT_EQ(promote().failed, 1U);
    EXPECT_FALSE(fs::exists(request_.out / "COMPLETE"));
    EXPECT_EQ(history(request_.out)[0].tries, 1);
    broken_ = false;
    EXPECT_EQ(promote().done, 1U);
    EXPECT_TRUE(fs::exists(request_.out / "COMPLETE"));
}

TEST_F(PromoteTest, GivesRoundedLatentsAnIdOfTheirOwn) {
    const std::string exact = plan()[0].planned.item.id;
    const fs::path path = latents_path(run_->path(), run_->id(0));
    LatentsFile file = read_latents(path);
    file.stored = DType::bf16;
    write_latents(path, file);
    const std::vector<Promotion> promotions = plan();
    EXPECT_FALSE(promotions[0].exact);
    EXPECT_NE(promotions[0].planned.item.id, exact);
    EXPECT_EQ(promotions[0].planned.resolved["base_latents"], digest_file(path));
    EXPECT_EQ(promote().done, 1U);
    EXPECT_EQ(history(request_.out).planned(0).item.id, promotions[0].planned.item.id);
}

TEST_F(PromoteTest, RefusesWhatItCannotStartFrom) {
    request_.words = {"item2"};
    EXPECT_THAT(refusal(), HasSubstr("item \"item2\" (" + run_->id(2) + ") is not finished"));
    request_.words = {"item0"};
    LatentsFile file = read_latents(latents_path(run_->path(), run_->id(0)));
    file.video_base = {};
    write_latents(latents_path(run_->path(), run_->id(0)), file);
    EXPECT_THAT(refusal(), HasSubstr("holds no base latents"));
    request_.words = {"nobody", "item2", "item0", "item99", "nobody"};
    const std::string all = refusal();
    EXPECT_THAT(all, HasSubstr("no item \"nobody\""));
    EXPECT_THAT(all, HasSubstr("\nitem \"item2\" (" + run_->id(2) + ") is not finished"));
    EXPECT_THAT(all, HasSubstr("holds no base latents"));
    EXPECT_THAT(all, HasSubstr("no item \"item99\""));
    EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 3);
    request_.words = {"item1"};
    std::ofstream(models_ / "distill" / "model.safetensors") << "others";
    EXPECT_THAT(refusal(), HasSubstr("its network distill has changed"));
}

TEST_F(PromoteTest, SaysWhichNetworkIsMissing) {
    request_.words = {"item0"};
    request_.resolution = "540p";
    const std::string missing = request_.sr.empty() ? "540p_sr" : request_.sr;
    fs::remove_all(models_ / missing);
    EXPECT_THAT(refusal(),
                HasSubstr("has no folder " + missing + ", the network of the second stage"));
}

TEST_F(PromoteTest, RefusesOtherNumericsAndAnotherArchitecture) {
    std::ofstream(settings_ / "arch.yaml") << "layers: 3";
    EXPECT_THAT(refusal(), HasSubstr("the architecture file has changed"));
    Json run = Json::parse(read_text(run_->path() / "run.json"));
    run["numerics"] = numerics_version + 1;
    write_atomically(run_->path() / "run.json", run.dump());
    EXPECT_THAT(refusal(), HasSubstr("numerics version " + std::to_string(numerics_version + 1)));
}

TEST_F(PromoteTest, RefusesTheDirectoryOfAnotherRun) {
    const std::vector<Promotion> promotions = plan();
    EXPECT_THROW(write_promotion(run_->path(), promotions, config_), InputError);
    fs::create_directories(request_.out);
    std::ofstream(request_.out / "thesis.tex") << "x";
    EXPECT_THROW(write_promotion(request_.out, promotions, config_), InputError);
}

}  // namespace
}  // namespace gallop
