#include "farm/run.hpp"

#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/journal.hpp"
#include "farm/run_lock.hpp"
#include "media/h5.hpp"
#include "media/mp4_facts.hpp"
#include "media/store.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using State = ItemOutcome::State;

constexpr int steps = 3;

/// Stages that cost nothing: latents are the item's noise, pictures a function of the latents.
Stages fake_stages() {
    return {
        [](const Item& item, const Conditioning&, const ProgressSink& progress) {
            Latents latents;
            const Index frames = (item.audio_latents - 1) / 4 + 1;
            latents.video_base =
                Tensor(Shape{48, frames, item.base_size.height / 16, item.base_size.width / 16});
            fill_normal(NoiseStream(item.seed, "video"), 0, latents.video_base.span<float>());
            if (!item.sr.empty()) {
                latents.video_final =
                    Tensor(Shape{48, frames, item.size.height / 16, item.size.width / 16});
                fill_normal(NoiseStream(item.seed, "final"), 0, latents.video_final.span<float>());
            }
            latents.audio = Tensor(Shape{item.audio_latents, 64});
            fill_normal(NoiseStream(item.seed, "audio"), 0, latents.audio.span<float>());
            for (int step = 0; step <= steps; ++step) progress({"base", step, steps});
            return latents;
        },
        [](const Tensor& latent, VideoDecoder, int frames, const FrameSink& sink,
           const ProgressSink& progress) {
            const Index height = latent.size(2) * 16;
            const Index width = latent.size(3) * 16;
            for (int frame = 0; frame < frames; ++frame) {
                Tensor picture(Shape{1, height, width, 3}, DType::u8);
                const auto values = latent.span<float>();
                auto pixels = picture.span<std::uint8_t>();
                for (std::size_t i = 0; i < pixels.size(); ++i)
                    pixels[i] = static_cast<std::uint8_t>(128 + 16 * values[i % values.size()]);
                sink(picture);
                progress({"decode", frame + 1, frames});
            }
        },
        [](const Tensor& latent) {
            return Tensor::zeros(Shape{2, latent.size(0) * 1764});
        },
        [] {
            return StageSeconds{{{"base", 0.5}}};
        }};
}

class RunTest : public testing::Test {
protected:
    RunTest() {
        set_log_level(LogLevel::error);
        fs::create_directories(folder_ / "model" / "distill");
        std::ofstream(folder_ / "model" / "distill" / "model.safetensors") << "weights";
    }
    ~RunTest() override { set_log_level(LogLevel::info); }

    Plan plan(const std::string& items, const std::vector<std::string>& set = {}) {
        return make_plan(parse_manifest("version: 1\nname: test\nmodel: {path: model}\n"
                                        "defaults: {resolution: 64x32, frames: 5}\n"
                                        "outputs: {video: {preset: ultrafast}}\n" +
                                            items,
                                        folder_ / "m.yaml", set),
                         "");
    }
    Plan three() {
        return plan(
            "items: [{name: a, prompt: p}, {name: b, prompt: q}, {name: c, prompt: p, seed: 3}]");
    }
    RunResult run(const Plan& plan, const Stages& stages, const std::string& out = "out") {
        RunOptions options;
        options.directory = folder_ / out;
        options.stop = &stop_;
        return run_plan(plan, stages, options);
    }
    std::vector<nlohmann::json> journal(const std::string& out = "out") {
        return read_journal(read_text(folder_ / out / "journal.jsonl")).events;
    }
    /// All clips and latents by path, and whether anything temporary is left.
    std::map<std::string, std::string> files(const std::string& out) {
        std::map<std::string, std::string> found;
        for (const auto& entry : fs::recursive_directory_iterator(folder_ / out)) {
            const std::string name = entry.path().lexically_relative(folder_ / out).string();
            if (name.ends_with(".mp4") || name.ends_with(".h5") || name.ends_with(".tmp"))
                found[name] = read_text(entry.path());
        }
        return found;
    }

    test::TemporaryFolder folder_;
    std::atomic<bool> stop_{false};
};

TEST_F(RunTest, WritesClipsLatentsJournalAndIndex) {
    const Plan p = three();
    const RunResult result = run(p, fake_stages());
    EXPECT_FALSE(result.stopped);
    ASSERT_EQ(result.count(State::done), 3U);
    EXPECT_TRUE(fs::exists(folder_ / "out" / "COMPLETE"));
    for (const ItemOutcome& item : result.items) {
        EXPECT_TRUE(item.rendered);
        EXPECT_EQ(item.clip, clip_path(folder_ / "out", item.id));
        const Mp4Facts facts = verify_mp4(item.clip, 5, 64, 32);
        EXPECT_THAT(facts.tags.at("comment"), HasSubstr(item.id));
        const LatentsFile latents = read_latents(latents_path(folder_ / "out", item.id));
        EXPECT_EQ(latents.video_base.shape(), (Shape{48, 2, 2, 4}));
        EXPECT_EQ(latents.audio.shape(), (Shape{5, 64}));
        EXPECT_EQ(std::get<std::string>(latents.attributes.at("id")), item.id);
    }
    const auto events = journal();
    ASSERT_EQ(events.size(), 3U);
    EXPECT_EQ(events[0]["event"], "done");
    EXPECT_EQ(events[0]["seconds"]["base"], 0.5);
    const std::string index = read_text(folder_ / "out" / "index.jsonl");
    EXPECT_EQ(std::count(index.begin(), index.end(), '\n'), 3);
    EXPECT_EQ(nlohmann::json::parse(index.substr(0, index.find('\n')))["name"], "a");
    EXPECT_EQ(nlohmann::json::parse(read_text(folder_ / "out" / "status.json"))["state"],
              "finished");
}

TEST_F(RunTest, SkipsWhatIsDone) {
    const Plan p = three();
    run(p, fake_stages());
    const RunResult again = run(p, {});  // no stages: nothing may be asked of them
    EXPECT_EQ(again.count(State::done), 3U);
    EXPECT_FALSE(again.items[0].rendered);
    EXPECT_EQ(journal().size(), 3U);
}

TEST_F(RunTest, RendersAgainWhenAFileIsGoneOrChanged) {
    const Plan p = three();
    run(p, fake_stages());
    const auto before = files("out");
    fs::remove(clip_path(folder_ / "out", p.items[0].item.id));
    std::ofstream(latents_path(folder_ / "out", p.items[1].item.id)) << "cut";
    const RunResult again = run(p, fake_stages());
    EXPECT_TRUE(again.items[0].rendered);
    EXPECT_TRUE(again.items[1].rendered);
    EXPECT_FALSE(again.items[2].rendered);
    EXPECT_EQ(files("out"), before);
}

TEST_F(RunTest, GoesOnAfterAFailedItemAndTriesItAgainNextTime) {
    const Plan p = three();
    Stages broken = fake_stages();
    const auto denoise = broken.denoise;
    broken.denoise = [&](const Item& item, const Conditioning& inputs,
                         const ProgressSink& progress) {
        if (item.name == "b") throw Error("latents are not finite");
        return denoise(item, inputs, progress);
    };
    const RunResult result = run(p, broken);
    EXPECT_FALSE(result.stopped);
    EXPECT_EQ(result.count(State::done), 2U);
    EXPECT_EQ(result.items[1].state, State::failed);
    EXPECT_EQ(result.items[1].error, "latents are not finite");
    EXPECT_EQ(journal()[1]["event"], "failed");
    EXPECT_EQ(journal()[1]["error"], "latents are not finite");
    EXPECT_EQ(run(p, fake_stages()).count(State::done), 3U);
}

TEST_F(RunTest, QuarantinesAnItemWhoseInputIsBroken) {
    std::ofstream(folder_ / "photo.png") << "no picture";
    const Plan p = plan("items: [{name: a, prompt: p, image: photo.png}, {name: b, prompt: p}]");
    const RunResult result = run(p, fake_stages());
    EXPECT_EQ(result.items[0].state, State::failed);
    EXPECT_THAT(result.items[0].error, HasSubstr("photo.png"));
    EXPECT_EQ(result.items[1].state, State::done);
    EXPECT_EQ(journal()[0]["event"], "quarantined");
}

TEST_F(RunTest, CountsAWrongNumberOfPicturesAsAFailure) {
    Stages broken = fake_stages();
    const auto decode = broken.decode_video;
    broken.decode_video = [&](const Tensor& latent, VideoDecoder decoder, int frames,
                              const FrameSink& sink, const ProgressSink& progress) {
        decode(latent, decoder, frames - 1, sink, progress);
    };
    const Plan p = plan("items: [{prompt: p}]");
    EXPECT_EQ(run(p, broken).items[0].state, State::failed);
    EXPECT_FALSE(fs::exists(clip_path(folder_ / "out", p.items[0].item.id)));
}

TEST_F(RunTest, StopsWhenAskedAndResumes) {
    const Plan p = three();
    Stages stages = fake_stages();
    const auto decode = stages.decode_video;
    int decoded = 0;
    stages.decode_video = [&](const Tensor& latent, VideoDecoder decoder, int frames,
                              const FrameSink& sink, const ProgressSink& progress) {
        if (++decoded == 2) stop_ = true;
        decode(latent, decoder, frames, sink, progress);
    };
    const RunResult result = run(p, stages);
    EXPECT_TRUE(result.stopped);
    EXPECT_EQ(result.items[0].state, State::done);
    EXPECT_EQ(result.items[1].state, State::open);
    EXPECT_FALSE(fs::exists(folder_ / "out" / "COMPLETE"));
    for (const auto& [name, content] : files("out")) EXPECT_FALSE(name.ends_with(".tmp")) << name;
    EXPECT_EQ(nlohmann::json::parse(read_text(folder_ / "out" / "status.json"))["state"],
              "stopped");
    stop_ = false;
    EXPECT_EQ(run(p, fake_stages()).count(State::done), 3U);
}

TEST_F(RunTest, GivesTheSameBytesTwice) {
    const Plan p = three();
    run(p, fake_stages(), "one");
    run(p, fake_stages(), "two");
    EXPECT_EQ(files("one").size(), 6U);
    EXPECT_EQ(files("one"), files("two"));
}

TEST_F(RunTest, RendersDuplicatesOnce) {
    const Plan p = plan("items: [{name: a, prompt: p}, {name: b, prompt: p}]");
    ASSERT_EQ(p.items.size(), 1U);
    EXPECT_EQ(p.items[0].item.name, "a");
    ASSERT_EQ(p.duplicates.size(), 1U);
    EXPECT_EQ(p.duplicates[0].name, "b");
    EXPECT_EQ(run(p, fake_stages()).count(State::done), 1U);
}

TEST_F(RunTest, KeepsTheLatentsAskedFor) {
    fs::create_directories(folder_ / "model" / "540p_sr");
    const auto latents_with = [&](const std::string& keep) {
        const Plan p = plan("items: [{prompt: p, sr: 540p_sr, base_resolution: 32x32}]",
                            {"outputs.latents.keep=" + keep, "outputs.latents.dtype=f32"});
        run(p, fake_stages(), keep);
        const fs::path path = latents_path(folder_ / keep, p.items[0].item.id);
        return fs::exists(path) ? read_latents(path) : LatentsFile{};
    };
    LatentsFile both = latents_with("[base, final]");
    EXPECT_EQ(both.video_base.shape(), (Shape{48, 2, 2, 2}));
    EXPECT_EQ(both.video_final.shape(), (Shape{48, 2, 2, 4}));
    EXPECT_EQ(both.stored, DType::f32);
    LatentsFile last = latents_with("[final]");
    EXPECT_FALSE(last.video_base.defined());
    EXPECT_TRUE(last.video_final.defined());
    LatentsFile none = latents_with("[]");
    EXPECT_FALSE(none.audio.defined());
}

TEST_F(RunTest, RefusesADirectoryOfSomethingElse) {
    fs::create_directories(folder_ / "out");
    std::ofstream(folder_ / "out" / "thesis.tex") << "x";
    EXPECT_THROW(run(three(), fake_stages()), InputError);
}

TEST_F(RunTest, RefusesTheDirectoryOfAnotherPlan) {
    run(three(), fake_stages());
    try {
        run(plan("items: [{name: a, prompt: other}]"), fake_stages());
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(), HasSubstr("its items are others"));
    }
}

TEST_F(RunTest, NamesWhoHoldsTheDirectory) {
    const RunLock held(folder_ / "out");
    try {
        run(three(), fake_stages());
        FAIL() << "no exception";
    } catch (const InputError& wrong) {
        EXPECT_THAT(wrong.what(),
                    HasSubstr("host " + host_name() + " process " + std::to_string(::getpid())));
    }
}

// Killed at whatever moment, a run leaves whole files only, and the next one completes it with the
// same bytes.
TEST_F(RunTest, LosesNothingWhenItIsKilled) {
    const Plan p = three();
    run(p, fake_stages(), "whole");
    const auto expected = files("whole");
    std::mt19937 random(1);
    for (int round = 0; round < 8; ++round) {
        const std::string out = "killed" + std::to_string(round);
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            try {
                run(p, fake_stages(), out);
            } catch (...) {
                ::_exit(1);
            }
            ::_exit(0);
        }
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 150000));
        ::kill(child, SIGKILL);
        int status = 0;
        ::waitpid(child, &status, 0);
        if (fs::exists(folder_ / out)) {
            for (const auto& [name, content] : files(out)) {
                if (name.ends_with(".tmp")) continue;
                ASSERT_TRUE(expected.contains(name)) << name;
                EXPECT_EQ(content, expected.at(name)) << name;
            }
        }
        EXPECT_EQ(run(p, fake_stages(), out).count(State::done), 3U);
        EXPECT_EQ(files(out), expected);
    }
}

}  // namespace
}  // namespace gallop
