#include "model/text_encoder.hpp"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/files.hpp"
#include "model/text_features.hpp"
#include "support/expect_near.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

const std::filesystem::path golden = std::filesystem::path(GALLOP_GOLDEN) / "text";
const std::filesystem::path checkpoint = golden / "checkpoint";

/// A golden case.
struct Case {
    std::vector<std::int32_t> ids;
    Tensor embedding;
    std::map<std::string, std::string> metadata;
};

Case read_case(const std::string& name) {
    const Checkpoint file = Checkpoint::open(golden / (name + ".safetensors"));
    Case one{{}, file.read_f32("text_embedding"), file.metadata()};
    const Tensor ids = file.read("ids");
    for (const std::int64_t id : ids.span<std::int64_t>())
        one.ids.push_back(static_cast<std::int32_t>(id));
    return one;
}

/// Largest error over the largest value when the case runs as its metadata says.
double error_of(const std::string& name) {
    const Case one = read_case(name);
    const auto on = make_cpu_backend();
    const TextEncoder encoder(
        checkpoint,
        {.compute = one.metadata.at("precision") == "bf16" ? DType::bf16 : DType::f32,
         .soft_cap = one.metadata.at("soft_cap") == "1"},
        *on);
    Tensor hidden = encoder.encode(one.ids);
    EXPECT_EQ(hidden.shape(), one.embedding.shape());
    if (one.metadata.at("fp16_trip") == "1") round_to_half(hidden);
    return test::relative_error(hidden.span<float>(), one.embedding.span<float>());
}

/// The case of 40 tokens, in f32, by a network that differs from the golden one.
double error_with(const TextEncoderConfig& config) {
    const Case one = read_case("fp32-40");
    const auto on = make_cpu_backend();
    const TextEncoderOptions options{.compute = DType::f32};
    Weights weights =
        Checkpoint::open(checkpoint)
            .load(text_encoder_specs(config, options.compute), *on, {.prefix = "model.encoder."});
    const TextEncoder encoder(config, std::move(weights), options, *on);
    return test::relative_error(encoder.encode(one.ids).span<float>(), one.embedding.span<float>());
}

TextEncoderConfig tiny_config() { return read_text_encoder_config(checkpoint / "config.json"); }

/// A copy of the golden network's config.json with one text replaced, in a folder of its own.
TextEncoderConfig read_with(const std::string& from, const std::string& to) {
    const test::TemporaryFolder folder;
    std::string text = read_text(checkpoint / "config.json");
    const auto at = text.find(from, text.find("\"encoder\""));
    EXPECT_NE(at, std::string::npos) << from;
    write_atomically(folder / "config.json", text.replace(at, from.size(), to));
    return read_text_encoder_config(folder / "config.json");
}

Tokenizer tiny_tokenizer() {
    const auto path = std::filesystem::path(GALLOP_ROOT) / "configs/models/tiny-tokenizer.model";
    return Tokenizer(read_text(path), {}, path.string());
}

// f32 throughout: only the order of sums differs.
TEST(TextEncoder, MatchesTransformersInSinglePrecision) {
    for (const char* name : {"fp32-1", "fp32-5", "fp32-40", "fp32-40-soft-cap"})
        EXPECT_LE(error_of(name), 1e-5) << name;
}

// A value on the edge between two halves may fall to either side: 2^-11 of the largest value.
TEST(TextEncoder, MatchesTransformersAfterTheTripThroughHalfPrecision) {
    EXPECT_LE(error_of("fp32-40-half"), 5e-4);
}

// With one token the attention passes v on, and all that is left are the casts: the same bits, but
// for a sum on the edge between two bf16 that another order of summing takes to the other side.
TEST(TextEncoder, MakesThePublishedCasts) { EXPECT_LE(error_of("bf16-1"), 2e-3); }

// Ours keeps scores and probabilities in f32; PyTorch's on a CPU rounds them to bf16. With
// PyTorch's attention in f32 the outcome is ours bit by bit. The reference's own bf16 and fp32
// differ by 0.9e-2 and 1.7e-2 here.
TEST(TextEncoder, StaysNearTransformersInBf16) {
    EXPECT_LE(error_of("bf16-5"), 2e-2);
    EXPECT_LE(error_of("bf16-40"), 2e-2);
}

TEST(TextEncoder, SeesTheWindowAndNotOneTokenMore) {
    TextEncoderConfig config = tiny_config();
    EXPECT_EQ(config.window, 8);
    EXPECT_LE(error_with(config), 1e-5);
    config.window = 9;
    EXPECT_GE(error_with(config), 1e-3);
    config.window = 7;
    EXPECT_GE(error_with(config), 1e-3);
    config.window = 8;
    config.sliding = {false, true, false, true};
    EXPECT_GE(error_with(config), 1e-3);
}

TEST(TextEncoder, IsDeterministic) {
    const auto on = make_cpu_backend();
    const TextEncoder encoder(checkpoint, {}, *on);
    const std::vector<std::int32_t> ids(70, 9);
    EXPECT_EQ(test::floats(encoder.encode(ids)), test::floats(encoder.encode(ids)));
}

TEST(TextEncoder, RefusesIdsOutsideTheEmbeddingTableButNotOfItsExtraRows) {
    const auto on = make_cpu_backend();
    const TextEncoder encoder(checkpoint, {.compute = DType::f32}, *on);
    const std::vector<std::int32_t> last{1407};
    EXPECT_NO_THROW(encoder.encode(last));
    for (const std::int32_t bad : {1408, -1}) {
        const std::vector<std::int32_t> ids{5, bad};
        EXPECT_THAT([&] { encoder.encode(ids); },
                    ThrowsMessage<InputError>(HasSubstr("token 1 has id " + std::to_string(bad))));
    }
    EXPECT_THROW(encoder.encode({}), InputError);
}

TEST(TextEncoder, CountsTheParametersOfThePublishedNetwork) {
    Index parameters = 0;
    for (const TensorSpec& spec : text_encoder_specs({}, DType::bf16))
        parameters += spec.shape.numel();
    EXPECT_EQ(parameters, 9'241'705'984);  // as published, with 256,000 embedding rows
}

TEST(TextEncoderConfig, ReadsTheEncodersHalf) {
    const TextEncoderConfig config = tiny_config();
    EXPECT_EQ(config.width, 64);
    EXPECT_EQ(config.heads, 4);
    EXPECT_EQ(config.kv_heads, 2);
    EXPECT_EQ(config.head_size, 16);
    EXPECT_EQ(config.mlp, 128);
    EXPECT_EQ(config.vocabulary, 1400);
    EXPECT_EQ(config.query_scalar, 24);
    EXPECT_EQ(config.soft_cap, 50);
    EXPECT_EQ(config.sliding, (std::vector<bool>{true, false, true, false}));
}

TEST(TextEncoder, NeedsNoShardOfTheDecoder) {
    const test::TemporaryFolder folder;
    const Checkpoint whole = Checkpoint::open(checkpoint);
    std::vector<Tensor> tensors;
    std::vector<NamedTensor> encoder;
    std::string map;
    tensors.reserve(whole.tensors().size());
    for (const StoredTensor& stored : whole.tensors()) {
        const bool wanted = stored.name.starts_with("model.encoder.");
        map += fmt::format("{}\"{}\":\"{}.safetensors\"", map.empty() ? "" : ",", stored.name,
                           wanted ? "1" : "2");
        if (wanted) encoder.push_back({stored.name, tensors.emplace_back(whole.read(stored.name))});
    }
    ASSERT_LT(encoder.size(), whole.tensors().size());
    write_safetensors(folder / "1.safetensors", encoder);
    write_atomically(folder / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
    std::filesystem::copy(checkpoint / "config.json", folder / "config.json");
    const auto on = make_cpu_backend();
    const Case one = read_case("fp32-5");
    const Tensor got = TextEncoder(folder.path(), {.compute = DType::f32}, *on).encode(one.ids);
    EXPECT_LE(test::relative_error(got.span<float>(), one.embedding.span<float>()), 1e-5);
}

TEST(TextEncoderConfig, ReadsAFlatFileAndTransformers5Names) {
    const test::TemporaryFolder folder;
    write_atomically(folder / "config.json", R"({"hidden_size": 8, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 16, "vocab_size": 32,
        "num_hidden_layers": 3, "sliding_window": null, "attn_logit_softcapping": null,
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}})");
    const TextEncoderConfig config = read_text_encoder_config(folder / "config.json");
    EXPECT_EQ(config.sliding, (std::vector<bool>{true, false, true}));
    EXPECT_EQ(config.window, 0);
    EXPECT_EQ(config.soft_cap, 0);
    EXPECT_EQ(config.rope_base, 500);
}

TEST(TextEncoderConfig, RefusesFeaturesThatWeLack) {
    const auto with = [](std::string from, std::string to) {
        return [from = std::move(from), to = std::move(to)] { read_with(from, to); };
    };
    EXPECT_THAT(with("\"attention_bias\": false", "\"attention_bias\": true"),
                ThrowsMessage<InputError>(HasSubstr("attention_bias is true")));
    EXPECT_THAT(with("gelu_pytorch_tanh", "silu"), ThrowsMessage<InputError>(HasSubstr("silu")));
    EXPECT_THAT(with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"),
                ThrowsMessage<InputError>(HasSubstr("must divide 4 heads")));
    EXPECT_THAT(with("\"head_dim\": 16", "\"head_dim\": 15"),
                ThrowsMessage<InputError>(HasSubstr("must be even")));
    EXPECT_THAT(with("\"hidden_size\": 64,", ""),
                ThrowsMessage<InputError>(HasSubstr("hidden_size")));
    EXPECT_THAT(with("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5"),
                ThrowsMessage<InputError>(HasSubstr("one a layer, 5")));
    EXPECT_THAT(with("full_attention", "linear_attention"),
                ThrowsMessage<InputError>(HasSubstr("linear_attention")));
    EXPECT_THAT(with("\"rope_theta\"", "\"rope_scaling\": {\"factor\": 8}, \"rope_theta\""),
                ThrowsMessage<InputError>(HasSubstr("rope_scaling is set")));
}

TEST(EncodePrompt, KeepsEveryRowOfAShortPrompt) {
    const auto on = make_cpu_backend();
    const TextEncoder encoder(checkpoint, {.compute = DType::f32}, *on);
    const Tokenizer tokenizer = tiny_tokenizer();
    const std::string prompt = "A dog barks.\n\nDialogue:";
    const TextFeatures features = encode_prompt(prompt, tokenizer.encode(prompt), encoder);
    EXPECT_EQ(test::floats(features.embedding),
              test::floats(encoder.encode(tokenizer.encode(prompt).ids)));
    EXPECT_EQ(features.tokens, features.embedding.size(0));
    EXPECT_THAT(features.warning, IsEmpty());
    EXPECT_EQ(features.id.size(), 16U);
    EXPECT_NE(features.id,
              encode_prompt("A dog barks", tokenizer.encode("A dog barks"), encoder).id);
}

TEST(EncodePrompt, EncodesAllOfALongPromptBeforeItCuts) {
    const auto on = make_cpu_backend();
    const TextEncoder encoder(checkpoint, {.compute = DType::f32}, *on);
    const Tokenizer tokenizer = tiny_tokenizer();
    std::string prompt;
    for (int i = 0; i < 350; ++i) prompt += "\n\n<mask>";  // two tokens each
    const std::vector<std::int32_t> ids = tokenizer.encode(prompt).ids;
    ASSERT_EQ(ids.size(), 700U);
    const TextFeatures features = encode_prompt(prompt, tokenizer.encode(prompt), encoder);
    EXPECT_EQ(features.tokens, 700);
    const Tensor whole = encoder.encode(ids);
    const auto kept = whole.rows(0, max_text_rows).span<float>();
    EXPECT_THAT(test::floats(features.embedding),
                ::testing::ElementsAreArray(kept.begin(), kept.end()));
    const Tensor alone = encoder.encode(std::span(ids).first(max_text_rows));
    EXPECT_GT(test::relative_error(features.embedding.span<float>(), alone.span<float>()), 1e-4);
}

TEST(EncodePrompt, NamesTheWordsThatItCuts) {
    const auto on = make_cpu_backend();
    const TextEncoder encoder(checkpoint, {}, *on);
    std::string prompt;
    for (int i = 0; i < max_text_rows; ++i) prompt += "<mask>";
    prompt += " a kettle,\n\nbirds outside";
    const TextFeatures features = encode_prompt(prompt, tiny_tokenizer().encode(prompt), encoder);
    EXPECT_EQ(features.cut, "a kettle, birds outside");
    EXPECT_THAT(features.warning, AllOf(HasSubstr("takes 640"), HasSubstr(features.cut)));
}

TEST(EncodePrompt, SendsThePublishedCastsThroughHalfPrecision) {
    const auto on = make_cpu_backend();
    const TextEncoder encoder(checkpoint, {}, *on);
    const TextFeatures features = encode_prompt("hello", tiny_tokenizer().encode("hello"), encoder);
    for (const float value : features.embedding.span<float>())
        EXPECT_EQ(value, to_float(to_f16(value)));
}

TEST(EncodePrompt, RefusesAnEmptyPrompt) {
    const auto on = make_cpu_backend();
    const TextEncoder encoder(checkpoint, {}, *on);
    EXPECT_THAT([&] { encode_prompt("", {}, encoder); },
                ThrowsMessage<InputError>(HasSubstr("prompt is empty")));
}

TEST(EncodePrompt, TakesTheShippedNegativePromptWhole) {
    const std::string prompt =
        read_text(std::filesystem::path(GALLOP_ROOT) / "configs/negative_prompt.txt");
    EXPECT_EQ(prompt.find('\n'), std::string::npos);  // a line end would be a token
    EXPECT_LT(tiny_tokenizer().encode(prompt).ids.size(), std::size_t{max_text_rows});
}

TEST(RoundToHalf, IsExactAtTheEdgesOfHalfPrecision) {
    std::vector<float> values{65504.0F, 65520.0F,        6e-8F,
                              2e-8F,    1.0F + 0x1p-11F, 1.0F + 3 * 0x1p-11F};
    Tensor x = Tensor::of<float>({6}, values);
    round_to_half(x);
    EXPECT_THAT(test::floats(x),
                ::testing::ElementsAre(65504.0F, INFINITY, 0x1p-24F, 0.0F, 1.0F, 1.0F + 0x1p-9F));
}

TEST(WordsFrom, StartsAtTheWordThatIsCutInTwo) {
    EXPECT_EQ(words_from("one two three", 5), "two three");
    EXPECT_EQ(words_from("one two three", 7), "three");
    EXPECT_EQ(words_from("one\n\n two", 3), "two");
    EXPECT_EQ(words_from("schöne grüße", 12), "grüße");  // at the ß
    EXPECT_EQ(words_from("早上好", 3), "上好");
    EXPECT_EQ(words_from("one", 3), "");
}

TEST(WordsFrom, ShortensALongEnd) {
    const std::string text(1000, 'x');
    EXPECT_EQ(words_from("a " + text, 2), text.substr(0, 300) + "…");
    std::string accents;
    for (int i = 0; i < 400; ++i) accents += "é";
    EXPECT_THAT(words_from("x" + accents, 1), StartsWith("xé"));
    EXPECT_EQ(words_from("x" + accents, 1).size(), 299 + std::string("…").size());
}

}  // namespace
}  // namespace gallop
