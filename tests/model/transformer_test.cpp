#include "model/transformer.hpp"

#include <gmock/gmock.h>

#include "core/view.hpp"
#include "support/expect_near.hpp"
#include "support/random_transformer.hpp"

namespace gallop {
using namespace test;
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TransformerConfig config_of(const std::string& text) {
    const Node node = parse_yaml(text, "arch.yaml");
    Reader in(node);
    TransformerConfig config = read_transformer_config(in);
    in.finish();
    return config;
}

TEST(Tokens, CutsPatchesWithTheChannelSlowest) {
    const auto on = make_cpu_backend();
    Tensor latent({48, 1, 4, 4});
    const auto at = as<float, 4>(latent.view());
    for (Index c = 0; c < 48; ++c)
        for (Index y = 0; y < 4; ++y)
            for (Index x = 0; x < 4; ++x)
                at(c, 0, y, x) = static_cast<float>(1000 * c + 10 * y + x);
    const Tensor tokens = patchify(latent, *on);
    EXPECT_EQ(tokens.shape(), Shape({4, 192}));
    const auto first = tokens.span<float>().first(8);
    EXPECT_THAT(std::vector<float>(first.begin(), first.end()),
                ElementsAre(0, 1, 10, 11, 1000, 1001, 1010, 1011));
}

TEST(Tokens, JoinsOutputPatchesWithTheChannelFastest) {
    const auto on = make_cpu_backend();
    Tensor tokens({1, 192});
    for (Index i = 0; i < 192; ++i) tokens.data<float>()[i] = static_cast<float>(i);
    const Tensor latent = unpatchify(tokens, {1, 1, 1, 0, 0}, *on);
    const auto at = as<const float, 4>(latent.view());
    EXPECT_EQ(at(0, 0, 0, 0), 0);
    EXPECT_EQ(at(0, 0, 0, 1), 48);  // index 48: channel 0 at row 0, column 1
    EXPECT_EQ(at(0, 0, 1, 0), 96);
    EXPECT_EQ(at(47, 0, 1, 1), 191);
}

TEST(Tokens, CountsThePublishedSequences) {
    const SequenceShape base{26, 8, 14, 101, 350};
    EXPECT_EQ(base.video(), 2912);
    const SequenceShape sr{32, 34, 60, 126, 350};
    EXPECT_EQ(sr.video(), 65280);
}

TEST(Tokens, RotateByFramesAndCentredRows) {
    const std::vector<float> bands{1.0F, 0.5623413F};
    const SequenceShape shape{2, 3, 3, 101, 5};
    const Tensor table = rope_table(token_coordinates(shape, CoordsStyle::v2), bands);
    const auto at = as<const float, 2>(table.view());
    // Video token (t 1, the centre of the picture): angles 1 and 0.5623413, then zeros.
    const Index token = 9 + 4;
    EXPECT_NEAR(at(token, 0), std::sin(1.0), 1e-6);
    EXPECT_NEAR(at(token, 1), std::sin(0.5623413), 1e-6);
    for (Index i = 2; i < 6; ++i) EXPECT_EQ(at(token, i), 0);
    // The top left patch stands one row and one column before the centre.
    EXPECT_NEAR(at(0, 2), std::sin(-1.0), 1e-6);
    EXPECT_NEAR(at(0, 4), std::sin(-1.0), 1e-6);
    // Audio token 4 of 101 sits on frame 1.
    EXPECT_NEAR(at(18 + 4, 0), std::sin(1.0), 1e-6);
    // Text in v2 is not rotated at all.
    for (Index i = 0; i < 6; ++i) {
        EXPECT_EQ(at(18 + 101 + 2, i), 0);
        EXPECT_EQ(at(18 + 101 + 2, 6 + i), 1);
    }
}

TEST(Tokens, SpreadTextOverOneFrameInV1AndSurviveASingleWord) {
    const std::vector<float> bands{1.0F};
    const Tensor table = rope_table(token_coordinates({1, 1, 1, 1, 5}, CoordsStyle::v1), bands);
    const auto at = as<const float, 2>(table.view());
    EXPECT_NEAR(at(2 + 4, 0), std::sin(1.0), 1e-6);
    EXPECT_NEAR(at(2 + 2, 0), std::sin(0.5), 1e-6);
    const Tensor one = rope_table(token_coordinates({1, 1, 1, 1, 1}, CoordsStyle::v1), bands);
    for (const float value : one.span<float>()) EXPECT_TRUE(std::isfinite(value));
}

TEST(Transformer, HasThePublishedTable) {
    const auto specs = transformer_specs({}, DType::bf16);
    Index elements = 0;
    for (const TensorSpec& spec : specs) elements += spec.shape.numel();
    EXPECT_EQ(specs.size(), 331U);
    EXPECT_EQ(elements, 15299419152);
}

TEST(Transformer, ReadsAnArchitecture) {
    const TransformerConfig config = config_of(
        R"({"num_layers": 2, "hidden_size": 64, "head_dim": 16, "num_query_groups": 2, "mm_layers": [0],
            "gelu7_layers": [], "local_attn_layers": [1], "post_norm_layers": [1],
            "enable_attn_gating": false, "coords_style": "v1"})");
    EXPECT_EQ(config.heads(), 4);
    EXPECT_EQ(config.qkv_rows(), 128);
    EXPECT_EQ(config.intermediate(0), 168);
    EXPECT_TRUE(config.is_local(1));
    EXPECT_EQ(config.coords_style, CoordsStyle::v1);
    const auto specs = transformer_specs(config, DType::f32);
    const auto has = [&](std::string_view name) {
        return std::any_of(specs.begin(), specs.end(),
                           [&](const TensorSpec& spec) { return spec.name == name; });
    };
    EXPECT_TRUE(has("block.layers.1.attn_post_norm.weight"));
    EXPECT_TRUE(has("block.layers.1.mlp_post_norm.weight"));
    EXPECT_FALSE(has("block.layers.0.attn_post_norm.weight"));
}

TEST(Transformer, NamesEveryMistakeOfAnArchitecture) {
    try {
        config_of(R"({"hidden_size": 100, "head_dim": 12, "mm_layers": [40], "hiden": 1})");
        FAIL();
    } catch (const InputError& error) {
        EXPECT_THAT(error.what(), HasSubstr("multiple of 8"));
        EXPECT_THAT(error.what(), HasSubstr("mm_layers"));
        EXPECT_THAT(error.what(), HasSubstr("hiden"));
    }
}

TransformerConfig tiny() {
    TransformerConfig config;
    config.num_layers = 3;
    config.hidden_size = 64;
    config.head_dim = 16;
    config.num_query_groups = 2;
    config.text_in_channels = 8;
    config.mm_layers = {0};
    config.gelu7_layers = {0};
    return config;
}

TEST(Transformer, LocalAttentionEqualsFullAttentionUpToItsRadius) {
    const auto on = make_cpu_backend();
    RandomValues random;
    const Tensor video = random.tensor({48, 5, 4, 4});
    const Tensor audio = random.tensor({17, 64});
    const Tensor text = random.tensor({3, 8});
    const auto run = [&](std::vector<Index> local, Index radius) {
        TransformerConfig config = tiny();
        config.local_attn_layers = std::move(local);
        config.frame_receptive_field = radius;
        return floats(random_transformer(config, *on, 0.1F).forward({video, audio, text}).video);
    };
    const std::vector<float> full = run({}, 11);
    expect_near(run({0, 1, 2}, 4), full, 1e-5);  // sums of another order
    EXPECT_GT(relative_error(run({0, 1, 2}, 1), full), 1e-3);
}

TEST(Transformer, RefusesInputsThatDoNotFit) {
    const auto on = make_cpu_backend();
    RandomValues random;
    Transformer model = random_transformer(tiny(), *on, 0.1F);
    const Tensor video = random.tensor({48, 1, 2, 2});
    const Tensor audio = random.tensor({1, 64});
    EXPECT_THROW(model.forward({video, audio, random.tensor({3, 9})}), Error);
    EXPECT_THROW(model.forward({random.tensor({47, 1, 2, 2}), audio, random.tensor({3, 8})}),
                 Error);
    EXPECT_THROW(model.forward({random.tensor({48, 1, 3, 2}), audio, random.tensor({3, 8})}),
                 Error);
}

}  // namespace
}  // namespace gallop
