#include "pipeline/render.hpp"

#include <filesystem>

#include <gmock/gmock.h>

#include "core/clip.hpp"
#include "model/make_model.hpp"
#include "pipeline/work.hpp"
#include "support/expect_near.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

using ::testing::HasSubstr;

/// One tiny bundle with random weights for all tests of this file.
class Render : public ::testing::Test {
protected:
    static void SetUpTestSuite() {
        folder_ = new TemporaryFolder;
        make_model(std::filesystem::path(GALLOP_ROOT) / "configs/models/tiny.yaml",
                   folder_->path() / "model", 1);
    }
    static void TearDownTestSuite() {
        delete folder_;
        folder_ = nullptr;
    }

    Renderer renderer(Precision precision = Precision::fp32) {
        return {{.path = (folder_->path() / "model").string(), .arch = {}, .precision = precision},
                *backend_};
    }
    /// Nine pictures of 64 × 32.
    static Item small_item() {
        Item item;
        item.name = "small";
        item.prompt = "A red ball bounces twice on wood.";
        item.base_size = item.size = {64, 32};
        item.frames = 9;
        item.audio_latents = 9;
        item.base.steps = 2;
        return item;
    }

    static TemporaryFolder* folder_;
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

TemporaryFolder* Render::folder_ = nullptr;

TEST_F(Render, MakesLatentsPicturesAndSoundOfTheRightSizes) {
    Renderer r = renderer();
    std::vector<std::string> stages;
    const Latents latents = r.denoise(small_item(), {}, [&](const Progress& p) {
        if (stages.empty() || stages.back() != p.stage) stages.push_back(p.stage);
    });
    EXPECT_THAT(stages, ::testing::ElementsAre("text", "base"));
    EXPECT_EQ(latents.video_base.shape(), Shape({48, 3, 2, 4}));
    EXPECT_FALSE(latents.video_final.defined());
    EXPECT_EQ(latents.audio.shape(), Shape({9, 64}));

    Index pictures = 0;
    r.decode_video(latents.video(), {VideoDecoder::turbo, 9}, [&](ConstTensorView frames) {
        EXPECT_EQ(frames.dtype(), DType::u8);
        EXPECT_EQ(frames.shape(), Shape({frames.size(0), 32, 64, 3}));
        pictures += frames.size(0);
    });
    EXPECT_EQ(pictures, 9);
    EXPECT_EQ(r.decode_audio(latents.audio).get().shape(), Shape({2, 9 * samples_per_frame}));
    const StageSeconds spent = r.take_timings();
    EXPECT_GE(spent.stages.size(), 4U);
    EXPECT_TRUE(r.take_timings().stages.empty());
}

TEST_F(Render, TilesChangeNoPicture) {
    Renderer r = renderer();
    Item item = small_item();
    item.base_size = item.size = {32, 416};  // 26 latent rows: high enough for two strips
    item.base.steps = 1;
    const Latents latents = r.denoise(item, {});
    for (const VideoDecoder decoder : {VideoDecoder::turbo, VideoDecoder::wan}) {
        const auto decoded = [&](bool tiled) {
            std::vector<std::uint8_t> values;
            r.decode_video(latents.video(), {decoder, 9, tiled}, [&](ConstTensorView frames) {
                const auto pixels = frames.span<std::uint8_t>();
                values.insert(values.end(), pixels.begin(), pixels.end());
            });
            return values;
        };
        const auto whole = decoded(false);
        const auto tiled = decoded(true);
        ASSERT_EQ(whole.size(), tiled.size());
        // A value beside a step between two levels may fall on its other side.
        std::size_t other = 0;
        for (std::size_t i = 0; i < whole.size(); ++i) {
            EXPECT_LE(std::abs(whole[i] - tiled[i]), 1);
            other += whole[i] != tiled[i] ? 1 : 0;
        }
        EXPECT_LE(other, whole.size() / 1000);
    }
    const StageSeconds spent = r.take_timings();
    ASSERT_FALSE(spent.memory.empty());
    for (const auto& [stage, use] : spent.memory) EXPECT_GT(use.peak, 0U) << stage;
}

TEST_F(Render, GivesTheSameBitsAgainAndInAnyOrder) {
    Item other = small_item();
    other.seed = 7;
    Renderer first = renderer();
    const Latents a = first.denoise(small_item(), {});
    Renderer second = renderer();
    const Latents b = second.denoise(other, {});
    const Latents c = second.denoise(small_item(), {});
    EXPECT_EQ(floats(a.video_base), floats(c.video_base));
    EXPECT_EQ(floats(a.audio), floats(c.audio));
    EXPECT_NE(floats(a.video_base), floats(b.video_base));
}

TEST_F(Render, FollowsThePrompt) {
    Renderer r = renderer();
    Item other = small_item();
    other.prompt = "Rain on a window at night.";
    EXPECT_NE(floats(r.denoise(small_item(), {}).video_base),
              floats(r.denoise(other, {}).video_base));
}

TEST_F(Render, KeepsAGivenFirstFrameAndADrivingSound) {
    Renderer r = renderer();
    Tensor image({50, 40, 3}, DType::u8);
    for (Index i = 0; i < image.numel(); ++i)
        image.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 7 % 251);
    Conditioning inputs;
    inputs.image = std::move(image);
    inputs.audio = Tensor::zeros({9 * 2048 + 100});
    for (Index i = 0; i < inputs.audio.numel(); ++i)
        inputs.audio.data<float>()[i] = 0.3F * std::sin(0.05F * static_cast<float>(i));
    const Latents one = r.denoise(small_item(), inputs);
    Item other = small_item();
    other.prompt = "Something else entirely.";
    const Latents two = r.denoise(other, inputs);
    EXPECT_EQ(floats(one.audio), floats(two.audio));  // given, hence the same for both prompts
    const auto a = floats(one.video_base);
    const auto b = floats(two.video_base);
    for (std::size_t c = 0; c < 48; ++c)
        for (std::size_t i = 0; i < 8; ++i) ASSERT_EQ(a[c * 24 + i], b[c * 24 + i]);
    EXPECT_NE(a, b);

    Item mean = small_item();
    mean.audio_posterior_mean = true;
    EXPECT_NE(floats(r.denoise(mean, inputs).audio), floats(one.audio));
}

TEST_F(Render, HearsADrivingSoundToItsLastSample) {
    Renderer r = renderer();
    const auto heard = [&](Index samples) {
        Conditioning inputs;
        inputs.audio = Tensor::zeros({samples});
        for (Index i = 0; i < samples; ++i)
            inputs.audio.data<float>()[i] = 0.3F * std::sin(0.05F * static_cast<float>(i));
        const Tensor audio = r.denoise(small_item(), inputs).audio;
        EXPECT_EQ(audio.shape(), Shape({9, 64}));
        return floats(audio);
    };
    EXPECT_NE(heard(9 * 2048 + 1000), heard(9 * 2048));
    for (const Index other : {9 * 2048 - 1, 10 * 2048})
        EXPECT_THROW(heard(other), InputError) << other;
}

TEST_F(Render, DoublesTheSizeInSuperResolution) {
    Renderer r = renderer();
    for (const char* folder : {"540p_sr", "1080p_sr"}) {
        Item item = small_item();
        item.sr = folder;
        item.size = {128, 64};
        item.super.steps = 2;
        const Latents latents = r.denoise(item, {});
        EXPECT_EQ(latents.video_final.shape(), Shape({48, 3, 4, 8}));
        EXPECT_EQ(floats(latents.audio), floats(r.denoise(small_item(), {}).audio));
    }
}

/// A clip with all stages there are: a first frame, a driving sound, guidance, super-resolution.
Item whole_item() {
    Item item;
    item.name = "whole";
    item.prompt = "A red ball bounces twice on wood.";
    item.negative_prompt = "blurred";
    item.base_size = {64, 32};
    item.sr = "540p_sr";
    item.size = {128, 64};
    item.frames = item.audio_latents = 9;
    item.base.steps = item.super.steps = 3;
    item.base.passes = item.super.passes = 2;
    return item;
}

TEST_F(Render, StagesTakeWhatIsForetoldAndAskTheDeviceForNoMore) {
    Conditioning inputs;
    inputs.image = Tensor::zeros({50, 40, 3}, DType::u8);
    inputs.audio = Tensor::zeros({9 * 2048 + 2047});
    for (const VideoDecoder decoder : {VideoDecoder::turbo, VideoDecoder::wan}) {
        Renderer r = renderer();
        const Latents latents = r.denoise(whole_item(), inputs);
        r.decode_video(latents.video(), {decoder, 9}, [](ConstTensorView) {});
        r.decode_audio(latents.audio);
        std::vector<std::string> stages;
        for (const auto& [stage, use] : r.take_timings().memory) {
            if (stage == "load") continue;
            stages.push_back(stage);
            EXPECT_EQ(use.asked, 0U) << stage;
            EXPECT_GT(use.extent, 0U) << stage;
            EXPECT_LE(use.extent, use.foretold + use.foretold / 16) << stage;
        }
        EXPECT_THAT(stages, ::testing::ElementsAre("text", "audio", "image", "base", "sr", "decode",
                                                   "decode audio"));
    }
}

TEST_F(Render, ReservesWhatAPlanPredicts) {
    Conditioning inputs;
    inputs.image = Tensor::zeros({50, 40, 3}, DType::u8);
    inputs.audio = Tensor::zeros({9 * 2048 + 100});
    Item item = whole_item();
    item.image = "picture.png";
    item.audio = "sound.wav";
    for (const Precision precision : {Precision::fp32, Precision::fp8}) {
        Renderer r = renderer(precision);
        const Latents latents = r.denoise(item, inputs);
        r.decode_video(latents.video(), {item.decoder, 9, true}, [](ConstTensorView) {});
        r.decode_audio(latents.audio);
        const auto reserved = r.take_timings().memory;
        const ClipWork planned =
            WorkModel({(folder_->path() / "model").string(), "", precision}).of(item);
        for (std::size_t i = 0; i < stage_count; ++i) {
            const auto stage = static_cast<Stage>(i);
            if (stage == Stage::write) continue;
            const auto found =
                std::find_if(reserved.begin(), reserved.end(),
                             [&](const auto& entry) { return entry.first == name_of(stage); });
            ASSERT_NE(found, reserved.end()) << name_of(stage);
            EXPECT_EQ(found->second.foretold, planned.memory[i].arrays) << name_of(stage);
        }
    }
}

TEST_F(Render, RefinesTheBaseLatentsOfADraftToTheSameBits) {
    Tensor image({50, 40, 3}, DType::u8);
    for (Index i = 0; i < image.numel(); ++i)
        image.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 7 % 251);
    Conditioning inputs;
    inputs.image = std::move(image);
    Item whole = small_item();
    whole.sr = "540p_sr";
    whole.size = {128, 64};
    whole.super.steps = 2;
    whole.super.passes = 2;
    whole.negative_prompt = "blurred";
    Renderer first = renderer();
    const Latents expected = first.denoise(whole, inputs);
    Renderer second = renderer();
    Latents draft = second.denoise(small_item(), inputs);
    EXPECT_EQ(floats(draft.video_base), floats(expected.video_base));
    std::vector<std::string> stages;
    const Latents refined = second.refine(whole, inputs, std::move(draft), [&](const Progress& p) {
        if (stages.empty() || stages.back() != p.stage) stages.push_back(p.stage);
    });
    EXPECT_EQ(floats(refined.video_final), floats(expected.video_final));
    EXPECT_EQ(floats(refined.audio), floats(expected.audio));
    EXPECT_THAT(stages, ::testing::ElementsAre("text", "sr"));
}

TEST_F(Render, RefusesBaseLatentsThatDoNotFit) {
    Renderer r = renderer();
    Item whole = small_item();
    whole.sr = "540p_sr";
    whole.size = {128, 64};
    EXPECT_THROW(r.refine(small_item(), {}, r.denoise(small_item(), {})), InputError);
    Item longer = whole;
    longer.audio_latents = 13;
    longer.frames = 13;
    try {
        r.refine(longer, {}, r.denoise(small_item(), {}));
        FAIL();
    } catch (const InputError& error) {
        EXPECT_THAT(error.what(), HasSubstr("[48, 3, 2, 4] (must be [48, 4, 2, 4])"));
    }
    EXPECT_THROW(r.refine(whole, {}, {}), InputError);
}

TEST_F(Render, DecodesByEitherDecoder) {
    Renderer r = renderer();
    const Latents latents = r.denoise(small_item(), {});
    for (const VideoDecoder decoder : {VideoDecoder::turbo, VideoDecoder::wan}) {
        Index pictures = 0;
        r.decode_video(latents.video(), {decoder, 6},
                       [&](ConstTensorView frames) { pictures += frames.size(0); });
        EXPECT_EQ(pictures, 6);  // no more than asked for
    }
}

TEST_F(Render, RendersASinglePicture) {
    Renderer r = renderer();
    Item item = small_item();
    item.frames = 1;
    item.audio_latents = 1;
    const Latents latents = r.denoise(item, {});
    Index pictures = 0;
    r.decode_video(latents.video(), {VideoDecoder::turbo, 1},
                   [&](ConstTensorView frames) { pictures += frames.size(0); });
    EXPECT_EQ(pictures, 1);
    EXPECT_EQ(r.decode_audio(latents.audio).get().size(1), samples_per_frame);
}

TEST_F(Render, StaysNearSinglePrecisionWithThePublishedCasts) {
    Renderer exact = renderer();
    Renderer cast = renderer(Precision::bf16);
    // Eight bits of mantissa through text encoder and two forwards.
    EXPECT_LE(relative_error(floats(cast.denoise(small_item(), {}).video_base),
                             floats(exact.denoise(small_item(), {}).video_base)),
              5e-2);
}

TEST_F(Render, RefusesWhatItCannotDo) {
    Renderer r = renderer();
    Item item = small_item();
    item.base_size = {60, 32};
    EXPECT_THROW(r.denoise(item, {}), InputError);
    item = small_item();
    item.base.passes = 2;
    item.negative_prompt.clear();
    EXPECT_THROW(r.denoise(item, {}), InputError);
    item = small_item();
    item.variant = "distil";
    try {
        r.denoise(item, {});
        FAIL();
    } catch (const InputError& error) {
        EXPECT_THAT(error.what(), HasSubstr("distil"));
    }
}

TEST_F(Render, MultipliesInE4M3WhatIsChosenOnly) {
    const auto video = [&](const ModelChoice& choice) {
        Renderer r(choice, *backend_);
        return floats(r.denoise(small_item(), {}).video_base);
    };
    const std::string path = (folder_->path() / "model").string();
    const auto casts = video({.path = path, .arch = {}, .precision = Precision::bf16, .fp8 = {}});
    const auto fp8 = video({.path = path, .arch = {}, .precision = Precision::fp8, .fp8 = {}});
    EXPECT_NE(fp8, casts);
    EXPECT_LE(relative_error(fp8, casts), 0.1);
    const auto text_too = video(
        {.path = path, .arch = {}, .precision = Precision::fp8, .fp8 = {.text_encoder = true}});
    EXPECT_NE(text_too, fp8);
    EXPECT_EQ(video({.path = path, .arch = {}, .precision = Precision::fp8, .fp8 = {}}), fp8)
        << "the same bits again";
    // A network of four layers.
    EXPECT_THROW(
        video({.path = path, .arch = {}, .precision = Precision::fp8, .fp8 = {.layers = "2-4"}}),
        InputError);
}

}  // namespace
}  // namespace gallop
