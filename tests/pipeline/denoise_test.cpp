#include "pipeline/denoise.hpp"

#include <gmock/gmock.h>

#include "support/expect_near.hpp"
#include "support/random_transformer.hpp"

namespace gallop {
using namespace test;
namespace {

Transformer tiny_transformer(Backend& on) {
    TransformerConfig config;
    config.num_layers = 2;
    config.hidden_size = 32;
    config.head_dim = 16;
    config.num_query_groups = 1;
    config.text_in_channels = 8;
    config.mm_layers = {0};
    config.gelu7_layers = {};
    return random_transformer(config, on, 0.2F);
}

class Denoise : public ::testing::Test {
protected:
    Tensor drawn(const std::string& name, Shape shape) {
        Tensor made(shape);
        fill_normal(NoiseStream(5, name), 0, made.span<float>());
        return made;
    }

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    Backend& on_ = *backend_;
    Transformer model_ = tiny_transformer(on_);
    Tensor text_ = drawn("text", {4, 8});
    Tensor negative_ = drawn("negative", {6, 8});
    Tensor image_ = drawn("image", {48, 1, 2, 4});
    Tensor video_ = drawn("video", {48, 3, 2, 4});
    Tensor audio_ = drawn("audio", {9, 64});
    StepNoise noise_ = [this](std::string_view modality, int step, TensorView out) {
        on_.normal(NoiseStream(9, fmt::format("{}{}", modality, step)), 0, out);
    };
};

TEST_F(Denoise, KeepsADrivingSoundInBothSamplers) {
    for (const int passes : {1, 2}) {
        Tensor video = video_.clone();
        Tensor audio = audio_.clone();
        denoise_base(model_, {.steps = 3, .passes = passes},
                     {.text = text_, .negative = negative_, .image = {}, .audio_fixed = true},
                     noise_, on_, video, audio);
        EXPECT_EQ(floats(audio), floats(audio_)) << passes << " passes";
        EXPECT_NE(floats(video), floats(video_));
    }
}

TEST_F(Denoise, EndsWithTheGivenFirstFrame) {
    Tensor video = video_.clone();
    Tensor audio = audio_.clone();
    denoise_base(model_, {.steps = 2, .passes = 1},
                 {.text = text_, .negative = {}, .image = image_, .audio_fixed = false}, noise_,
                 on_, video, audio);
    const auto frame = floats(image_);
    const auto all = floats(video);
    for (std::size_t c = 0; c < 48; ++c)
        for (std::size_t i = 0; i < 8; ++i) ASSERT_EQ(all[c * 24 + i], frame[c * 8 + i]);
}

TEST_F(Denoise, WithGuidanceOneIsThePositivePassAlone) {
    const auto run = [&](double guidance, const Tensor& negative) {
        Tensor video = video_.clone();
        Tensor audio = audio_.clone();
        denoise_base(model_,
                     {.steps = 2,
                      .passes = 2,
                      .guidance = guidance,
                      .guidance_late = guidance,
                      .audio_guidance = guidance},
                     {.text = text_, .negative = negative, .image = {}, .audio_fixed = false},
                     noise_, on_, video, audio);
        return floats(video);
    };
    expect_near(run(1.0, negative_), run(1.0, text_), 1e-5);  // v_neg + 1·(v_pos − v_neg), rounded
    EXPECT_GT(relative_error(run(5.0, negative_), run(1.0, text_)), 1e-2);
}

TEST_F(Denoise, TwoPassesNeedANegativePrompt) {
    EXPECT_THROW(denoise_base(model_, {.steps = 1, .passes = 2},
                              {.text = text_, .negative = {}, .image = {}, .audio_fixed = false},
                              noise_, on_, video_, audio_),
                 Error);
}

TEST_F(Denoise, StartsSuperResolutionFromAMixOfBaseAndNoise) {
    const Tensor noise = drawn("sr", {48, 3, 4, 8});
    const Tensor audio_noise = drawn("sr.audio", {9, 64});
    const SrStart start = start_sr({}, video_, audio_, noise, audio_noise, on_);
    EXPECT_NEAR(floats(start.video)[5],
                0.8389104F * floats(start.upsampled)[5] + 0.5442696F * floats(noise)[5], 1e-6);
    EXPECT_NEAR(floats(start.audio)[7], 0.7F * floats(audio_noise)[7] + 0.3F * floats(audio_)[7],
                1e-6);
    EXPECT_EQ(floats(start.upsampled)[0], floats(video_)[0]);  // corners are aligned
    const SrStart clean = start_sr({.noise_value = 0}, video_, audio_, noise, audio_noise, on_);
    EXPECT_EQ(floats(clean.video), floats(clean.upsampled));
}

TEST_F(Denoise, LowersTheGuidanceOfTheFirstFramesInSuperResolution) {
    const Tensor noise = drawn("sr", {48, 3, 4, 8});
    const auto run = [&](SrSampling sampling) {
        SrStart start = start_sr(sampling, video_, audio_, noise, audio_, on_);
        denoise_sr(model_, sampling,
                   {.text = text_, .negative = negative_, .image = {}, .audio_fixed = false}, on_,
                   start);
        return floats(start.video);
    };
    const SrSampling two{.steps = 1, .passes = 2, .guidance = 3.5, .trick_frames = 1};
    SrSampling all = two;
    all.trick_frames = 0;
    const auto tricked = run(two);
    const auto plain = run(all);
    const std::size_t frame = 4 * 8;
    for (std::size_t c = 0; c < 48; ++c)
        for (std::size_t i = 0; i < 3 * frame; ++i) {
            const std::size_t at = c * 3 * frame + i;
            if (i < frame)
                EXPECT_NE(tricked[at], plain[at]);
            else
                EXPECT_EQ(tricked[at], plain[at]);
        }
}

TEST_F(Denoise, ReportsEveryStep) {
    std::vector<int> seen;
    denoise_base(model_, {.steps = 2, .passes = 1},
                 {.text = text_, .negative = {}, .image = {}, .audio_fixed = false}, noise_, on_,
                 video_, audio_, [&](const Progress& p) { seen.push_back(p.step); });
    EXPECT_THAT(seen, ::testing::ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace gallop
