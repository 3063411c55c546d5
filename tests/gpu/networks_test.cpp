#include <functional>

#include "gpu/judged.hpp"
#include "model/bundle.hpp"
#include "model/fp8.hpp"
#include "model/shard.hpp"

// Each network as a whole, loaded from its file, on random inputs.

namespace gallop {
using namespace test;
namespace {

// f32 sums in another order, and functions that differ in their last places, through all layers.
constexpr double f32_tolerance = 5e-5;

class Networks : public Judged {
protected:
    using Values = std::vector<float>;

    /// fp32 agrees; in bf16 it is no worse than on the CPU, and gives the same bits again.
    void agree(const char* what, const std::function<Values(Backend&, DType)>& run) {
        const Values truth = run(*reference_, DType::f32);
        EXPECT_LE(RelativeL2(run(*judged_, DType::f32), truth).value(), f32_tolerance) << what;
        const Values cast = run(*judged_, DType::bf16);
        expect_no_worse(what, RelativeL2(cast, truth).value(),
                        RelativeL2(run(*reference_, DType::bf16), truth).value());
        EXPECT_EQ(run(*judged_, DType::bf16), cast) << what << ": other bits the second time";
    }

    TurboVae turbo(Backend& on, DType dtype) const {
        const TurboVaeConfig& config = bundle_.architecture.turbo;
        return {config,
                Checkpoint::open(bundle_.turbo_vae())
                    .load(specs(config, dtype), on, {.prefix = "", .strict = false}),
                dtype};
    }
    WanVae wan(Backend& on, WanPart part, DType dtype) const {
        const WanVaeConfig& config = bundle_.architecture.wan;
        return {config,
                Checkpoint::open(bundle_.wan_vae())
                    .load(specs(config, part, dtype), on, {.prefix = "", .strict = false}),
                dtype};
    }
    AudioVae sound(Backend& on) const {
        const AudioVaeConfig& config = bundle_.architecture.audio;
        return {config,
                Checkpoint::open(bundle_.audio_vae())
                    .load(specs(config), on, {.prefix = std::string(audio_vae_prefix)}),
                on};
    }
    /// One forward of a variant on 152 tokens. fp8: all layers' linears in E4M3.
    Values velocity(const std::string& variant, Backend& on, DType linears, bool fp8 = false) {
        const TransformerConfig& config = bundle_.variant(variant).network;
        auto table =
            sharded_specs(config, linears, shard_of(config, 0, 1, on.matrix_unit(linears)));
        if (fp8) choose_fp8(table, config.num_layers, {.layers = "all"}, variant);
        Transformer network(config, Checkpoint::open(bundle_.dit(variant)).load(table, on), on);
        const Tensor video = on.upload(video_);
        const Tensor audio = on.upload(audio_);
        const Tensor text = on.upload(text_);
        const Velocity v = network.forward({video, audio, text});
        Values all = floats(on.download(v.video));
        const Values heard = floats(on.download(v.audio));
        all.insert(all.end(), heard.begin(), heard.end());
        return all;
    }

    /// All pictures of a decode.
    template <class Network>
    static Values decoded(const Network& network, const Tensor& latent, Backend& on, Index strips) {
        Values all;
        network.decode(
            on.upload(latent), on,
            [&](ConstTensorView pictures) {
                const Values part = floats(on.download(pictures));
                all.insert(all.end(), part.begin(), part.end());
            },
            strips);
        return all;
    }

    /// Strips give what the whole gives: 1e-3 of the range −1 … 1 in bf16.
    template <class Network>
    void strips_change_nothing(const Network& network, const Tensor& latent, double tolerance) {
        const Index most = network.most_strips(latent.size(2));
        ASSERT_GE(most, 2);
        const Values whole = decoded(network, latent, *judged_, 1);
        const Values cut = decoded(network, latent, *judged_, most);
        EXPECT_LE(RelativeL2(cut, whole).value(), tolerance);
    }

    const Bundle bundle_ = open_bundle(model());
    RandomValues random_;
    Tensor video_ = random_.tensor({48, 5, 8, 12});
    Tensor audio_ = random_.tensor({17, 64});
    Tensor text_ = random_.tensor({15, 64});
};

/// Where there is no cuDNN own kernels do its work.
std::vector<std::string> with_and_without_cudnn() {
    std::vector<std::string> names = judged_backends();
    if (names.back() == "cuda") names.emplace_back("cuda_without_cudnn");
    return names;
}
INSTANTIATE_TEST_SUITE_P(On, Networks, ::testing::ValuesIn(with_and_without_cudnn()),
                         [](const auto& of) { return of.param; });

TEST_P(Networks, StartFromTheSameNoiseBitByBit) {
    for (const char* stream : {"video", "audio", "sr.video", "renoise.video.3"}) {
        const auto drawn = [&](Backend& on) {
            Tensor y = on.empty({48, 5, 8, 12});
            on.normal(NoiseStream(0xfedcba9876543210U, stream), 0, y);
            return floats(on.download(y));
        };
        EXPECT_EQ(drawn(*judged_), drawn(*reference_)) << stream;
    }
}

TEST_P(Networks, EncodesText) {
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < 37; ++i) ids.push_back(i * 211 % 1400);
    agree("the text encoder", [&](Backend& on, DType dtype) {
        return floats(TextEncoder(bundle_.text_encoder(), {.compute = dtype, .soft_cap = true}, on)
                          .encode(ids));
    });
}

TEST_P(Networks, PredictsVelocities) {
    for (const char* variant : {"distill", "1080p_sr"})  // all frames; local layers
        agree(variant, [&](Backend& on, DType dtype) { return velocity(variant, on, dtype); });
}

TEST_P(Networks, PredictsVelocitiesInE4M3) {
    const Values truth = velocity("distill", *reference_, DType::f32);
    const Values judged = velocity("distill", *judged_, DType::bf16, true);
    expect_no_worse("a forward in fp8", RelativeL2(judged, truth).value(),
                    RelativeL2(velocity("distill", *reference_, DType::bf16, true), truth).value());
    EXPECT_EQ(velocity("distill", *judged_, DType::bf16, true), judged);
}

TEST_P(Networks, DecodesPicturesByTheTurboDecoder) {
    const Tensor latent = random_.tensor({48, 7, 2, 3});  // three chunks
    agree("the turbo decoder",
          [&](Backend& on, DType dtype) { return decoded(turbo(on, dtype), latent, on, 1); });
    const Tensor high = random_.tensor({48, 3, 26, 1});
    strips_change_nothing(turbo(*judged_, DType::f32), high, 1e-5);
    strips_change_nothing(turbo(*judged_, DType::bf16), high, 1e-3);
}

TEST_P(Networks, DecodesPicturesByTheFullDecoder) {
    const Tensor latent = random_.tensor({48, 3, 3, 4});
    agree("the full decoder", [&](Backend& on, DType dtype) {
        return decoded(wan(on, WanPart::decoder, dtype), latent, on, 1);
    });
    const Tensor high = random_.tensor({48, 2, 26, 1});
    strips_change_nothing(wan(*judged_, WanPart::decoder, DType::f32), high, 1e-5);
    strips_change_nothing(wan(*judged_, WanPart::decoder, DType::bf16), high, 1e-3);
}

TEST_P(Networks, EncodesPictures) {
    // Few values come out of one clip. With sums in another order than the CPU's some values of the first
    // layers round to the other neighbour, and the error of one clip is up to a seventh larger or smaller.
    std::vector<Tensor> clips;
    for (int clip = 0; clip < 8; ++clip) clips.push_back(random_.tensor({5, 64, 96, 3}, 0.5F));
    agree("the picture encoder", [&](Backend& on, DType dtype) {
        const WanVae encoder = wan(on, WanPart::encoder, dtype);
        Values all;
        for (const Tensor& clip : clips) {
            const Values one = floats(on.download(encoder.encode(on.upload(clip), on)));
            all.insert(all.end(), one.begin(), one.end());
        }
        return all;
    });
}

// In f32 only, as published. Sines of large arguments.
TEST_P(Networks, EncodesAndDecodesSound) {
    const Tensor heard = random_.tensor({2, 3 * 2048 + 1000}, 0.3F);
    const auto encoded = [&](Backend& on) {
        return floats(on.download(sound(on).encode(on.upload(heard), on)));
    };
    EXPECT_LE(RelativeL2(encoded(*judged_), encoded(*reference_)).value(), 5e-4);
    const Tensor latent = random_.tensor({3, 64});
    const auto played = [&](Backend& on) {
        return floats(on.download(sound(on).decode(on.upload(latent), on)));
    };
    EXPECT_LE(RelativeL2(played(*judged_), played(*reference_)).value(), 5e-4);
    EXPECT_EQ(played(*judged_), played(*judged_));
}

}  // namespace
}  // namespace gallop
