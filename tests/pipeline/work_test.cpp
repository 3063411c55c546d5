#include "pipeline/work.hpp"

#include <gtest/gtest.h>

#include "core/files.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

/// Counts for a folder without weights and these sections of an architecture file.
class WorkTest : public testing::Test {
protected:
    WorkModel model(const std::string& sections) const {
        const auto file = folder_ / "arch.json";
        write_atomically(file, R"({"name": "x", "variants": {}, )" + sections + "}");
        return WorkModel({folder_.path().string(), file.string(), Precision::fp32});
    }

private:
    test::TemporaryFolder folder_;
};

constexpr const char* turbo =
    R"("turbo": {"decoder_block_out_channels": [8], "decoder_layers_per_block": [0, 0],
        "decoder_spatio_temporal_scaling": [false], "decoder_spatio_only": [false],
        "first_chunk_size": 1, "step_size": 1, "use_unpatchify": )";

TEST_F(WorkTest, CountsTheTurboDecodersLastConvolutionWhereItWorks) {
    // 2×2 latent pixels of one frame: 48 → 8 channels, 27 taps; then 8 → 12, 27 taps.
    EXPECT_EQ(model(turbo + std::string("true}")).decode(VideoDecoder::turbo, {32, 32}, 1),
              2.0 * 4 * (48 * 8 * 27 + 8 * 12 * 27));
    // 8 → 8 with 9 taps makes 2 channels of 4×4 pixels: 2 → 3, 27 taps.
    EXPECT_EQ(model(turbo + std::string("false}")).decode(VideoDecoder::turbo, {32, 32}, 1),
              2.0 * 4 * (48 * 8 * 27 + 8 * 8 * 9) + 2.0 * 16 * 2 * 3 * 27);
}

TEST_F(WorkTest, CountsAllTokensOfALongPromptInTheTextEncoder) {
    const WorkModel work = model(R"("text": {"encoder": {"hidden_size": 4, "intermediate_size": 6,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 2,
        "vocab_size": 10, "sliding_window": 100}})");
    const auto text = [&](std::size_t letters) {
        Item item;
        item.variant = "none";
        item.prompt = std::string(letters, 'a');
        return work.of(item).amount[static_cast<std::size_t>(Stage::text)];
    };
    // 999.7 tokens and one; two layers of 4·(2·8·3 + 3·6) weights, one of which attends to 199 tokens, the
    // other to all.
    const double tokens = 1001;
    EXPECT_EQ(text(3699),
              2 * tokens * 2 * 4 * (2 * 8 * 3 + 3 * 6) + 4.0 * 2 * 8 * tokens * (199 + tokens));
    EXPECT_GT(text(37000), 10 * text(3700));
}

TEST_F(WorkTest, CountsBothHalvesOfTheSoundVae) {
    const WorkModel work = model(R"("audio": {"model": {"pretransform": {"config": {
        "encoder": {"config": {"in_channels": 1, "channels": 2, "c_mults": [3], "strides": [4],
                               "latent_dim": 128}},
        "decoder": {"config": {"out_channels": 1, "channels": 2, "c_mults": [3], "strides": [4],
                               "latent_dim": 64, "final_tanh": false}}}}}})");
    Item item;
    item.variant = "none";
    item.audio = "sound.wav";
    item.audio_latents = 10;
    const ClipWork of = work.of(item);
    // 40 samples, 2 channels: 7 taps from one channel, three units of 7 + 1 taps; to 6 channels with
    // kernels of twice the stride.
    const double wide = 2.0 * 40 * (1 * 2 * 7 + 3 * (7 + 1) * 2 * 2);
    const double between = 2.0 * 10 * (8 * 2 * 6);
    EXPECT_EQ(of.amount[static_cast<std::size_t>(Stage::audio)],
              wide + between + 2.0 * 10 * 3 * 6 * 128);
    EXPECT_EQ(of.amount[static_cast<std::size_t>(Stage::decode_audio)],
              wide + between + 2.0 * 10 * 7 * 64 * 6);

    // Above 29 s, 725 latents, sound is encoded in windows of that length, half overlapping.
    const auto heard = [&](int latents) {
        item.audio_latents = latents;
        return work.of(item).amount[static_cast<std::size_t>(Stage::audio)];
    };
    EXPECT_EQ(heard(726), 2 * heard(725));
    EXPECT_EQ(heard(1450), 3 * heard(725));
}

}  // namespace
}  // namespace gallop
