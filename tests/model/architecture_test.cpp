#include "model/architecture.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/check.hpp"
#include "core/node.hpp"

namespace gallop {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::filesystem::path models = std::filesystem::path(GALLOP_ROOT) / "configs/models";

Index elements(const std::vector<TensorSpec>& specs, std::string_view prefix = {}) {
    Index sum = 0;
    for (const TensorSpec& spec : specs)
        if (spec.name.starts_with(prefix)) sum += spec.shape.numel();
    return sum;
}

void expect_same(const std::vector<TensorSpec>& a, const std::vector<TensorSpec>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].name, b[i].name);
        EXPECT_EQ(a[i].shape, b[i].shape) << a[i].name;
    }
}

// The figures are those of the published files, counted from their own tables.
TEST(Architecture, PublishedTransformerHas15299419152Elements) {
    const Architecture published = published_architecture();
    for (const char* name : {"base", "distill", "540p_sr", "1080p_sr"}) {
        const auto specs = transformer_specs(published.variants.at(name).network, DType::bf16);
        EXPECT_EQ(specs.size(), 331U) << name;
        EXPECT_EQ(elements(specs), 15'299'419'152) << name;
        EXPECT_EQ(elements(specs, "adapter."), 19'676'176);
        EXPECT_EQ(elements(specs, "final_"), 1'320'960);
        EXPECT_EQ(elements(specs, "block.layers.0."), 818'535'168);   // three experts, gelu7
        EXPECT_EQ(elements(specs, "block.layers.4."), 272'824'576);   // shared, swiglu7
        EXPECT_EQ(elements(specs, "block.layers.36."), 818'473'728);  // three experts, swiglu7
    }
}

TEST(Architecture, PublishedBaseFolderHas30642008128Bytes) {
    std::uint64_t bytes = 0;
    const DitVariant base = published_architecture().variants.at("base");
    for (const TensorSpec& spec : transformer_specs(base.network, base.linears))
        bytes += static_cast<std::uint64_t>(spec.shape.numel()) * size_of(spec.dtype);
    EXPECT_EQ(bytes, 30'642'008'128U);
}

TEST(Architecture, PublishedVaesHaveTheirFilesElements) {
    const Architecture published = published_architecture();
    EXPECT_EQ(specs(published.wan).size(), 196U);
    EXPECT_EQ(elements(specs(published.wan)), 704'688'668);
    EXPECT_EQ(specs(published.turbo).size(), 80U);
    EXPECT_EQ(elements(specs(published.turbo)), 107'122'892);
    EXPECT_EQ(specs(published.audio).size(), 365U);
    EXPECT_EQ(elements(specs(published.audio)), 156'112'514);
}

TEST(Architecture, OnlyThe1080pVariantIsLocalAndKeepsItsTailLocal) {
    const Architecture published = published_architecture();
    for (const auto& [name, variant] : published.variants)
        EXPECT_EQ(variant.network.local_attn_layers.size(), name == "1080p_sr" ? 32U : 0U) << name;
    const TransformerConfig& network = published.variants.at("1080p_sr").network;
    std::vector<Index> global;
    for (Index layer = 0; layer < network.num_layers; ++layer)
        if (!network.is_local(layer)) global.push_back(layer);
    EXPECT_THAT(global, ElementsAre(3, 7, 11, 15, 19, 23, 27, 31));
}

TEST(Architecture, TheFileOfThe15BSaysWhatIsBuiltIn) {
    const Architecture file = read_architecture(models / "magihuman-15b.yaml");
    const Architecture built = published_architecture();
    EXPECT_EQ(file.name, built.name);
    ASSERT_EQ(file.variants.size(), built.variants.size());
    for (const auto& [name, variant] : built.variants) {
        const DitVariant& read = file.variants.at(name);
        expect_same(transformer_specs(read.network, DType::f32),
                    transformer_specs(variant.network, DType::f32));
        EXPECT_EQ(read.network.local_attn_layers, variant.network.local_attn_layers) << name;
        EXPECT_EQ(read.network.frame_receptive_field, variant.network.frame_receptive_field);
        EXPECT_EQ(read.network.coords_style, variant.network.coords_style) << name;
        EXPECT_EQ(read.linears, variant.linears) << name;
        EXPECT_EQ(read.super_resolution, variant.super_resolution) << name;
        EXPECT_EQ(read.steps, variant.steps) << name;
        EXPECT_EQ(read.passes, variant.passes) << name;
    }
    expect_same(specs(file.wan), specs(built.wan));
    expect_same(specs(file.turbo), specs(built.turbo));
    EXPECT_EQ(file.turbo.first_chunk, built.turbo.first_chunk);
    EXPECT_EQ(file.turbo.step, built.turbo.step);
    expect_same(specs(file.audio), specs(built.audio));
    expect_same(text_encoder_specs(file.text, DType::bf16),
                text_encoder_specs(built.text, DType::bf16));
    EXPECT_EQ(file.text.window, built.text.window);
    EXPECT_EQ(file.text.query_scalar, built.text.query_scalar);
}

TEST(Architecture, SmallOnesAreSmall) {
    const auto parameters = [](const char* file) {
        const Architecture a = read_architecture(models / file);
        Index sum = elements(specs(a.wan)) + elements(specs(a.turbo)) + elements(specs(a.audio)) +
                    elements(text_encoder_specs(a.text, DType::bf16));
        for (const auto& [name, variant] : a.variants)
            sum += elements(transformer_specs(variant.network, DType::f32));
        return sum;
    };
    EXPECT_GT(parameters("tiny.yaml"), 1'000'000);
    EXPECT_LT(parameters("tiny.yaml"), 4'000'000);
    const Architecture small = read_architecture(models / "small.yaml");
    EXPECT_GT(elements(transformer_specs(small.variants.at("base").network, DType::f32)),
              50'000'000);
}

Architecture parse(const std::string& yaml) {
    const Node root = parse_json(yaml, "arch.json");
    Reader in(root);
    Architecture made = read_architecture(in);
    in.finish();
    return made;
}

TEST(Architecture, TakesThePublishedValueOfWhatIsNotSaid) {
    const Architecture made = parse(R"({"name": "n", "variants": {"only": {"steps": 3}}})");
    ASSERT_EQ(made.variants.size(), 1U);
    EXPECT_EQ(made.variants.at("only").steps, 3);
    expect_same(transformer_specs(made.variants.at("only").network, DType::f32),
                transformer_specs(TransformerConfig{}, DType::f32));
    expect_same(specs(made.wan), specs(WanVaeConfig{}));
    expect_same(specs(made.audio), specs(AudioVaeConfig{}));
}

TEST(Architecture, NamesEveryMistakeAtOnce) {
    EXPECT_THAT(
        [] {
            (void)parse(R"({"name": "n", "dit": {"hidden_sise": 64, "text_in_channels": 64},
                            "variants": {"a": {"linears": "f16"}, "../b": {}}, "colour": 1})");
        },
        ThrowsMessage<InputError>(AllOf(HasSubstr("hidden_sise"), HasSubstr("f16"),
                                        HasSubstr("colour"),
                                        HasSubstr("'../b' cannot name a folder"),
                                        HasSubstr("text_in_channels of variant 'a' is 64"))));
    EXPECT_THAT([] { (void)parse("{}"); },
                ThrowsMessage<InputError>(AllOf(HasSubstr("name"), HasSubstr("variants"))));
}

}  // namespace
}  // namespace gallop
