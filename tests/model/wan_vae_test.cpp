#include "model/wan_vae.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/vae_case.hpp"
#include "model/wan_shortcuts.hpp"

namespace gallop {
namespace {

using test::configured;
using test::expect_near;
using test::floats;
using test::Pictures;
using test::random_weights;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::filesystem::path golden = std::filesystem::path(GALLOP_GOLDEN) / "wan-vae-tiny";

// What the project asks of the video VAEs; an independent implementation reached 3e-6.
constexpr double video_tolerance = 1e-5;

WanVaeConfig tiny() { return configured(read_yaml(golden / "config.json"), read_wan_vae); }

WanVae tiny_vae(Backend& on, const char* file = "Wan2.2_VAE.safetensors",
                WanPart part = WanPart::both) {
    const WanVaeConfig config = tiny();
    return {config, Checkpoint::open(golden / file)
                        .load(specs(config, part), on, {.strict = part == WanPart::both})};
}

/// [3, F, Y, X] → [F, Y, X, 3].
Tensor channels_last(const Tensor& planes, Backend& on) {
    const Shape& s = planes.shape();
    Tensor y({s[1], s[2], s[3], s[0]});
    on.permute(planes, s, std::array{1, 2, 3, 0}, y);
    return y;
}

Tensor row(Shape shape, std::vector<float> of) { return test::values(shape, std::move(of)); }

TEST(WanVae, HasThePublishedTensors) {
    const auto table = specs(WanVaeConfig{});
    EXPECT_EQ(table.size(), 196U);
    EXPECT_EQ(test::parameters(table), 704688668);
    // The two 1×1×1 convolutions belong to one part each.
    EXPECT_EQ(test::parameters(specs(WanVaeConfig{}, WanPart::encoder)), 149627776 + 96 * 97);
    EXPECT_EQ(test::parameters(specs(WanVaeConfig{}, WanPart::decoder)), 555049228 + 48 * 49);
}

class WanVaeEncode : public testing::TestWithParam<const char*> {};

TEST_P(WanVaeEncode, AgreesWithTheAuthorsEncoder) {
    const auto on = make_cpu_backend();
    const auto file = Checkpoint::open(golden / GetParam());
    const Tensor want = file.read_f32("latent");
    const Tensor got = tiny_vae(*on).encode(channels_last(file.read_f32("video"), *on), *on);
    EXPECT_EQ(to_string(got.shape()), to_string(want.shape()));
    expect_near(got.span<float>(), want.span<float>(), video_tolerance);
}

INSTANTIATE_TEST_SUITE_P(Cases, WanVaeEncode,
                         testing::Values("encode-image.safetensors", "encode-clip.safetensors"));

TEST(WanVae, StripsDontShowInThePictures) {
    const auto on = make_cpu_backend();
    const WanVae vae = tiny_vae(*on);
    test::RandomValues random;
    const Tensor latent = random.tensor({48, 3, 12, 2});
    const auto decoded = [&](Index strips) {
        Pictures pictures(*on);
        vae.decode(latent, *on, pictures.sink(), strips);
        return std::pair(pictures.planes(), pictures.counts());
    };
    const auto [whole, counts] = decoded(1);
    for (const Index strips : {2, 5}) {
        const auto [got, parts] = decoded(strips);
        ASSERT_EQ(to_string(got.shape()), to_string(whole.shape()));
        EXPECT_EQ(parts, counts);
        expect_near(got.span<float>(), whole.span<float>(), 1e-6);
    }
}

class WanVaeDecode : public testing::TestWithParam<const char*> {};

TEST_P(WanVaeDecode, AgreesWithTheAuthorsDecoder) {
    const auto on = make_cpu_backend();
    const auto file = Checkpoint::open(golden / GetParam());
    const Tensor want = file.read_f32("video");
    Pictures pictures(*on);
    tiny_vae(*on).decode(file.read_f32("latent"), *on, pictures.sink());
    const Tensor got = pictures.planes();
    EXPECT_EQ(to_string(got.shape()), to_string(want.shape()));
    expect_near(got.span<float>(), want.span<float>(), video_tolerance);
}

INSTANTIATE_TEST_SUITE_P(Cases, WanVaeDecode,
                         testing::Values("decode-one.safetensors", "decode-three.safetensors"));

TEST(WanVae, ReadsTheTorchFileToo) {
    const auto on = make_cpu_backend();
    const Tensor latent = Checkpoint::open(golden / "decode-one.safetensors").read_f32("latent");
    Pictures a(*on);
    Pictures b(*on);
    tiny_vae(*on).decode(latent, *on, a.sink());
    tiny_vae(*on, "Wan2.2_VAE.pth").decode(latent, *on, b.sink());
    EXPECT_EQ(floats(a.planes()), floats(b.planes()));
}

TEST(WanVae, EncodesWithTheEncodersHalfAlone) {
    const auto on = make_cpu_backend();
    const auto file = Checkpoint::open(golden / "encode-image.safetensors");
    const Tensor image = channels_last(file.read_f32("video"), *on);
    const WanVae half = tiny_vae(*on, "Wan2.2_VAE.safetensors", WanPart::encoder);
    EXPECT_EQ(floats(half.encode(image, *on)), floats(tiny_vae(*on).encode(image, *on)));
}

TEST(WanVae, DecodesOnePictureThenFourALatentFrame) {
    const auto on = make_cpu_backend();
    const WanVae vae = tiny_vae(*on);
    for (const Index frames : {1, 2, 7, 10}) {
        Pictures pictures(*on);
        vae.decode(Tensor::zeros({48, frames, 1, 1}), *on, pictures.sink());
        EXPECT_EQ(pictures.count(), 4 * (frames - 1) + 1);
    }
}

TEST(WanVae, DecodesTheBeginningOfAClipWithoutItsRest) {
    // Causal, however time is cut: the longer clip takes its frames in blocks of eight and one.
    const auto on = make_cpu_backend();
    const WanVae vae = tiny_vae(*on);
    test::RandomValues random;
    const Tensor latent = random.tensor({48, 10, 2, 1});
    const auto begin_of = [&](Index frames) {
        Tensor part({48, frames, 2, 1});
        for (Index c = 0; c < 48; ++c)
            std::copy_n(latent.data<float>() + c * 20, frames * 2,
                        part.data<float>() + c * frames * 2);
        return part;
    };
    Pictures all(*on);
    vae.decode(latent, *on, all.sink());
    for (const Index frames : {1, 2, 4}) {
        Pictures some(*on);
        vae.decode(begin_of(frames), *on, some.sink());
        const Tensor want = all.planes();
        const Tensor got = some.planes();
        const Index plane = got.size(1) * got.size(2) * got.size(3);
        const Index whole = want.numel() / 3;
        for (Index c = 0; c < 3; ++c)  // another number of frames may change the order of sums
            expect_near(got.span<float>().subspan(c * plane, plane),
                        want.span<float>().subspan(c * whole, plane), 1e-5);
    }
}

TEST(WanVae, EncodesTheBeginningOfAClipWithoutItsRest) {
    const auto on = make_cpu_backend();
    const WanVae vae = tiny_vae(*on);
    test::RandomValues random;
    const Tensor clip = random.tensor({9, 16, 32, 3}, 0.5F);
    const Tensor want = vae.encode(clip, *on);
    for (const Index frames : {1, 5}) {
        const Tensor got = vae.encode(clip.rows(0, frames), *on);
        const Index plane = got.numel() / 48;
        for (Index c = 0; c < 48; ++c)
            expect_near(got.span<float>().subspan(c * plane, plane),
                        want.span<float>().subspan(c * want.numel() / 48, plane), 1e-5);
    }
}

TEST(WanVae, RefusesPicturesThatDontDivide) {
    const auto on = make_cpu_backend();
    const WanVae vae = tiny_vae(*on);
    EXPECT_THROW(vae.encode(Tensor::zeros({1, 16, 24, 3}), *on), Error);
    EXPECT_THROW(vae.encode(Tensor::zeros({3, 16, 16, 3}), *on), Error);
}

TEST(WanVae, TakesOtherWidthsDepthsAndTemporalPatterns) {
    const auto on = make_cpu_backend();
    test::RandomValues random;
    const WanVaeConfig config{.dim = 6,
                              .dec_dim = 4,
                              .dim_mult = {1, 2, 2},
                              .num_res_blocks = 1,
                              .temporal_downsample = {true, false}};
    const WanVae vae(config, random_weights(specs(config), *on));
    const Tensor latent = vae.encode(random.tensor({7, 16, 24, 3}, 0.5F), *on);
    EXPECT_EQ(to_string(latent.shape()), "[48, 4, 2, 3]");
    Pictures pictures(*on);
    vae.decode(latent, *on, pictures.sink());
    EXPECT_EQ(to_string(pictures.planes().shape()), "[3, 7, 16, 24]");
}

TEST(WanVae, WorksInBf16) {
    const auto on = make_cpu_backend();
    const WanVaeConfig config = tiny();
    const auto weights = Checkpoint::open(golden / "Wan2.2_VAE.safetensors");
    const WanVae vae(config, weights.load(specs(config, WanPart::both, DType::bf16), *on),
                     DType::bf16);
    const auto file = Checkpoint::open(golden / "decode-three.safetensors");
    Pictures pictures(*on);
    vae.decode(file.read_f32("latent"), *on, pictures.sink());
    // Some forty roundings of 2^-9 each, of either sign, before the clamp.
    expect_near(pictures.planes().span<float>(), file.read_f32("video").span<float>(), 0.1);
}

TEST(WanVaeShortcut, AveragesBlocksOfChannelTimeAndSpace) {
    const auto on = make_cpu_backend();
    // Two channels of a 2×2 picture: (0, 10), (1, 11), (2, 12), (3, 13).
    const Tensor x = row({1, 2, 2, 2}, {0, 10, 1, 11, 2, 12, 3, 13});
    EXPECT_THAT(floats(average_down(x, 1, 2, 2, *on)), ElementsAre(1.5F, 11.5F));
    EXPECT_THAT(floats(average_down(x, 1, 2, 4, *on)), ElementsAre(0.5F, 2.5F, 10.5F, 12.5F));
    // With time: an even channel is the frame that is missing, an odd one the picture's mean.
    EXPECT_THAT(floats(average_down(x, 2, 2, 4, *on)), ElementsAre(0, 1.5F, 0, 11.5F));
}

TEST(WanVaeShortcut, PutsEarlierFramesBeforeLaterOnes) {
    const auto on = make_cpu_backend();
    const Tensor x = row({3, 1, 1, 1}, {5, 6, 7});
    EXPECT_THAT(floats(average_down(x, 2, 1, 2, *on)), ElementsAre(0, 5, 6, 7));
}

TEST(WanVaeShortcut, RepeatsAChannelOverTimeRowsAndColumns) {
    const auto on = make_cpu_backend();
    const Tensor x = row({1, 1, 1, 1}, {3});
    EXPECT_EQ(floats(duplicate_up(x, 2, 2, 1, false, *on)), std::vector<float>(8, 3.0F));
    EXPECT_EQ(floats(duplicate_up(x, 2, 2, 1, true, *on)), std::vector<float>(4, 3.0F));
}

TEST(WanVaeShortcut, PicksTheChannelByTheRowWhenItHalvesThem) {
    const auto on = make_cpu_backend();
    // out[o, iy, ix] = in[2o + iy]
    const Tensor x = row({1, 1, 1, 4}, {0, 1, 2, 3});
    EXPECT_THAT(floats(duplicate_up(x, 1, 2, 2, false, *on)), ElementsAre(0, 2, 0, 2,  //
                                                                          1, 3, 1, 3));
}

TEST(WanVae, NamesTheMistakesOfItsConfiguration) {
    const auto message = [](const char* text) {
        const Node node = parse_yaml(text, "wan.json");
        return [node] { configured(node, read_wan_vae); };
    };
    EXPECT_THAT(message(R"({"z_dim": 16})"),
                ThrowsMessage<InputError>(HasSubstr("16 latent channels")));
    EXPECT_THAT(message(R"({"dim_mult": [1, 2]})"),
                ThrowsMessage<InputError>(HasSubstr("3 entries (1,")));
    EXPECT_THAT(message(R"({"dim": 4, "dim_mult": [1, 2, 4, 8]})"),
                ThrowsMessage<InputError>(HasSubstr("16 × 1 channels cannot be averaged to 32")));
}

}  // namespace
}  // namespace gallop
