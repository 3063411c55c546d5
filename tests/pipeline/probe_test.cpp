#include "pipeline/probe.hpp"

#include <gmock/gmock.h>

#include "core/files.hpp"
#include "model/checkpoint.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using test::TemporaryFolder;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const std::filesystem::path golden = GALLOP_GOLDEN;

/// One golden case and what it may differ by: largest error over largest value.
struct Case {
    std::string component, weights, arch, file;
    Precision precision;
    double tolerance;
};

class Golden : public ::testing::TestWithParam<Case> {};

TEST_P(Golden, AgreesWithTheAuthorsCode) {
    const Case& c = GetParam();
    const auto on = make_cpu_backend();
    ProbeRequest request{.component = c.component,
                         .weights = c.weights.empty() ? "" : golden / c.weights,
                         .arch = c.arch.empty() ? "" : golden / c.arch,
                         .input = golden / c.file,
                         .output = {},
                         .precision = c.precision,
                         .compare = true};
    for (const ProbeDifference& d : run_probe(request, *on))
        EXPECT_LE(d.largest_error, c.tolerance) << d.name << " against " << d.expected;
}

// fp32: sums in another order. bf16: the same casts in the same places; where a sum of another
// order turns one rounding, the whole result moves by about 5e-3, so 2e-3 says that none was
// turned.
constexpr double fp32 = 1e-5;
constexpr double bf16_casts = 2e-3;
constexpr double sampler = 2e-6;

Case dit(const std::string& name, Precision precision) {
    return {"dit",
            "dit-tiny/checkpoint",
            "dit-tiny/arch.json",
            "dit-tiny/" + name + ".safetensors",
            precision,
            precision == Precision::fp32 ? fp32 : bf16_casts};
}
Case steps(const std::string& component, const std::string& name) {
    return {component, "", "", "sampler/" + name + ".safetensors", Precision::fp32, sampler};
}
Case loop(const std::string& name, const std::string& weights) {
    return {"pipeline",           weights,
            "dit-tiny/arch.json", "pipeline-tiny/" + name + ".safetensors",
            Precision::fp32,      fp32};
}

INSTANTIATE_TEST_SUITE_P(
    Transformer, Golden,
    ::testing::Values(dit("t2v-v2", Precision::fp32), dit("t2v-v2", Precision::bf16),
                      dit("sr-v1", Precision::fp32), dit("sr-v1", Precision::bf16),
                      dit("sr-v1-local", Precision::fp32), dit("sr-v1-local", Precision::bf16),
                      dit("single-frame", Precision::fp32), dit("single-frame", Precision::bf16)));
INSTANTIATE_TEST_SUITE_P(Samplers, Golden,
                         ::testing::Values(steps("unipc", "unipc-1"), steps("unipc", "unipc-3"),
                                           steps("unipc", "unipc-5"), steps("unipc", "unipc-8"),
                                           steps("unipc", "unipc-32"),
                                           steps("renoise", "renoise-8"), steps("renoise", "sde-8"),
                                           steps("renoise", "zero-snr-1000")));
INSTANTIATE_TEST_SUITE_P(Loops, Golden,
                         ::testing::Values(loop("base-cfg", "dit-tiny/checkpoint"),
                                           loop("base-cfg-i2v", "dit-tiny/checkpoint"),
                                           loop("distill-8", "dit-tiny/checkpoint"),
                                           loop("sr", "pipeline-tiny/checkpoint-sr")));

// Video VAEs: sums in another order. Sound: sines of large arguments turn a last place into 2e-4.
Case turbo(const std::string& weights, const std::string& name) {
    return {"turbo-vae",
            "turbo-vae-tiny/" + weights,
            "",
            "turbo-vae-tiny/" + name + ".safetensors",
            Precision::fp32,
            fp32};
}
Case wan(const std::string& component, const std::string& weights, const std::string& name) {
    return {component,
            "wan-vae-tiny/" + weights,
            "",
            "wan-vae-tiny/" + name + ".safetensors",
            Precision::fp32,
            fp32};
}
Case sound(const std::string& component, const std::string& name) {
    return {component,
            "audio-vae-tiny/model.safetensors",
            "",
            "audio-vae-tiny/" + name + ".safetensors",
            Precision::fp32,
            5e-4};
}
Case text(const std::string& name) {
    return {"text", "text/checkpoint", "", "text/" + name + ".safetensors", Precision::fp32, fp32};
}

INSTANTIATE_TEST_SUITE_P(
    VideoVaes, Golden,
    ::testing::Values(turbo("turbo_vae.safetensors", "decode-short"),
                      turbo("turbo_vae.safetensors", "decode-exact"),
                      turbo("checkpoint.ckpt", "decode-long"),
                      wan("wan-vae-encode", "Wan2.2_VAE.pth", "encode-image"),
                      wan("wan-vae-encode", "Wan2.2_VAE.safetensors", "encode-clip"),
                      wan("wan-vae-decode", "Wan2.2_VAE.pth", "decode-one"),
                      wan("wan-vae-decode", "Wan2.2_VAE.safetensors", "decode-three")));
INSTANTIATE_TEST_SUITE_P(SoundVae, Golden,
                         ::testing::Values(sound("audio-vae-decode", "case-one"),
                                           sound("audio-vae-decode", "case-short"),
                                           sound("audio-vae-encode", "case-one"),
                                           sound("audio-vae-encode", "case-short")));
INSTANTIATE_TEST_SUITE_P(TextEncoder, Golden,
                         ::testing::Values(text("fp32-1"), text("fp32-5"), text("fp32-40"),
                                           text("fp32-40-soft-cap")));
// A value on the edge between two halves may fall to either side.
INSTANTIATE_TEST_SUITE_P(TextEncoderInHalf, Golden,
                         ::testing::Values(Case{"text", "text/checkpoint", "",
                                                "text/fp32-40-half.safetensors", Precision::fp32,
                                                5e-4}));

TEST(Probe, WritesItsOutputsUnderTheCasesNames) {
    const auto on = make_cpu_backend();
    const TemporaryFolder folder;
    run_probe({.component = "unipc",
               .weights = {},
               .arch = {},
               .input = golden / "sampler/unipc-3.safetensors",
               .output = folder / "out.safetensors"},
              *on);
    const Checkpoint written = Checkpoint::open(folder / "out.safetensors");
    EXPECT_NE(written.find("samples"), nullptr);
    EXPECT_EQ(written.find("samples")->shape, Shape({3, 4, 3, 2, 5}));
}

/// A file's tensors and metadata, to be written again with changes.
struct Edited {
    std::map<std::string, Tensor> tensors;
    std::map<std::string, std::string> metadata;

    explicit Edited(const std::filesystem::path& path) {
        const Checkpoint file = Checkpoint::open(path);
        metadata = file.metadata();
        for (const StoredTensor& stored : file.tensors())
            tensors.emplace(stored.name, file.read(stored.name));
    }
    std::filesystem::path write(const std::filesystem::path& path) const {
        std::vector<NamedTensor> named;
        for (const auto& [name, tensor] : tensors) named.push_back({name, tensor});
        write_safetensors(path, named, metadata);
        return path;
    }
};

/// The largest error of any output in fp32.
double error_of(const std::string& component, const std::filesystem::path& weights,
                const std::filesystem::path& arch, const std::filesystem::path& input) {
    const auto on = make_cpu_backend();
    double error = 0;
    for (const ProbeDifference& d : run_probe({.component = component,
                                    .weights = weights,
                                    .arch = arch,
                                    .input = input,
                                    .output = {},
                                    .compare = true},
                                              *on))
        error = std::max(error, d.largest_error);
    return error;
}

TEST(Probe, FindsTheTransformersArchitectureAboveItsWeights) {
    const auto input = golden / "dit-tiny/t2v-v2.safetensors";
    EXPECT_LE(error_of("dit", golden / "dit-tiny/checkpoint", {}, input), fp32);
    EXPECT_LE(error_of("dit", golden / "dit-tiny/checkpoint/", {}, input), fp32);
    const TemporaryFolder folder;
    std::filesystem::copy(golden / "dit-tiny/checkpoint", folder / "540p_sr");
    EXPECT_THAT([&] { error_of("dit", folder / "540p_sr", {}, input); },
                ThrowsMessage<InputError>(HasSubstr("[5120]")));  // the published sizes
    // A model folder's file; the variant's own keys go before those that it shares.
    const std::string dit = read_text(golden / "dit-tiny/arch.json");
    write_atomically(folder / "gallop.yaml",
                     R"({"name": "x", "dit": )" + dit +
                         R"(, "variants": {"base": {"head_dim": 32}, "540p_sr": {}}})");
    EXPECT_LE(error_of("dit", folder / "540p_sr", {}, input), fp32);
    std::filesystem::rename(folder / "540p_sr", folder / "base");
    EXPECT_THAT([&] { error_of("dit", folder / "base", {}, input); },
                ThrowsMessage<InputError>(HasSubstr("q_norm")));
    write_atomically(folder / "arch.json", dit);  // goes before gallop.yaml
    EXPECT_LE(error_of("dit", folder / "base", {}, input), fp32);
    write_atomically(folder / "base/gallop.yaml", "[");  // what is nearer goes before both
    EXPECT_THROW(error_of("dit", folder / "base", {}, input), InputError);
}

TEST(Probe, RefinesWithTheImageOfTheSecondStagesSize) {
    const TemporaryFolder folder;
    const auto on = make_cpu_backend();
    Edited sr(golden / "pipeline-tiny/sr.safetensors");
    const auto run = [&] {
        run_probe({.component = "pipeline",
                   .weights = golden / "pipeline-tiny/checkpoint-sr",
                   .arch = golden / "dit-tiny/arch.json",
                   .input = sr.write(folder / "case.safetensors"),
                   .output = folder / "out.safetensors"},
                  *on);
        return Checkpoint::open(folder / "out.safetensors").read_f32("out_video");
    };
    sr.metadata["use_image"] = "True";
    EXPECT_THAT(run, ThrowsMessage<InputError>(HasSubstr("image of shape [48, 1, 8, 12]")));

    const auto filled = [](float value) {
        Tensor made({48, 1, 8, 12});
        std::fill_n(made.data<float>(), made.numel(), value);
        return made;
    };
    const auto first_frame = [](const Tensor& video, float value) {
        for (Index c = 0; c < 48; ++c)
            for (Index i = 0; i < 8 * 12; ++i)
                if (video.data<float>()[c * 3 * 8 * 12 + i] != value) return false;
        return true;
    };
    sr.tensors.insert_or_assign("big_image", filled(0.25F));
    EXPECT_TRUE(first_frame(run(), 0.25F));
    sr.tensors.insert_or_assign("sr_image_latent", filled(0.5F));
    EXPECT_TRUE(first_frame(run(), 0.5F));
    sr.metadata["use_image"] = "False";
    EXPECT_FALSE(first_frame(run(), 0.5F));
}

TEST(Probe, TakesWordsAndDigitsAsFlags) {
    const TemporaryFolder folder;
    Edited one(golden / "pipeline-tiny/base-cfg-i2v.safetensors");
    const auto error = [&](const char* use_image, const char* is_a2v) {
        one.metadata["use_image"] = use_image;
        one.metadata["is_a2v"] = is_a2v;
        return error_of("pipeline", golden / "dit-tiny/checkpoint", golden / "dit-tiny/arch.json",
                        one.write(folder / "case.safetensors"));
    };
    EXPECT_LE(error("true", "False"), fp32);
    EXPECT_LE(error("True", "false"), fp32);
    EXPECT_GT(error("false", "0"), 100 * fp32);
    EXPECT_GT(error("1", "True"), 100 * fp32);
    EXPECT_THAT([&] { error("yes", "0"); },
                ThrowsMessage<InputError>(HasSubstr("use_image is \"yes\" (true or false)")));
}

TEST(Probe, ReadsATextEncoderFromOneFileAndItsArchitectureFromAnother) {
    const TemporaryFolder folder;
    Edited weights(golden / "text/checkpoint");
    weights.metadata.clear();
    const auto file = weights.write(folder / "encoder.safetensors");
    const auto config = golden / "text/checkpoint/config.json";
    Edited one(golden / "text/fp32-5.safetensors");
    EXPECT_LE(error_of("text", file, config, golden / "text/fp32-5.safetensors"), fp32);
    auto ids = one.tensors.extract("ids");
    ids.key() = "input_ids";
    one.tensors.insert(std::move(ids));
    const auto input = one.write(folder / "case.safetensors");
    EXPECT_LE(error_of("text", file, config, input), fp32);
    EXPECT_THAT(
        [&] { error_of("text", file, {}, input); },
        ThrowsMessage<InputError>(HasSubstr("no architecture file beside it (config.json")));
    std::filesystem::copy(config, folder / "config.json");
    EXPECT_LE(error_of("text", file, {}, input), fp32);
    // Text is cut by the tokenizer in the file's folder.
    one.tensors.erase("input_ids");
    one.metadata["text"] = "a kite";
    const auto words = one.write(folder / "words.safetensors");
    EXPECT_THAT([&] { error_of("text", file, {}, words); },
                ThrowsMessage<Error>(HasSubstr((folder / "tokenizer.model").string())));
}

TEST(Probe, ReadsATurboCheckpointWithoutDecoderInItsNames) {
    const TemporaryFolder folder;
    const Edited from(golden / "turbo-vae-tiny/turbo_vae.safetensors");
    Edited weights = Edited(golden / "turbo-vae-tiny/turbo_vae.safetensors");
    weights.tensors.clear();
    for (const auto& [name, tensor] : from.tensors)
        weights.tensors.emplace(name.substr(std::string_view("decoder.").size()), tensor.clone());
    EXPECT_LE(error_of("turbo-vae", weights.write(folder / "w.safetensors"),
                       golden / "turbo-vae-tiny/turbo_vae.json",
                       golden / "turbo-vae-tiny/decode-short.safetensors"),
              fp32);
}

TEST(Probe, NamesAnUnknownComponentAndAMissingInput) {
    const auto on = make_cpu_backend();
    ProbeRequest request{.component = "dti",
                         .weights = golden / "dit-tiny/checkpoint",
                         .arch = golden / "dit-tiny/arch.json",
                         .input = golden / "sampler/unipc-3.safetensors",
                         .output = {}};
    try {
        run_probe(request, *on);
        FAIL();
    } catch (const InputError& error) {
        EXPECT_THAT(error.what(), HasSubstr("dti"));
    }
    request.component = "dit";
    try {
        run_probe(request, *on);
        FAIL();
    } catch (const InputError& error) {
        EXPECT_THAT(error.what(), HasSubstr("video_latent"));
    }
}

}  // namespace
}  // namespace gallop
