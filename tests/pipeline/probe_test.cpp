#include "pipeline/probe.hpp"

#include <gmock/gmock.h>

#include "model/checkpoint.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using test::TemporaryFolder;
using ::testing::HasSubstr;

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
