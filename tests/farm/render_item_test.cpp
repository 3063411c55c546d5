#include "farm/render_item.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "media/h5.hpp"
#include "media/mp4_facts.hpp"
#include "media/store.hpp"
#include "support/fake_stages.hpp"
#include "support/planned_run.hpp"
#include "support/sound_file.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class RenderItem : public testing::Test {
protected:
    RenderItem() { set_log_level(LogLevel::error); }
    ~RenderItem() override { set_log_level(LogLevel::info); }

    /// Takes the first item of a plan as the task.
    void take(const std::string& items, const std::vector<std::string>& set = {}) {
        plan_ = run_.plan(items, set);
        directory_ = run_ / "out";
    }
    RenderTask task() const {
        return {plan_.items[0].item, plan_.items[0].resolved, plan_.config.model,
                plan_.config.outputs, directory_};
    }
    RenderedItem render(const Stages& stages = test::fake_stages()) {
        return render_item(task(), stages, [](const Progress&) {});
    }
    fs::path clip() const { return clip_path(directory_, plan_.items[0].item.id); }
    fs::path latents() const { return latents_path(directory_, plan_.items[0].item.id); }

    test::PlannedRun run_;
    test::FrozenPlan plan_;
    fs::path directory_;
};

TEST_F(RenderItem, LeavesAClipAndItsLatents) {
    take("items: [{name: a, prompt: p}]");
    const RenderedItem made = render();
    const Item& item = plan_.items[0].item;
    EXPECT_EQ(directory_ / made.clip.path, clip());
    EXPECT_EQ(made.clip.bytes, fs::file_size(clip()));
    EXPECT_EQ(made.clip.sha256.size(), 64U);
    EXPECT_EQ(made.seconds.stages.front(), (std::pair<std::string, double>("base", 0.5)));
    EXPECT_EQ(made.seconds.stages.back().first, "total");
    EXPECT_FALSE(made.adopted);
    EXPECT_THAT(verify_mp4(clip(), 5, 64, 32).tags.at("comment"), HasSubstr(item.id));
    ASSERT_TRUE(made.latents);
    const LatentsFile file = read_latents(directory_ / made.latents->path);
    EXPECT_EQ(file.video_base.shape(), (Shape{48, 2, 2, 4}));
    EXPECT_EQ(file.audio.shape(), (Shape{5, 64}));
    EXPECT_EQ(std::get<std::string>(file.attributes.at("id")), item.id);
}

TEST_F(RenderItem, GivesTheSameBytesTwice) {
    take("items: [{prompt: p}]");
    const std::string first = render().clip.sha256;
    fs::remove_all(directory_);
    EXPECT_EQ(render().clip.sha256, first);
}

TEST_F(RenderItem, KeepsTheLatentsAskedFor) {
    const auto kept = [&](const std::string& keep) {
        take("items: [{prompt: p, sr: 540p_sr, base_resolution: 32x32}]",
             {"outputs.latents.keep=" + keep, "outputs.latents.dtype=f32"});
        fs::remove_all(directory_);
        const RenderedItem made = render();
        EXPECT_EQ(made.latents.has_value(), fs::exists(latents()));
        EXPECT_TRUE(adopt_item(task()).has_value()) << keep;
        return made.latents ? read_latents(latents()) : LatentsFile{};
    };
    const LatentsFile both = kept("[base, final]");
    EXPECT_EQ(both.video_base.shape(), (Shape{48, 2, 2, 2}));
    EXPECT_EQ(both.video_final.shape(), (Shape{48, 2, 2, 4}));
    EXPECT_EQ(both.stored, DType::f32);
    const LatentsFile last = kept("[final]");
    EXPECT_FALSE(last.video_base.defined());
    EXPECT_TRUE(last.video_final.defined());
    EXPECT_FALSE(kept("[]").audio.defined());
}

TEST_F(RenderItem, FailsWithTooFewPicturesAndLeavesNoClip) {
    take("items: [{prompt: p}]");
    Stages broken = test::fake_stages();
    const auto decode = broken.decode_video;
    broken.decode_video = [&](const Tensor& latent, const PictureDecode& how, const FrameSink& sink,
                              const ProgressSink& progress) {
        decode(latent, {how.decoder, how.frames - 1}, sink, progress);
    };
    EXPECT_THROW(render(broken), BadOutputError);
    for (const auto& [name, content] : test::PlannedRun::files(directory_))
        EXPECT_TRUE(name.ends_with(".h5")) << name;
}

TEST_F(RenderItem, RefusesAnInputThatHasChangedSinceItWasPlanned) {
    std::ofstream(run_ / "photo.png") << "no picture";
    take("items: [{prompt: p, image: photo.png}]");
    try {
        render();
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("photo.png"));
    }
    std::ofstream(run_ / "photo.png") << "another";
    try {
        render();
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("has changed since the run was planned"));
    }
}

TEST_F(RenderItem, GivesTheNetworkEverySampleOfTheDrivingSound) {
    test::write_sound(run_ / "voice.wav", 3 * 2048 + 1000);
    for (const auto& [seconds, samples] : {std::pair{"2", 3 * 2048 + 1000}, {"0.1", 5120}}) {
        take(std::string("items: [{prompt: p, audio: voice.wav, seconds: ") + seconds + "}]");
        const Tensor sound = load_inputs(task()).audio;
        ASSERT_EQ(sound.numel(), samples);
        for (Index i = 0; i < samples; ++i)
            ASSERT_EQ(sound.data<float>()[i], static_cast<float>(i % 100 * 100) / 32768.0F) << i;
    }
}

TEST_F(RenderItem, PassesOnWhatProgressThrows) {
    struct Enough {};
    take("items: [{prompt: p}]");
    EXPECT_THROW(render_item(task(), test::fake_stages(), [](const Progress&) { throw Enough{}; }),
                 Enough);
    EXPECT_FALSE(fs::exists(clip()));
}

TEST_F(RenderItem, SaysThatTheDiskRefused) {
    take("items: [{prompt: p}]");
    directory_ = "/dev/full/nowhere";
    EXPECT_THROW(render(), Error);
    EXPECT_THROW(throw_file_error("x", "write failed", ENOSPC), DiskError);
    EXPECT_THROW(throw_file_error("x", "write failed", EROFS), DiskError);
}

class AdoptItem : public RenderItem {
protected:
    AdoptItem() {
        take("items: [{prompt: p}, {prompt: other}]");
        made_ = render();
    }
    RenderedItem made_;
};

TEST_F(AdoptItem, TakesWhatIsWhole) {
    const auto found = adopt_item(task());
    ASSERT_TRUE(found);
    EXPECT_TRUE(found->adopted);
    EXPECT_EQ(found->clip.sha256, made_.clip.sha256);
    EXPECT_EQ(found->latents.value().sha256, made_.latents.value().sha256);
}

TEST_F(AdoptItem, WantsBothFiles) {
    fs::remove(latents());
    EXPECT_FALSE(adopt_item(task()));
    render();
    fs::remove(clip());
    EXPECT_FALSE(adopt_item(task()));
}

TEST_F(AdoptItem, RefusesFilesThatAreCutAnywhere) {
    for (const fs::path& path : {clip(), latents()}) {
        const std::string whole = read_text(path);
        for (const std::size_t bytes : {whole.size() - 1, whole.size() / 2, std::size_t{1}}) {
            std::ofstream(path, std::ios::binary) << whole.substr(0, bytes);
            EXPECT_FALSE(adopt_item(task())) << path << " " << bytes;
        }
        std::ofstream(path, std::ios::binary) << whole;
        EXPECT_TRUE(adopt_item(task()));
    }
}

TEST_F(AdoptItem, RefusesTheFilesOfAnotherItem) {
    const Item& other = plan_.items[1].item;
    const RenderTask theirs{other, plan_.items[1].resolved, plan_.config.model,
                            plan_.config.outputs, directory_};
    for (const auto& [from, to] : {std::pair{clip(), clip_path(directory_, other.id)},
                                   std::pair{latents(), latents_path(directory_, other.id)}}) {
        fs::create_directories(to.parent_path());
        fs::copy_file(from, to);
    }
    EXPECT_FALSE(adopt_item(theirs));
    fs::remove(latents_path(directory_, other.id));
    plan_.config.outputs.keep_base = plan_.config.outputs.keep_final = false;
    EXPECT_FALSE(adopt_item(theirs));  // by the clip's comment alone
}

}  // namespace
}  // namespace gallop
