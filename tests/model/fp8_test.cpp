#include "model/fp8.hpp"

#include <cmath>
#include <map>

#include <gmock/gmock.h>

#include "core/check.hpp"
#include "model/shard.hpp"
#include "model/transformer.hpp"
#include "support/expect_near.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// All four kinds of layers, 38 million parameters; widths of which none is a multiple of 128.
TransformerConfig network() {
    TransformerConfig config;
    config.num_layers = 8;
    config.hidden_size = 528;
    config.head_dim = 48;
    config.num_query_groups = 1;
    config.text_in_channels = 64;
    config.mm_layers = {0, 7};
    config.gelu7_layers = {0, 1};
    config.local_attn_layers = {3, 4};
    config.frame_receptive_field = 1;
    return config;
}

/// Weights that keep the size of what passes them, and of the residual over all layers, as networks
/// are initialised that train well (GPT-2: the last linear of a branch over √(2·layers)); drawn by name.
const Tensor& drawn(const TensorSpec& spec) {
    static std::map<std::string, Tensor> all;
    Tensor& values = all[spec.name + to_string(spec.shape)];
    if (values.defined()) return values;
    values = Tensor(spec.shape);
    fill_normal(NoiseStream(1, spec.name), 0, values.span<float>());
    auto variance = static_cast<float>(spec.shape.rank() == 2 ? spec.shape[1] : 100);
    if (spec.name.ends_with("linear_proj.weight") || spec.name.ends_with("down_proj.weight"))
        variance *= 16;
    for (float& value : values.span<float>()) value /= std::sqrt(variance);
    return values;
}

struct Inputs {
    Tensor video, audio, text;
};
Inputs inputs(const TransformerConfig& config) {
    RandomValues random;
    return {random.tensor({48, 4, 8, 10}), random.tensor({13, 64}),
            random.tensor({7, config.text_in_channels})};
}

std::vector<float> forward(const TransformerConfig& config, Weights weights, const Inputs& in,
                           Backend& on) {
    Transformer model(config, std::move(weights), on);
    const Velocity v = model.forward({in.video, in.audio, in.text});
    std::vector<float> both = floats(v.video);
    const std::vector<float> audio = floats(v.audio);
    both.insert(both.end(), audio.begin(), audio.end());
    return both;
}

std::vector<float> forward(const TransformerConfig& config, const std::vector<TensorSpec>& specs,
                           const Inputs& in, Backend& on) {
    Weights weights;
    for (const TensorSpec& spec : specs) {
        if (spec.optional) continue;
        const Tensor& values = drawn(spec);
        if (spec.dtype == DType::f8_e4m3)
            put_fp8(weights, spec.name, values, on);
        else
            weights.put(spec.name, spec.dtype == DType::bf16 ? as_bf16(values) : values.clone());
    }
    return forward(config, std::move(weights), in, on);
}

double relative_l2(const std::vector<float>& x, const std::vector<float>& truth) {
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) {
        error += std::pow(static_cast<double>(x[i]) - truth[i], 2);
        size += std::pow(static_cast<double>(truth[i]), 2);
    }
    return std::sqrt(error / size);
}

std::vector<TensorSpec> specs_in_fp8(const TransformerConfig& config, const Fp8Choice& choice) {
    auto specs = transformer_specs(config, DType::bf16);
    choose_fp8(specs, config.num_layers, choice, "net");
    return specs;
}

// A value of E4M3 has three bits after its first: within a factor of two it is off by 2⁻³/√12 of the
// lower end, 2.4 % of a value on average. Both factors of a product are, and sums of products of random
// signs are off by as much as each: 3.4 %.
TEST(Fp8, IsOffByThreePerCentInOneProduct) {
    const auto on = make_cpu_backend();
    RandomValues random;
    const Tensor x = random.tensor({64, 1024});
    const Tensor w = random.tensor({512, 1024});
    Tensor exact({64, 512});
    on->linear(x, w, {}, exact);
    Weights weights;
    put_fp8(weights, "w", w, *on);
    Tensor close({64, 512});
    const std::array<Index, 1> all{64};
    multiply(x, weights, "w", all, close, *on);
    const double error = relative_l2(floats(close), floats(exact));
    EXPECT_GT(error, 0.031);
    EXPECT_LT(error, 0.038);
}

TEST(Fp8, StaysNearSinglePrecision) {
    const TransformerConfig config = network();
    const auto on = make_cpu_backend();
    const Inputs in = inputs(config);
    const auto truth = forward(config, transformer_specs(config, DType::f32), in, *on);
    const auto error_of = [&](const char* what, const std::vector<TensorSpec>& specs) {
        const double error = relative_l2(forward(config, specs, in, *on), truth);
        std::printf("relative L2 to fp32: %-20s %.2e\n", what, error);
        return error;
    };
    const double casts = error_of("bf16", transformer_specs(config, DType::bf16));
    const double usual = error_of("fp8", specs_in_fp8(config, {}));
    const double all = error_of("fp8 in all layers", specs_in_fp8(config, {.layers = "all"}));
    const double attention =
        error_of("fp8 qkv, proj", specs_in_fp8(config, {.linears = {"qkv", "proj"}}));
    const double up = error_of("fp8 up", specs_in_fp8(config, {.linears = {"up"}}));
    // Every branch is off by what its products are; what the residual had before it is not.
    EXPECT_LE(usual, 4e-2);
    EXPECT_LE(attention, 1e-2);
    EXPECT_LE(up, 3e-2);
    EXPECT_GT(usual, casts) << "was anything multiplied in E4M3?";
    EXPECT_GT(usual, attention);
    EXPECT_GT(all, usual);
}

TEST(Fp8, IsWhatIsChosenAndNothingElse) {
    const TransformerConfig config = network();
    const auto in_fp8 = [&](const Fp8Choice& choice) {
        std::vector<std::string> names;
        for (const TensorSpec& spec : specs_in_fp8(config, choice))
            if (spec.dtype == DType::f8_e4m3) names.push_back(spec.name);
        return names;
    };
    EXPECT_EQ(in_fp8({}).size(), 6 * 4U) << "the first and the last layer keep bf16";
    EXPECT_EQ(in_fp8({.layers = "all"}).size(), 8 * 4U);
    EXPECT_THAT(in_fp8({.linears = {"down"}, .layers = "2,6-7"}),
                ::testing::ElementsAre("block.layers.2.mlp.down_proj.weight",
                                       "block.layers.6.mlp.down_proj.weight",
                                       "block.layers.7.mlp.down_proj.weight"));
    EXPECT_THAT(in_fp8({.linears = {"qkv", "proj"}, .layers = "0"}),
                ::testing::ElementsAre("block.layers.0.attention.linear_qkv.weight",
                                       "block.layers.0.attention.linear_proj.weight"));
    EXPECT_THAT(in_fp8({.linears = {}, .text_encoder = true}), ::testing::IsEmpty());
}

TEST(Fp8, RefusesAChoiceOfNothingAndSaysWhatThereIs) {
    const TransformerConfig config = network();
    const auto error_of = [&](const Fp8Choice& choice) -> std::string {
        try {
            specs_in_fp8(config, choice);
        } catch (const InputError& error) {
            return error.what();
        }
        return "no error";
    };
    EXPECT_THAT(error_of({.linears = {"qvk"}}), AllOf(HasSubstr("qvk"), HasSubstr("qkv, proj")));
    EXPECT_THAT(error_of({.linears = {}}), HasSubstr("nothing in E4M3"));
    EXPECT_THAT(error_of({.layers = "3-8"}), HasSubstr("layers 0 to 7"));
    for (const char* layers :
         {"", "some", "3-", "-3", "5-3", "1,,2", "1 2", "99999999999999999999"})
        EXPECT_THAT(error_of({.layers = layers}), HasSubstr("\"inner\"")) << layers;
    EXPECT_THAT(error_of({.up = "3-8"}),
                AllOf(HasSubstr("model.fp8.up"), HasSubstr("layers 0 to 7")));
    EXPECT_THAT(error_of({.down = "most"}), AllOf(HasSubstr("model.fp8.down"), HasSubstr("none")));
    EXPECT_THAT(error_of({.linears = {"up"}, .up = "none"}), HasSubstr("nothing in E4M3"));
    TransformerConfig shallow = config;
    shallow.num_layers = 2;
    auto specs = transformer_specs(shallow, DType::bf16);
    EXPECT_THROW(choose_fp8(specs, 2, {}, "net"), InputError) << "two layers have no inner ones";
}

TEST(Fp8, HasOneTextForOneChoice) {
    EXPECT_EQ(to_text(Fp8Choice{}), "qkv+proj+up+down in inner");
    EXPECT_EQ(to_text({.linears = {"up", "qkv", "up"}, .layers = "1-3"}), "qkv+up in 1-3");
    EXPECT_EQ(to_text({.linears = {}, .text_encoder = true}), "text");
    EXPECT_EQ(to_text({.linears = {"down"}, .layers = "all", .text_encoder = true}),
              "down in all, text");
    // Layers of one linear go before the others', and the same choice is the same text.
    EXPECT_EQ(to_text({.qkv = "2", .down = "inner"}), "qkv in 2, proj+up+down in inner");
    EXPECT_EQ(to_text({.linears = {"up"}, .qkv = "1-3", .up = "none", .down = "1-3"}),
              "qkv+down in 1-3");
    EXPECT_EQ(to_text({.qkv = "none"}), to_text({.linears = {"proj", "up", "down"}}));
}

TEST(Fp8, IsChosenLinearByLinear) {
    const auto parts = fp8_parts({.linears = {"qkv", "up"}, .up = "0,3", .down = "all"}, 4, "net");
    const std::vector<Fp8Part> expected{{0, "up"},  {0, "down"}, {1, "qkv"}, {1, "down"},
                                        {2, "qkv"}, {2, "down"}, {3, "up"},  {3, "down"}};
    EXPECT_EQ(parts, expected);
}

TEST(Fp8, HasTheShortestChoiceOfParts) {
    const auto choice = [](const std::vector<Fp8Part>& parts) { return fp8_choice_of(parts, 5); };
    EXPECT_EQ(choice(fp8_parts({}, 5, "net")), Fp8Choice{});
    EXPECT_EQ(choice({{4, "up"}, {0, "up"}, {1, "up"}}),
              (Fp8Choice{.linears = {"up"}, .layers = "0-1,4"}));
    const Fp8Choice own{.qkv = "none", .proj = "3", .up = "all", .down = "inner"};
    EXPECT_EQ(choice(fp8_parts(own, 5, "net")), own);
    EXPECT_TRUE(choice({}).linears.empty());
}

/// Random weights in a file, in bf16 as published.
std::filesystem::path written(const TransformerConfig& config,
                              const std::filesystem::path& folder) {
    std::vector<std::pair<std::string, Tensor>> kept;
    for (const TensorSpec& spec : transformer_specs(config, DType::bf16)) {
        if (spec.optional) continue;
        const Tensor& values = drawn(spec);
        kept.emplace_back(spec.name, spec.dtype == DType::bf16 ? as_bf16(values) : values.clone());
    }
    std::vector<NamedTensor> named;
    for (const auto& [name, tensor] : kept) named.push_back({name, tensor});
    write_safetensors(folder / "model.safetensors", named);
    return folder;
}

TransformerConfig small_network() {
    TransformerConfig config = network();
    config.num_layers = 3;
    config.hidden_size = 144;
    config.mm_layers = {1};
    config.gelu7_layers = {0};
    config.local_attn_layers = {};
    return config;
}

TEST(Fp8, IsQuantisedRowByRowWhileLoading) {
    const TransformerConfig config = small_network();
    const TemporaryFolder folder;
    const auto on = make_cpu_backend();
    const Weights weights = Checkpoint::open(written(config, folder.path()))
                                .load(specs_in_fp8(config, {.layers = "1"}), *on);
    for (const TensorSpec& spec : specs_in_fp8(config, {.layers = "1"})) {
        if (spec.dtype != DType::f8_e4m3) continue;
        Weights expected;
        put_fp8(expected, spec.name, as_bf16(drawn(spec)), *on);
        EXPECT_EQ(floats(weights[spec.name]), floats(expected[spec.name])) << spec.name;
        const std::string scales = spec.name + std::string(fp8_scale_suffix);
        EXPECT_EQ(floats(weights[scales]), floats(expected[scales])) << spec.name;
    }
    EXPECT_EQ(weights["block.layers.0.attention.linear_qkv.weight"].dtype(), DType::bf16);
}

// What the GPU asks for: widths in multiples of 128, zeros in the rest.
TEST(Fp8, GivesTheSameWithWidthsThatArePadded) {
    const TransformerConfig config = small_network();
    const TemporaryFolder folder;
    const auto on = make_cpu_backend();
    const Checkpoint checkpoint = Checkpoint::open(written(config, folder.path()));
    const Inputs in = inputs(config);
    const auto with = [&](Index unit, DType linears, bool fp8) {
        auto specs = sharded_specs(config, linears, shard_of(config, 0, 1, unit));
        if (fp8) choose_fp8(specs, config.num_layers, {.layers = "all"}, "net");
        return forward(config, checkpoint.load(specs, *on), in, *on);
    };
    for (const bool fp8 : {false, true}) {
        const DType linears = fp8 ? DType::bf16 : DType::f32;
        // Zeros change no sum, but sums of other lengths may be added in another order.
        EXPECT_LE(relative_l2(with(128, linears, fp8), with(1, linears, fp8)), fp8 ? 2e-3 : 1e-6)
            << (fp8 ? "fp8" : "fp32");
    }
    const auto padded = sharded_specs(config, DType::bf16, shard_of(config, 0, 1, 128));
    for (const TensorSpec& spec : padded) {
        if (spec.name.ends_with("linear_qkv.weight") ||
            spec.name.ends_with("up_gate_proj.weight")) {
            EXPECT_EQ(spec.shape[0] % 128, 0) << spec.name;
        }
        if (spec.name.ends_with("down_proj.weight")) {
            EXPECT_EQ(spec.shape[1] % 128, 0) << spec.name;
        }
    }
}

TEST(Fp8, PadsThe15BAsPlanned) {
    const TransformerConfig config;
    std::map<std::string, Shape> shapes;
    for (const TensorSpec& spec : sharded_specs(config, DType::bf16, shard_of(config, 0, 1, 128)))
        shapes.emplace(spec.name, spec.shape);
    EXPECT_EQ(shapes.at("block.layers.20.attention.linear_qkv.weight"), Shape({7296, 5120}));
    EXPECT_EQ(shapes.at("block.layers.20.mlp.up_gate_proj.weight"), Shape({27392, 5120}));
    EXPECT_EQ(shapes.at("block.layers.20.mlp.down_proj.weight"), Shape({5120, 13696}));
}

}  // namespace
}  // namespace gallop
