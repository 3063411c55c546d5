#include "model/audio_vae.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/vae_case.hpp"

namespace gallop {
namespace {

using test::configured;
using test::expect_near;
using test::floats;
using test::values;
using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::filesystem::path golden = std::filesystem::path(GALLOP_GOLDEN) / "audio-vae-tiny";

// What the project asks of the sound VAE: the sines of its large arguments magnify the order of
// sums.
constexpr double audio_tolerance = 5e-4;

AudioVaeConfig tiny() {
    return configured(read_yaml(golden / "model_config.json"), read_audio_vae);
}

AudioVae vae_of(const AudioVaeConfig& config, Backend& on) {
    return {config, test::random_weights(specs(config), on), on};
}

AudioVae tiny_vae(Backend& on) {
    const AudioVaeConfig config = tiny();
    return {config,
            Checkpoint::open(golden / "model.safetensors")
                .load(specs(config), on, {.prefix = std::string(audio_vae_prefix)}),
            on};
}

TEST(AudioVae, HasThePublishedTensors) {
    const auto table = specs(AudioVaeConfig{});
    EXPECT_EQ(table.size(), 365U);
    EXPECT_EQ(test::parameters(table), 156112514);
    EXPECT_EQ(AudioVaeConfig{}.ratio(), 2048);
}

class AudioVaeGolden : public testing::TestWithParam<const char*> {};

TEST_P(AudioVaeGolden, DecodesAsTheAuthorsDo) {
    const auto on = make_cpu_backend();
    const auto file = Checkpoint::open(golden / GetParam());
    const Tensor latent = file.read_f32("latent");
    Tensor rows({latent.size(1), latent.size(0)});
    on->permute(latent, latent.shape(), std::array{1, 0}, rows);
    const Tensor want = file.read_f32("waveform");
    const Tensor got = tiny_vae(*on).decode(rows, *on);
    EXPECT_EQ(to_string(got.shape()), to_string(want.shape()));
    expect_near(got.span<float>(), want.span<float>(), audio_tolerance);
}

void expect_encoded_as_in(const char* golden_case) {
    const auto on = make_cpu_backend();
    const auto file = Checkpoint::open(golden / golden_case);
    const Tensor want = file.read_f32("encoder_mean_scale");
    const Tensor rows = tiny_vae(*on).encode(file.read_f32("encoder_in"), *on);
    Tensor got({rows.size(1), rows.size(0)});
    on->permute(rows, rows.shape(), std::array{1, 0}, got);
    EXPECT_EQ(to_string(got.shape()), to_string(want.shape()));
    expect_near(got.span<float>(), want.span<float>(), audio_tolerance);
}

TEST_P(AudioVaeGolden, EncodesAsTheAuthorsDo) { expect_encoded_as_in(GetParam()); }

// The samples that fill no latent are worth six tenths of the last latent there.
TEST(AudioVae, HearsSamplesThatFillNoLatentAsPyTorchDoes) {
    expect_encoded_as_in("encode-rest.safetensors");
}

INSTANTIATE_TEST_SUITE_P(Cases, AudioVaeGolden,
                         testing::Values("case-one.safetensors", "case-short.safetensors"));

TEST(AudioVae, MakesALatentOf2048Samples) {
    const auto on = make_cpu_backend();
    const AudioVae vae = tiny_vae(*on);
    for (const Index rest : {0, 1, 1000, 2047})
        EXPECT_EQ(vae.encode(Tensor::zeros({2, 2 * 2048 + rest}), *on).size(0), 2) << rest;
    EXPECT_EQ(vae.decode(Tensor::zeros({3, 64}), *on).size(1), 3 * 2048);
}

TEST(AudioVae, TakesOtherWidthsStridesAndActivations) {
    const auto on = make_cpu_backend();
    AudioVaeConfig config;
    config.encoder = {.audio_channels = 1,
                      .channels = 3,
                      .latent_dim = 10,
                      .c_mults = {1, 3},
                      .strides = {4, 6},
                      .snake = false};
    config.decoder = {.audio_channels = 1,
                      .channels = 5,
                      .latent_dim = 5,
                      .c_mults = {2, 1},
                      .strides = {4, 6},
                      .snake = false,
                      .final_tanh = true};
    const AudioVae vae = vae_of(config, *on);
    test::RandomValues random;
    const Tensor mean_scale = vae.encode(random.tensor({1, 24 * 7}), *on);
    EXPECT_EQ(to_string(mean_scale.shape()), "[7, 10]");
    const Tensor sound = vae.decode(random.tensor({7, 5}, 100.0F), *on);
    EXPECT_EQ(to_string(sound.shape()), "[1, 168]");
    for (const float sample : sound.span<float>()) EXPECT_LE(std::fabs(sample), 1.0F);
}

TEST(AudioVae, FoldsTheWeightNormOverAllButTheFirstAxis) {
    const Tensor g = values({2, 1, 1}, {10, 2});
    const Tensor v = values({2, 1, 2}, {3, 4, 0, -5});
    EXPECT_THAT(floats(fold_weight_norm(g, v)), ElementsAre(6, 8, 0, -2));
}

TEST(AudioVae, SamplesThePosteriorOrTakesItsMean) {
    // softplus(0) = ln 2, softplus(30) = 30 to float
    const Tensor mean_scale = values({1, 4}, {1, -2, 0, 30});
    const std::vector<float> noise{2, -1};
    EXPECT_THAT(floats(sample_posterior(mean_scale, {})), ElementsAre(1, -2));
    EXPECT_THAT(
        floats(sample_posterior(mean_scale, noise)),
        ElementsAre(FloatNear(1.0F + 2 * (0.693147F + 1e-4F), 1e-6F), FloatNear(-32.0001F, 1e-5F)));
}

TEST(AudioVae, CrossFadesWindowsLinearly) {
    std::vector<Tensor> windows;
    windows.push_back(values({5, 1}, {1, 1, 1, 1, 1}));
    windows.push_back(values({5, 1}, {5, 5, 5, 5, 5}));
    // two latents overlap, three is the step; the new window's share is 0, then a half
    EXPECT_THAT(floats(cross_fade(windows)), ElementsAre(1, 1, 1, 1, 3, 5, 5, 5));
}

TEST(AudioVae, GivesEveryChannelTheDrivingSound) {
    const auto on = make_cpu_backend();
    const AudioVae vae = tiny_vae(*on);
    test::RandomValues random;
    const Tensor mono = random.tensor({5000}, 0.2F);
    Tensor stereo({2, 5000});
    for (Index c = 0; c < 2; ++c)
        std::copy_n(mono.data<float>(), 5000, stereo.data<float>() + c * 5000);
    const Tensor mean_scale = vae.encode(stereo, *on);
    EXPECT_EQ(floats(vae.encode_driving(mono, {}, *on)), floats(sample_posterior(mean_scale, {})));
    const NoiseStream stream(7, "audio_posterior");
    std::vector<float> noise(2 * 64);
    fill_normal(stream, 0, noise);
    EXPECT_EQ(floats(vae.encode_driving(mono, stream, *on)),
              floats(sample_posterior(mean_scale, noise)));
}

TEST(AudioVae, CountsTheWindowsOfALongSound) {
    // 29 s and half of it further: 1,484,800 and 742,400 samples.
    for (const auto& [samples, windows] : {std::pair<Index, Index>{2048, 1},
                                           {1484800, 1},
                                           {1484801, 2},
                                           {1510400, 2},
                                           {2227200, 2},
                                           {2227201, 3},
                                           {600 * 51200, 41}})
        EXPECT_EQ(driving_windows(samples), windows) << samples;
}

TEST(AudioVae, EncodesALongSoundInWindows) {
    const auto on = make_cpu_backend();
    const AudioVae vae = tiny_vae(*on);
    test::RandomValues random;
    constexpr Index window = 5 * 2048;
    const Tensor mono = random.tensor({window + 5000}, 0.2F);
    const Tensor first = vae.encode_driving(mono.rows(0, window), {}, *on);
    EXPECT_EQ(first.size(0), 5);
    const Tensor joined = vae.encode_driving(mono, {}, *on, window);
    EXPECT_EQ(joined.size(0), 8);  // ⌈15240 / 2048⌉
    // Half a window later begins the second; its last samples are silence.
    std::vector<float> rest(mono.data<float>() + window / 2, mono.data<float>() + window + 5000);
    rest.resize(window);
    const Tensor second = vae.encode_driving(values({window}, rest), {}, *on);
    std::vector<Tensor> windows;
    windows.push_back(first.clone());
    windows.push_back(second.clone());
    EXPECT_EQ(floats(joined), floats(cross_fade(windows)));
}

TEST(AudioVae, CutsLatentsBehindTheSound) {
    const auto on = make_cpu_backend();
    const AudioVae vae = tiny_vae(*on);
    constexpr Index window = 4 * 2048;
    const Tensor mono = Tensor::zeros({window + 1});
    EXPECT_EQ(vae.encode_driving(mono, {}, *on, window).size(0), 5);
}

TEST(AudioVae, RefusesASoundShorterThanALatent) {
    const auto on = make_cpu_backend();
    const AudioVae vae = tiny_vae(*on);
    EXPECT_THAT([&] { vae.encode_driving(Tensor::zeros({2047}), {}, *on); },
                ThrowsMessage<InputError>(HasSubstr("2047 samples (at least 2048)")));
}

TEST(AudioVae, NamesTheMistakesOfItsConfiguration) {
    const Node node = parse_yaml(R"({"model": {"pretransform": {"config": {
        "encoder": {"type": "dac", "config": {"in_channels": 2, "channels": 4, "latent_dim": 100,
                    "c_mults": [1, 2], "strides": [2], "use_snake": true}},
        "decoder": {"config": {"out_channels": 2, "channels": 4, "latent_dim": 64, "c_mults": [1],
                    "strides": [2], "use_nearest_upsample": true}}}}}})",
                                 "audio.json");
    EXPECT_THAT([&] { configured(node, read_audio_vae); },
                ThrowsMessage<InputError>(
                    AllOf(HasSubstr("'dac'"), HasSubstr("1 strides for 2 c_mults"),
                          HasSubstr("latent_dim is 100 (128"), HasSubstr("use_nearest_upsample"))));
}

}  // namespace
}  // namespace gallop
