#include "pipeline/fp8_advice.hpp"

#include <random>

#include <gmock/gmock.h>

#include "core/check.hpp"
#include "model/bundle.hpp"
#include "model/fp8.hpp"
#include "model/make_model.hpp"
#include "model/shard.hpp"
#include "support/expect_near.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// A small model of random weights, other ones each time.
class Fp8Advised : public ::testing::Test {
protected:
    Fp8Advised() : seed(std::random_device{}()) {
        std::printf("seed %u\n", seed);
        make_model(std::filesystem::path(GALLOP_ROOT) / "configs/models/tiny.yaml",
                   folder / "model", seed);
    }
    Fp8Question question(double within) const {
        Fp8Question asked;
        asked.model = folder / "model";
        asked.variants = {"distill"};
        asked.prompts = {"rain", "a drum"};
        asked.size = {64, 64};
        asked.audio_latents = 5;
        asked.within = within;
        return asked;
    }
    Fp8Advice advice(const Fp8Question& asked) { return advise_fp8(asked, *on, {}); }

    unsigned seed;
    TemporaryFolder folder;
    std::unique_ptr<Backend> on = make_cpu_backend(1);
};

TEST_F(Fp8Advised, StaysWithinTheLimitInEveryForward) {
    const Fp8Advice made = advice(question(0.02));
    EXPECT_LE(made.error, 0.02);
    EXPECT_LT(made.chosen.size(), made.parts.size()) << "was anything multiplied in E4M3?";
    ASSERT_THAT(made.networks, SizeIs(1));
    // Two prompts at the first, the middle and the last of eight steps.
    ASSERT_THAT(made.networks[0].places, SizeIs(6));
    EXPECT_EQ(made.networks[0].places[1].step, 4);
    EXPECT_EQ(made.networks[0].places[5].prompt, "a drum");
    double worst = 0;
    for (const Fp8Error& error : made.networks[0].errors) worst = std::max(worst, error.worst());
    EXPECT_EQ(worst, made.error);
    EXPECT_THAT(made.networks[0].alone, Each(::testing::Gt(0)));
    Fp8Question first = question(0.02);
    first.steps = {"first"};
    EXPECT_THAT(advice(first).networks[0].places, SizeIs(2));
}

// What is chosen on a few forwards holds for others, with a fifth kept back.
TEST_F(Fp8Advised, StaysWithinTheLimitOnInputsThatItNeverSaw) {
    const Fp8Advice made = advice(question(0.016));
    const Bundle bundle = open_bundle(folder / "model");
    const TransformerConfig& config = bundle.variant("distill").network;
    Transformer network(
        config,
        Checkpoint::open(bundle.dit("distill")).load(transformer_specs(config, DType::bf16), *on),
        *on);
    RandomValues random;
    std::vector<Tensor> texts;
    std::vector<Fp8Case> cases(8);
    for (std::size_t i = 0; i < cases.size(); ++i)
        texts.push_back(random.tensor({3 + static_cast<Index>(i), config.text_in_channels}));
    for (std::size_t i = 0; i < cases.size(); ++i) {
        cases[i].video = random.tensor({48, 3, 4, 6});
        cases[i].audio = random.tensor({9, 64});
        cases[i].text = &texts[i];
    }
    const std::vector<Velocity> truth = velocities_of(network, cases, *on);
    Fp8Trial trial(network, cases, truth, *on);
    std::vector<Fp8Part> chosen;
    for (const std::size_t part : made.chosen) chosen.push_back(made.parts[part]);
    for (const Fp8Error& error : trial.errors(chosen)) EXPECT_LE(error.worst(), 0.02);
    EXPECT_FALSE(chosen.empty());
}

TEST_F(Fp8Advised, ChoosesEverythingOrNothingWhereTheLimitSaysSo) {
    const Fp8Advice all = advice(question(1));
    EXPECT_EQ(all.chosen.size(), all.parts.size());
    EXPECT_EQ(all.choice, (Fp8Choice{.layers = "all"}));
    const Fp8Advice none = advice(question(1e-9));
    EXPECT_THAT(none.chosen, IsEmpty());
    EXPECT_EQ(none.error, 0) << "bf16 against itself";
}

TEST_F(Fp8Advised, HoldsForAllTransformersAskedFor) {
    Fp8Question asked = question(0.03);
    asked.variants = {"540p_sr", "distill"};
    const Fp8Advice made = advice(asked);
    ASSERT_THAT(made.networks, SizeIs(2));
    EXPECT_EQ(made.networks[0].variant, "distill") << "the second stage begins with its latents";
    for (const Fp8Network& network : made.networks)
        for (const Fp8Error& error : network.errors) EXPECT_LE(error.worst(), 0.03);
    asked.variants = {"540p_sr"};  // a base network is found all the same
    EXPECT_LE(advice(asked).error, 0.03);
}

TEST_F(Fp8Advised, CountsWhatBf16IsOffByAgainstFp32) {
    Fp8Question asked = question(0.03);
    asked.against = Precision::fp32;
    const Fp8Advice made = advice(asked);
    EXPECT_LE(made.error, 0.03);
    EXPECT_GT(made.error, 0);
    asked.within = 1e-6;
    const Fp8Advice none = advice(asked);
    EXPECT_THAT(none.chosen, IsEmpty());
    EXPECT_GT(none.error, 1e-6) << "bf16 itself";
}

// A trial swaps weights in place; a renderer quantises them while it loads.
TEST_F(Fp8Advised, TriesWhatARendererWouldLoad) {
    const Bundle bundle = open_bundle(folder / "model");
    const TransformerConfig& config = bundle.variant("base").network;  // stored in bf16
    const auto load = [&](const Fp8Choice* choice) {
        auto table = transformer_specs(config, DType::bf16);
        if (choice != nullptr) choose_fp8(table, config.num_layers, *choice, "base");
        return Transformer(config, Checkpoint::open(bundle.dit("base")).load(table, *on), *on);
    };
    RandomValues random;
    const Tensor text = random.tensor({7, config.text_in_channels});
    std::vector<Fp8Case> cases(1);
    cases[0].video = random.tensor({48, 2, 4, 4});
    cases[0].audio = random.tensor({5, 64});
    cases[0].text = &text;
    Transformer network = load(nullptr);
    const std::vector<Velocity> truth = velocities_of(network, cases, *on);
    Fp8Trial trial(network, cases, truth, *on);
    trial.errors({{0, "up"}, {1, "proj"}});  // is taken back
    const Fp8Choice choice{.qkv = "none", .proj = "1-2", .up = "all", .down = "3"};
    const Fp8Error tried = trial.errors(fp8_parts(choice, 4, "base")).at(0);

    Transformer loaded = load(&choice);
    const std::vector<Velocity> expected = velocities_of(loaded, cases, *on);
    const std::vector<Velocity> swapped = velocities_of(network, cases, *on);
    EXPECT_EQ(floats(swapped[0].video), floats(expected[0].video));
    EXPECT_EQ(floats(swapped[0].audio), floats(expected[0].audio));
    EXPECT_GT(tried.picture, 0);
    EXPECT_EQ(trial.errors({}).at(0).worst(), 0) << "the network is as it was";
}

TEST_F(Fp8Advised, RefusesWhatItCannotAnswer) {
    Fp8Question asked = question(0.02);
    asked.variants = {"disstill"};
    EXPECT_THROW(advice(asked), InputError);
    asked = question(0.02);
    asked.prompts.clear();
    EXPECT_THROW(advice(asked), InputError);
    asked = question(0.02);
    asked.steps = {"next"};
    EXPECT_THROW(advice(asked), InputError);
}

}  // namespace
}  // namespace gallop
