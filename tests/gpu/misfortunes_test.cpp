#include <algorithm>
#include <string_view>

#include "core/device_error.hpp"
#include "core/memory_use.hpp"
#include "emulation/runtime.hpp"
#include "gpu/clips.hpp"
#include "gpu/judged.hpp"
#include "pipeline/memory.hpp"

// A GPU that breaks in mid-run, and one with too little memory. Only an emulated one does on request.

namespace gallop {
using namespace test;
namespace {

class Misfortunes : public Judged {
protected:
    static Item short_clip() {
        Item item = lower(small());
        item.frames = item.audio_latents = 5;
        item.base.steps = 2;
        return item;
    }

    struct Rendered {
        std::vector<float> video, audio, sound;
        std::vector<std::uint8_t> pictures;
        bool operator==(const Rendered&) const = default;
    };
    /// All stages of a clip.
    static Rendered rendered(Renderer& renderer, const std::string& prompt = short_clip().prompt) {
        Item item = short_clip();
        item.prompt = prompt;
        const Latents latents = renderer.denoise(item, {picture(), {}});
        Rendered made{floats(latents.video_base), floats(latents.audio), {}, {}};
        made.pictures = pictures(renderer, latents.video(), VideoDecoder::turbo);
        made.sound = floats(renderer.decode_audio(latents.audio).get());
        return made;
    }

    static bool loads(const StageSeconds& spent) {
        return std::any_of(spent.stages.begin(), spent.stages.end(),
                           [](const auto& stage) { return stage.first == "load"; });
    }
    static std::size_t foretold(const StageSeconds& spent, std::string_view wanted) {
        for (const auto& [stage, use] : spent.memory)
            if (stage == wanted) return use.foretold;
        return 0;
    }
};
INSTANTIATE_TEST_SUITE_P(On, Misfortunes, ::testing::Values("cuda"),
                         [](const auto& of) { return of.param; });

TEST_P(Misfortunes, AFaultIsALostDeviceThenAndEverAfter) {
    std::uint64_t all = 0;
    {
        const auto on = make();
        Renderer renderer(choice(Precision::bf16), *on);
        const std::uint64_t before = emulation::launches();
        rendered(renderer);
        all = emulation::launches() - before;
    }
    ASSERT_GT(all, 100U);
    for (const std::uint64_t launch :
         {std::uint64_t{1}, all / 50, all / 7, all / 3, all / 2, 3 * all / 4, all}) {
        SCOPED_TRACE("launch " + std::to_string(launch) + " of " + std::to_string(all));
        const emulation::Fault fault(launch);
        const auto on = make();
        Renderer renderer(choice(Precision::bf16), *on);
        EXPECT_THROW(rendered(renderer), DeviceError);
        EXPECT_THROW(rendered(renderer), DeviceError);
        EXPECT_THROW(on->synchronize(), DeviceError);
        EXPECT_THROW(on->zeros({3}), DeviceError);
        EXPECT_THROW(on->upload(Tensor::zeros({3})), DeviceError);
    }
}

TEST_P(Misfortunes, LittleMemoryCutsPicturesIntoStrips) {
    Tensor latent({48, 2, 26, 1});  // high enough for two strips
    fill_normal(NoiseStream(7, "latent"), 0, latent.span<float>());
    const Tensor other = Tensor::zeros({48, 1, 2, 2});
    for (const Precision precision : {Precision::fp32, Precision::bf16})
        for (const VideoDecoder decoder : {VideoDecoder::turbo, VideoDecoder::wan}) {
            Renderer renderer(choice(precision), *judged_);
            const auto whole = pictures(renderer, latent, decoder);
            const StageSeconds spent = renderer.take_timings();
            EXPECT_EQ(spent.strips, 1);

            Renderer cramped(choice(precision), *judged_);
            pictures(cramped, other, decoder);  // loads the weights
            const emulation::LittleMemory room(with_workspaces(foretold(spent, "decode")) - 1);
            expect_same_pictures(pictures(cramped, latent, decoder), whole);
            EXPECT_GE(cramped.take_timings().strips, 2);
        }
}

TEST_P(Misfortunes, NetworksThatLeaveComeBackWithTheSameBits) {
    for (const Precision precision : {Precision::bf16, Precision::fp8}) {
        const auto on = make();
        const auto lent = [&] { return dynamic_cast<CountedMemory&>(on->memory()).use().now; };
        const std::size_t before = lent();  // the libraries' workspaces
        Renderer roomy(choice(precision), *on);
        const Rendered expected = rendered(roomy);
        const StageSeconds first = roomy.take_timings();
        EXPECT_TRUE(rendered(roomy) == expected);
        EXPECT_FALSE(loads(roomy.take_timings()));
        const std::string other = "Snow";  // whose features nobody has kept
        const Rendered expected_of_other = rendered(roomy, other);
        const std::size_t weights = lent() - before;
        std::size_t arrays = 0;
        for (const auto& [stage, use] : first.memory) arrays = std::max(arrays, use.foretold);

        Renderer cramped(choice(precision), *judged_);
        const emulation::LittleMemory room(with_workspaces(arrays) + weights * 9 / 10);
        EXPECT_TRUE(rendered(cramped) == expected);
        cramped.take_timings();
        EXPECT_TRUE(rendered(cramped, other) == expected_of_other);
        EXPECT_TRUE(loads(cramped.take_timings()));
    }
}

TEST_P(Misfortunes, TooLittleMemoryIsSaidAndLeavesTheRendererWhole) {
    const auto on = make();
    Renderer roomy(choice(Precision::bf16), *on);
    const Rendered expected = rendered(roomy);
    const std::size_t held = dynamic_cast<CountedMemory&>(on->memory()).use().peak;
    Renderer renderer(choice(Precision::bf16), *judged_);
    int refused = 0;
    for (const std::size_t left : {std::size_t{0}, held / 50, held / 8, held / 3}) {
        const emulation::LittleMemory room(left);
        try {
            EXPECT_TRUE(rendered(renderer) == expected);
        } catch (const OutOfMemoryError&) {
            ++refused;
        }
    }
    EXPECT_GE(refused, 2);
    EXPECT_TRUE(rendered(renderer) == expected);
}

}  // namespace
}  // namespace gallop
