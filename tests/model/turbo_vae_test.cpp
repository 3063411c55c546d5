#include "model/turbo_vae.hpp"

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/memory_use.hpp"
#include "model/vae_case.hpp"
#include "support/temporary_folder.hpp"

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

const std::filesystem::path golden = std::filesystem::path(GALLOP_GOLDEN) / "turbo-vae-tiny";

// What the project asks of the video VAEs; an independent implementation reached 3e-6.
constexpr double video_tolerance = 1e-5;

TurboVaeConfig tiny() { return configured(read_yaml(golden / "turbo_vae.json"), read_turbo_vae); }

TurboVae tiny_vae(const char* file, Backend& on) {
    const TurboVaeConfig config = tiny();
    return {config, Checkpoint::open(golden / file).load(specs(config), on)};
}

Index pictures_of(Index frames) {
    Index count = 0;
    const auto [padding, chunks] = turbo_chunks({}, frames);
    for (const TurboChunk& c : chunks)
        count += 4 * (c.end - c.begin) - (c.first ? 3 : 0) - c.drop_front - c.drop_back;
    return count - 4 * padding;
}

TEST(TurboVae, HasThePublishedTensors) {
    const auto table = specs(TurboVaeConfig{});
    EXPECT_EQ(table.size(), 80U);
    EXPECT_EQ(test::parameters(table), 107122892);
}

TEST(TurboVae, DecodesOnePictureThenFourALatentFrame) {
    EXPECT_EQ(pictures_of(1), 1);
    EXPECT_EQ(pictures_of(7), 25);
    EXPECT_EQ(pictures_of(8), 29);
    EXPECT_EQ(pictures_of(14), 53);
    EXPECT_EQ(pictures_of(32), 125);
    for (Index t = 1; t < 50; ++t) EXPECT_EQ(pictures_of(t), 4 * (t - 1) + 1);
}

TEST(TurboVae, GivesAShortClipOneChunkPaddedByItsLastFrame) {
    const auto [padding, chunks] = turbo_chunks({}, 3);
    EXPECT_EQ(padding, 4);
    EXPECT_THAT(chunks, ElementsAre(TurboChunk{0, 7, true, 0, 0}));
}

TEST(TurboVae, GivesChunksTheNeighbouringFramesAndDropsTheirPictures) {
    const auto [padding, chunks] = turbo_chunks({}, 20);
    EXPECT_EQ(padding, 1);
    EXPECT_THAT(chunks, ElementsAre(TurboChunk{0, 8, true, 0, 4}, TurboChunk{6, 15, false, 4, 4},
                                    TurboChunk{13, 21, false, 4, 0}));
}

TEST(TurboVae, DecodesFortyThreeLatentFramesForFiveSeconds) {
    Index given = 0;
    for (const TurboChunk& c : turbo_chunks({}, 32).chunks) given += c.end - c.begin;
    EXPECT_EQ(given, 43);
}

class TurboVaeGolden : public testing::TestWithParam<const char*> {};

TEST_P(TurboVaeGolden, AgreesWithTheAuthorsDecoder) {
    const auto on = make_cpu_backend();
    const auto file = Checkpoint::open(golden / GetParam());
    const Tensor want = file.read_f32("video");
    Pictures pictures(*on);
    tiny_vae("turbo_vae.safetensors", *on).decode(file.read_f32("latent"), *on, pictures.sink());
    const Tensor got = pictures.planes();
    EXPECT_EQ(to_string(got.shape()), to_string(want.shape()));
    expect_near(got.span<float>(), want.span<float>(), video_tolerance);
}

INSTANTIATE_TEST_SUITE_P(Cases, TurboVaeGolden,
                         testing::Values("decode-short.safetensors", "decode-exact.safetensors",
                                         "decode-long.safetensors"));

/// What a decode gives in so many strips, and the bytes of its arrays at the peak, without weights.
std::pair<Tensor, std::size_t> in_strips(const TurboVae& vae, const Tensor& latent, Index strips,
                                         Backend& on) {
    auto& memory = dynamic_cast<CountedMemory&>(on.memory());
    Pictures pictures(on);
    const PictureSink gather = pictures.sink();
    const std::size_t weights = memory.use().now;
    std::size_t peak = 0;
    memory.restart_peak();
    vae.decode(
        latent, on,
        [&](ConstTensorView part) {
            peak = std::max(peak, memory.use().peak);
            gather(part);
            memory.restart_peak();
        },
        strips);
    return {pictures.planes(), peak - weights};
}

TEST(TurboVae, StripsDontShowInThePicturesAndTakeLessMemory) {
    const auto on = make_cpu_backend();
    const TurboVaeConfig config{
        .channels = {24, 24, 24, 24}, .layers = {1, 1, 1, 1, 1}, .first_chunk = 2, .step = 3};
    const TurboVae vae(config, random_weights(specs(config), *on));
    test::RandomValues random;
    const Tensor latent = random.tensor({48, 2, 20, 2});
    const auto [whole, most] = in_strips(vae, latent, 1, *on);
    for (const Index strips : {2, 5}) {
        const auto [got, peak] = in_strips(vae, latent, strips, *on);
        ASSERT_EQ(to_string(got.shape()), to_string(whole.shape()));
        expect_near(got.span<float>(), whole.span<float>(), 1e-6);
        // The strips' share, with what their neighbours give, and the pictures themselves.
        EXPECT_LT(peak, most * (strips == 2 ? 8 : 6) / 10) << strips;
    }
}

TEST(TurboVae, StripsOfOtherLayoutsDontShowEither) {
    const auto on = make_cpu_backend();
    test::RandomValues random;
    for (const bool unpatchify : {true, false}) {
        const TurboVaeConfig config{.channels = {8, 7, 6},
                                    .layers = {1, 0, 2, 1},
                                    .scaling = {unpatchify, false, true},
                                    .spatial_only = {true, true, false},
                                    .unpatchify = unpatchify,
                                    .temporal_ratio = 2,
                                    .first_chunk = 2,
                                    .step = 3};
        const TurboVae vae(config, random_weights(specs(config), *on));
        const Tensor latent = random.tensor({48, 3, 24, 2});
        const Tensor whole = in_strips(vae, latent, 1, *on).first;
        expect_near(in_strips(vae, latent, 3, *on).first.span<float>(), whole.span<float>(), 1e-6);
    }
}

TEST(TurboVae, CutsNoMoreStripsThanAreWorthIt) {
    const auto on = make_cpu_backend();
    const TurboVae published(TurboVaeConfig{}, {});
    EXPECT_EQ(published.most_strips(68), 7);  // 1088 rows: 136 after one enlargement, reach 9
    EXPECT_EQ(published.most_strips(2), 1);
    EXPECT_EQ(cut(10, 3, 2), (std::vector<Strip>{{0, 3, 0, 2}, {3, 6, 2, 2}, {6, 10, 2, 0}}));
}

TEST(TurboVae, ReadsTheTorchFileToo) {
    const auto on = make_cpu_backend();
    const Tensor latent = Checkpoint::open(golden / "decode-short.safetensors").read_f32("latent");
    Pictures a(*on);
    Pictures b(*on);
    tiny_vae("turbo_vae.safetensors", *on).decode(latent, *on, a.sink());
    tiny_vae("checkpoint.ckpt", *on).decode(latent, *on, b.sink());
    EXPECT_EQ(floats(a.planes()), floats(b.planes()));
}

/// The golden decoder under other names: `rename` gives each its own.
template <class Rename>
Checkpoint renamed(const std::filesystem::path& path, const Rename& rename) {
    const auto from = Checkpoint::open(golden / "turbo_vae.safetensors");
    std::vector<Tensor> tensors;
    std::vector<NamedTensor> named;
    tensors.reserve(from.tensors().size());
    for (const StoredTensor& stored : from.tensors())
        named.push_back({rename(stored.name), tensors.emplace_back(from.read(stored.name))});
    const Tensor surplus = Tensor::zeros({3});
    named.push_back({"projection.weight", surplus});
    write_safetensors(path, named);
    return Checkpoint::open(path);
}

TEST(TurboVae, LoadsNamesWithModuleAndWithoutDecoder) {
    const test::TemporaryFolder folder;
    const auto on = make_cpu_backend();
    const TurboVaeConfig config = tiny();
    const auto file = Checkpoint::open(golden / "decode-short.safetensors");
    const Tensor want = file.read_f32("video");
    const std::size_t cut = std::string_view("decoder.").size();
    for (const std::string prefix : {"decoder.", "module.decoder.", "module.", ""}) {
        const Checkpoint weights = renamed(folder / "w.safetensors", [&](const std::string& name) {
            return prefix + name.substr(cut);
        });
        const TurboVae vae(config, load_turbo_vae(weights, config, DType::f32, *on));
        Pictures pictures(*on);
        vae.decode(file.read_f32("latent"), *on, pictures.sink());
        expect_near(pictures.planes().span<float>(), want.span<float>(), video_tolerance);
    }
}

TEST(TurboVae, TakesNamesWithoutDecoderOnlyWhereNoPartIsNamed) {
    const test::TemporaryFolder folder;
    const auto on = make_cpu_backend();
    const std::string_view decoder = "decoder.";
    const Checkpoint weights = renamed(folder / "w.safetensors", [&](const std::string& name) {
        return (name.ends_with("bias") ? "encoder." : "") + name.substr(decoder.size());
    });
    EXPECT_THAT([&] { (void)load_turbo_vae(weights, tiny(), DType::f32, *on); },
                ThrowsMessage<InputError>(HasSubstr("missing   decoder.conv_in.conv.weight")));
}

TEST(TurboVae, HandsOutEachChunkAsItIsFinished) {
    const auto on = make_cpu_backend();
    Pictures pictures(*on);
    tiny_vae("turbo_vae.safetensors", *on)
        .decode(Tensor::zeros({48, 16, 1, 1}), *on, pictures.sink());
    EXPECT_THAT(pictures.counts(), ElementsAre(25, 28, 8));
}

TEST(TurboVae, RoundsToBf16WhereAskedTo) {
    const auto on = make_cpu_backend();
    const TurboVaeConfig config = tiny();
    const auto weights = Checkpoint::open(golden / "turbo_vae.safetensors");
    const auto file = Checkpoint::open(golden / "decode-short.safetensors");
    Pictures pictures(*on);
    TurboVae(config, weights.load(specs(config, DType::bf16), *on), DType::bf16)
        .decode(file.read_f32("latent"), *on, pictures.sink());
    // Some thirty roundings of 2^-9 each, of either sign.
    expect_near(pictures.planes().span<float>(), file.read_f32("video").span<float>(), 0.05);
}

TEST(TurboVae, TakesOtherWidthsDepthsAndChunks) {
    const auto on = make_cpu_backend();
    TurboVaeConfig config{.channels = {5, 7, 7},
                          .layers = {1, 0, 2, 1},
                          .scaling = {true, false, true},
                          .spatial_only = {true, true, false},
                          .temporal_ratio = 2,
                          .first_chunk = 2,
                          .step = 3};
    const TurboVae vae(config, random_weights(specs(config), *on));
    Pictures pictures(*on);
    test::RandomValues random;
    vae.decode(random.tensor({48, 7, 2, 3}), *on, pictures.sink());
    EXPECT_THAT(pictures.counts(), ElementsAre(3, 6, 4));  // 2·(7 − 1) + 1
    const Tensor got = pictures.planes();
    EXPECT_EQ(to_string(got.shape()), "[3, 13, 16, 24]");  // two enlargements and the folding
    EXPECT_TRUE(on->all_finite(got));
}

TEST(TurboVae, EnlargesByALearntShuffleWithoutUnpatchify) {
    const auto on = make_cpu_backend();
    const TurboVaeConfig config{.channels = {8, 8},
                                .layers = {1, 1, 1},
                                .scaling = {false, true},
                                .spatial_only = {false, true},
                                .unpatchify = false,
                                .temporal_ratio = 1};
    const TurboVae vae(config, random_weights(specs(config), *on));
    Pictures pictures(*on);
    vae.decode(Tensor::zeros({48, 2, 2, 3}), *on, pictures.sink());
    EXPECT_EQ(to_string(pictures.planes().shape()), "[3, 2, 8, 12]");
}

TEST(TurboVae, FoldsChannelsColumnFirst) {
    const auto on = make_cpu_backend();
    std::vector<float> channels(12);
    std::iota(channels.begin(), channels.end(), 0.0F);
    const Tensor one = Tensor::of<float>({1, 1, 1, 12}, channels);
    const Tensor pixels = unfold_pixels(one, *on);
    // rows of pixels, three channels each: c·4 + ix·2 + iy
    EXPECT_THAT(floats(pixels), ElementsAre(0, 4, 8, 2, 6, 10,  //
                                            1, 5, 9, 3, 7, 11));
    EXPECT_EQ(floats(fold_pixels(pixels, *on)), channels);
}

TEST(TurboVae, GivesKeysThatItsOwnFileLacksTheValuesOfTheAuthorsClass) {
    const Node node = parse_json(R"({"latent_channels": 48, "patch_size": 2})", "turbo.json");
    const TurboVaeConfig own = configured(node, read_turbo_vae_json);
    EXPECT_THAT(own.channels, ElementsAre(128, 256, 512, 512));
    EXPECT_THAT(own.layers, ElementsAre(4, 3, 3, 3, 4));
    EXPECT_THAT(own.scaling, ElementsAre(true, true, true, false));
    EXPECT_THAT(own.spatial_only, ElementsAre(false, false, false, false));
    EXPECT_FALSE(own.unpatchify);
    EXPECT_EQ(own.first_chunk, 3);
    EXPECT_EQ(own.step, 5);
    const TurboVaeConfig section = configured(node, read_turbo_vae);
    EXPECT_THAT(section.channels, ElementsAre(64, 128, 256, 512));
    EXPECT_TRUE(section.unpatchify);
    EXPECT_EQ(section.step, 7);
    const Node two = parse_json(R"({"decoder_block_out_channels": [8, 8],
        "decoder_layers_per_block": [1, 1, 1], "decoder_spatio_temporal_scaling": [true, false]})",
                                "turbo.json");
    EXPECT_THAT(configured(two, read_turbo_vae_json).spatial_only, ElementsAre(false, false));
    EXPECT_THAT(configured(read_yaml(golden / "turbo_vae.json"), read_turbo_vae_json).layers,
                ElementsAre(2, 2, 2, 3, 3));
}

TEST(TurboVae, NamesEveryMistakeOfItsConfiguration) {
    const Node node = parse_yaml(R"({"latent_channels": 16, "patch_size": 4,
        "decoder_block_out_channels": [8, 8], "decoder_layers_per_block": [1, 1],
        "decoder_spatio_temporal_scaling": [true, true], "decoder_spatio_only": [false],
        "decoder_is_dw_conv": [false, true, false]})",
                                 "turbo.json");
    EXPECT_THAT([&] { configured(node, read_turbo_vae); },
                ThrowsMessage<InputError>(AllOf(
                    HasSubstr("16 latent channels"), HasSubstr("patches of 4"),
                    HasSubstr("2 entries (3"), HasSubstr("1 entries (2"), HasSubstr("depthwise"))));
}

}  // namespace
}  // namespace gallop
