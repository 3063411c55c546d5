#include "pipeline/memory.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include <gmock/gmock.h>

#include "model/architecture.hpp"
#include "model/fp8.hpp"
#include "model/text_encoder.hpp"
#include "model/vae_case.hpp"
#include "ops/dry.hpp"
#include "pipeline/bench.hpp"
#include "pipeline/denoise.hpp"
#include "pipeline/picture_relay.hpp"
#include "pipeline/residents.hpp"
#include "support/random_transformer.hpp"

namespace gallop {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::size_t mib = std::size_t{1} << 20;

/// The block that `work` needs on a backend that computes.
template <class Work>
double measured(Backend& on, const Work& work) {
    auto& memory = dynamic_cast<CountedMemory&>(on.memory());
    const MemoryStage stage(&memory, 1024 * mib);
    const std::uint64_t asked = memory.use().asked;
    work();
    EXPECT_EQ(memory.use().asked, asked);  // it was large enough
    return static_cast<double>(stage.extent());
}

/// The bytes a dry run foretells are those that the same run takes: within 1 %.
void expect_foretold(std::size_t foretold, double taken) {
    EXPECT_NEAR(static_cast<double>(foretold), taken, 0.01 * taken);
}

template <class Network, class Config>
void decode_as_foretold(const Config& config, const std::vector<TensorSpec>& table,
                        const Shape& shape, Index strips,
                        void (*expect)(std::size_t foretold, double taken) = expect_foretold) {
    const auto on = make_cpu_backend();
    const Network network(config, test::random_weights(table, *on));
    test::RandomValues random;
    const Tensor latent = random.tensor(shape);
    const double taken = measured(*on, [&] {
        const Tensor z = on->upload(latent);
        const FrameSink nobody = [](ConstTensorView) {};
        PictureRelay relay(*on, 16 * shape[2], 16 * shape[3], {}, nobody);
        network.decode(
            z, *on, [&](ConstTensorView pictures) { relay.add(pictures); }, strips);
        relay.finish();
    });
    expect(decode_peak(config, DType::f32, shape, strips), taken);
}

TEST(Memory, ForetellsWhatTheTurboDecoderTakes) {
    const TurboVaeConfig config{.channels = {4, 6, 8, 12}};
    for (const Index strips : {1, 2})
        decode_as_foretold<TurboVae>(config, specs(config), {48, 8, 20, 2}, strips);
}

TEST(Memory, ForetellsWhatTheFullDecoderTakes) {
    const WanVaeConfig config{.dim = 4, .dec_dim = 6};
    for (const Index strips : {1, 2})
        decode_as_foretold<WanVae>(config, specs(config, WanPart::decoder), {48, 4, 16, 2}, strips);
}

// Longer clips than those that are run dry: 40 latent frames instead of 21 and 33.
TEST(Memory, ForetellsLongClipsFromTheirFirstChunks) {
    const auto stays_in_block = [](std::size_t foretold, double taken) {
        EXPECT_LE(taken, 17.0 / 16 * static_cast<double>(foretold));
    };
    const Shape latent{48, 40, 2, 2};
    const TurboVaeConfig turbo{.channels = {4, 6, 8, 12}};
    decode_as_foretold<TurboVae>(turbo, specs(turbo), latent, 1, stays_in_block);
    const WanVaeConfig wan{.dim = 4, .dec_dim = 6};
    decode_as_foretold<WanVae>(wan, specs(wan, WanPart::decoder), latent, 1, stays_in_block);
}

TEST(Memory, ForetellsWhatTheTextEncoderTakes) {
    TextEncoderConfig config;
    config.width = 48;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_size = 16;
    config.mlp = 96;
    config.vocabulary = 50;
    config.sliding = TextEncoderConfig::alternate(3);
    config.window = 8;
    for (const DType dtype : {DType::f32, DType::bf16}) {
        const TextEncoderOptions how{.compute = dtype};
        const auto on = make_cpu_backend();
        const TextEncoder encoder(config, random_weights(text_encoder_specs(config, dtype), *on),
                                  how, *on);
        const std::vector<std::int32_t> ids(21, 7);
        expect_foretold(text_peak(config, how, 21), measured(*on, [&] { encoder.encode(ids); }));
    }
}

TEST(Memory, ForetellsWhatThePictureEncoderTakes) {
    const WanVaeConfig config{.dim = 4, .dec_dim = 6};
    const auto on = make_cpu_backend();
    const WanVae vae(config, random_weights(specs(config, WanPart::encoder), *on));
    const Tensor picture = Tensor::zeros({1, 96, 64, 3});
    expect_foretold(encode_peak(config, DType::f32, 96, 64),
                    measured(*on, [&] { on->download(vae.encode(on->upload(picture), *on)); }));
}

TEST(Memory, ForetellsWhatTheSoundVaeTakes) {
    AudioVaeConfig config;
    config.encoder.channels = config.decoder.channels = 4;
    const auto on = make_cpu_backend();
    const AudioVae vae(config, random_weights(specs(config), *on), *on);
    for (const Index samples : {9 * config.ratio(), 9 * config.ratio() + 1000}) {
        const Tensor mono = Tensor::zeros({samples});
        expect_foretold(encode_peak(config, samples),
                        measured(*on, [&] { vae.encode_driving(mono, {}, *on); }));
    }
    const Tensor latent = Tensor::zeros({9, 64});
    expect_foretold(decode_peak(config, 9),
                    measured(*on, [&] { on->download(vae.decode(on->upload(latent), *on)); }));
    EXPECT_EQ(encode_peak(config, 2 * driving_window), encode_peak(config, driving_window))
        << "window by window";
}

/// Experts, shared layers and local attention.
TransformerConfig small_network() {
    TransformerConfig config;
    config.num_layers = 3;
    config.hidden_size = 96;
    config.head_dim = 24;
    config.num_query_groups = 2;
    config.text_in_channels = 20;
    config.mm_layers = {0, 2};
    config.gelu7_layers = {0};
    config.local_attn_layers = {1};
    return config;
}
constexpr SequenceShape small_shape{5, 4, 6, 17, 9};

/// Bytes of the arrays of one forward of `small_shape`.
double measured_forward(Transformer& network, Backend& on) {
    test::RandomValues random;
    network.prepare(small_shape);
    return measured(on, [&] {
        const Tensor video = on.upload(random.tensor({48, 5, 8, 12}));
        const Tensor audio = on.upload(random.tensor({17, 64}));
        const Tensor text = on.upload(random.tensor({9, 20}));
        network.forward({video, audio, text});
    });
}

TEST(Memory, ForetellsWhatAForwardTakes) {
    const TransformerConfig config = small_network();
    const auto table = transformer_specs(config, DType::f32);
    const auto on = make_cpu_backend();
    Transformer network(config, test::random_weights(table, *on), *on);
    expect_foretold(forward_peak(config, table, small_shape), measured_forward(network, *on));
}

/// A network as a renderer loads it: member `rank` of `size`, widths in multiples of `unit`.
std::vector<TensorSpec> loaded_table(const TransformerConfig& config, bool fp8, int size,
                                     Index unit) {
    auto table = sharded_specs(config, DType::bf16, shard_of(config, 0, size, unit));
    if (fp8) choose_fp8(table, config.num_layers, {.layers = "all"}, "net");
    std::erase_if(table, [](const TensorSpec& spec) { return spec.optional; });
    return table;
}

// bf16 or E4M3, alone or one of two, padded as for the GPU: rows that are quantised on the way are
// arrays, too, and their scales are weights.
TEST(Memory, ForetellsForwardsAndWeightsAsTheyAreLoaded) {
    const TransformerConfig config = small_network();
    for (const bool fp8 : {false, true})
        for (const int size : {1, 2})
            for (const Index unit : {1, 128}) {
                const auto table = loaded_table(config, fp8, size, unit);
                const auto on = make_cpu_backend();
                const auto group = make_dry_group(size);
                Weights weights = random_weights(table, *on);
                EXPECT_EQ(weight_bytes(table), weights.bytes());
                Transformer network(config, std::move(weights), *on, *group);
                const double taken = measured_forward(network, *on);
                const std::size_t foretold = forward_peak(config, table, small_shape, size);
                if (fp8 && size == 1) {
                    // The CPU adds an E4M3 product to the residual by way of an array of its own.
                    EXPECT_LE(static_cast<double>(foretold), taken);
                    EXPECT_LE(taken, static_cast<double>(foretold) + 146 * 96 * sizeof(float));
                } else {
                    expect_foretold(foretold, taken);
                }
            }
}

TEST(Memory, AMemberOfAGroupTakesLess) {
    const TransformerConfig published;
    const SequenceShape shape{32, 8, 14, 126, 400};
    const auto peak = [&](int gpus) {
        return forward_peak(published, loaded_table(published, false, gpus, 128), shape, gpus);
    };
    const std::size_t alone = peak(1);
    const std::size_t four = peak(4);
    EXPECT_LT(four, alone);
    // The residual and its copy stay whole; the widest arrays are cut in four.
    EXPECT_GT(four, alone / 4);
}

// At 1080p, where the question comes up: bf16, 32 latent frames of 68 × 120.
TEST(Memory, StripsTakeLittleMoreThanAThirdOfWhatA1080pDecodeTakesWhole) {
    const Shape latent{48, 32, 68, 120};
    const std::size_t turbo = decode_peak(TurboVaeConfig{}, DType::bf16, latent, 1);
    EXPECT_LT(decode_peak(TurboVaeConfig{}, DType::bf16, latent, 2), turbo * 3 / 4);
    EXPECT_LT(decode_peak(TurboVaeConfig{}, DType::bf16, latent, 7), turbo / 100 * 36);
    EXPECT_GT(turbo, std::size_t{10} << 30);
    EXPECT_LT(turbo, std::size_t{20} << 30);
}

TEST(Memory, CutsAPictureOnlyWhereItDoesNotFit) {
    const auto peak = [](Index strips) { return 8192 * mib / static_cast<std::size_t>(strips); };
    EXPECT_EQ(strips_that_fit({}, 7, peak), 1);
    EXPECT_EQ(strips_that_fit(16384 * mib, 7, peak), 1);
    EXPECT_EQ(strips_that_fit(8192 * mib, 7, peak), 2);  // workspaces need some, too
    EXPECT_EQ(strips_that_fit(4200 * mib, 7, peak), 3);
    EXPECT_EQ(strips_that_fit(100 * mib, 7, peak), 7);
    EXPECT_EQ(strips_that_fit(100 * mib, 1, peak), 1);
}

TEST(Memory, TheLongestUnusedNetworkLeavesFirst) {
    std::size_t left = 10;
    Residents residents;
    const auto come = [&](const char* name, std::size_t bytes) {
        const auto gone = residents.make_room(bytes, name, [&] { return left; });
        left -= bytes;
        residents.came(name, bytes, [&left, bytes] { left += bytes; });
        return gone;
    };
    EXPECT_THAT(come("text", 4), IsEmpty());
    EXPECT_THAT(come("base", 5), IsEmpty());
    EXPECT_THAT(come("sr", 5), ElementsAre("text"));
    residents.used("base");
    EXPECT_THAT(come("text", 4), ElementsAre("sr"));
    EXPECT_THAT(come("sr", 5), ElementsAre("base"));
    EXPECT_THAT(residents.make_room(6, "sr", [&] { return left; }), ElementsAre("text"));
    EXPECT_THAT(residents.make_room(60, "sr", [&] { return left; }), IsEmpty());
}

// A decoder that was used before the text encoder, but whose going would not help.
TEST(Memory, OneNetworkThatMakesRoomAloneLeavesAlone) {
    std::size_t left = 3;
    Residents residents;
    for (const auto& [name, bytes] : {std::pair<const char*, std::size_t>{"sound", 1},
                                      {"pictures", 1},
                                      {"text", 17},
                                      {"sr", 30}})
        residents.came(name, bytes, [&left, bytes = bytes] { left += bytes; });
    const auto room = [&](std::size_t bytes) {
        return residents.make_room(bytes, "sr", [&] { return left; });
    };
    EXPECT_THAT(room(4), ElementsAre("sound"));
    EXPECT_THAT(room(10), ElementsAre("text"));
    EXPECT_THAT(room(60), ElementsAre("pictures"));
}

// What 80 GB must hold, 84 GB as a device counts them with the context's share gone: base, SR and text
// encoder with a 1080p forward in E4M3; in bf16 two of the three.
TEST(Memory, AllNetworksOfA1080pClipFitInE4M3AndTwoOfThemInBf16) {
    const TransformerConfig sr = published_architecture().variants.at("1080p_sr").network;
    const SequenceShape shape{32, 34, 60, 126, 400};
    const std::size_t text = weight_bytes(text_encoder_specs(TextEncoderConfig{}, DType::bf16));
    constexpr std::size_t device = std::size_t{78} << 30;
    for (const bool fp8 : {false, true}) {
        auto table = sharded_specs(sr, DType::bf16, shard_of(sr, 0, 1, 128));
        if (fp8) choose_fp8(table, sr.num_layers, {}, "1080p_sr");
        const std::size_t network = weight_bytes(table);
        const std::size_t stage = with_workspaces(forward_peak(sr, table, shape));
        const std::size_t decode = with_workspaces(
            decode_peak(TurboVaeConfig{}, DType::bf16, {48, 32, 68, 120},
                        TurboVae(TurboVaeConfig{}, {}, DType::bf16).most_strips(68)));
        if (fp8) {
            EXPECT_LT(2 * network + text + std::max(stage, decode), device);
        } else {
            EXPECT_LT(2 * network + std::max(stage, decode), device);
            EXPECT_GT(2 * network + text + stage, device) << "a network must leave";
        }
        std::printf("%s: network %.1f GiB, 1080p forward %.1f, decode in strips %.1f, text %.1f\n",
                    fp8 ? "fp8" : "bf16", static_cast<double>(network) / (1 << 30),
                    static_cast<double>(stage) / (1 << 30), static_cast<double>(decode) / (1 << 30),
                    static_cast<double>(text) / (1 << 30));
    }
}

TEST(Memory, AllStayWhereNobodyKnowsWhatIsLeft) {
    Residents residents;
    residents.came("base", 1, [] { FAIL() << "it left"; });
    EXPECT_THAT(residents.make_room(std::size_t{1} << 60, "sr",
                                    [] { return std::optional<std::size_t>(); }),
                IsEmpty());
}

/// What each step of a denoise loop on a device asks of it, in a block as the renderer opens it.
class HotLoop : public ::testing::Test {
protected:
    struct Step {
        std::uint64_t asked, waits;
        bool operator==(const Step&) const = default;
    };

    static TransformerConfig config() {
        TransformerConfig made;
        made.num_layers = 3;
        made.hidden_size = 64;
        made.head_dim = 16;
        made.num_query_groups = 2;
        made.text_in_channels = 8;
        made.mm_layers = {0, 2};
        made.gelu7_layers = {0};
        made.local_attn_layers = {1};
        return made;
    }

    /// Expects a stage to ask for nothing, from its first step on.
    void expect_nothing_asked(std::uint64_t asked_before) {
        ASSERT_GT(steps_.size(), 4U);
        for (const Step& step : steps_) EXPECT_EQ(step, steps_.front());
        EXPECT_EQ(on_->counted().use().asked, asked_before);
    }

    /// What a stage is conditioned on, as the renderer brings it to the device.
    struct Given {
        explicit Given(Backend& on, const Shape& latent)
            : text(on.empty({6, 8})),
              negative(on.empty({4, 8})),
              image(on.empty({latent[0], 1, latent[2], latent[3]})),
              inputs{.text = text, .negative = negative, .image = image, .audio_fixed = false} {}
        Tensor text, negative, image;
        StageInputs inputs;
    };

    SequenceShape shape_{3, 8, 14, 9, 6};
    Shape latent_{48, 3, 16, 28};
    std::unique_ptr<DryBackend> on_ = make_dry_backend();
    Transformer model_ = test::random_transformer(config(), *on_, 0.2F);
    std::vector<Step> steps_;
    ProgressSink count_ = [this](const Progress&) {
        steps_.push_back({on_->counted().use().asked, on_->waits()});
    };
    std::size_t block_ =
        stage_bytes(forward_peak(config(), transformer_specs(config(), DType::f32), shape_) +
                    sampler_bytes(config(), shape_)) -
        stage_bytes(0) + 4096;  // as little of what the libraries get as there can be

    void SetUp() override {
        model_.prepare(shape_);
        SequenceShape other = shape_;
        other.text = 4;
        model_.prepare(other);
    }
};

TEST_F(HotLoop, OfTheBaseStageAsksForNoMemoryAndWaitsForNothing) {
    for (const int passes : {1, 2}) {
        const StepNoise noise = [this](std::string_view, int, TensorView out) {
            on_->normal(NoiseStream(1, "noise"), 0, out);
        };
        const MemoryStage stage(&on_->counted(), block_);
        const std::uint64_t asked = on_->counted().use().asked;
        const Given given(*on_, latent_);
        Tensor audio = on_->empty({9, 64});
        Tensor video = on_->empty(latent_);
        steps_.clear();
        denoise_base(model_, {.steps = 5, .passes = passes}, given.inputs, noise, *on_, video,
                     audio, count_);
        expect_nothing_asked(asked);
    }
}

TEST_F(HotLoop, OfTheSecondStageAsksForNoMemoryAndWaitsForNothing) {
    for (const int passes : {1, 2}) {
        const MemoryStage stage(&on_->counted(), block_);
        const std::uint64_t asked = on_->counted().use().asked;
        const SrSampling sampling{.steps = 5, .passes = passes};
        const Given given(*on_, latent_);
        SrStart start = start_sr(sampling, on_->empty({48, 3, 8, 14}), on_->empty({9, 64}),
                                 on_->empty(latent_), on_->empty({9, 64}), *on_);
        steps_.clear();
        denoise_sr(model_, sampling, given.inputs, *on_, start, count_);
        expect_nothing_asked(asked);
    }
}

// A sweep over negative prompts: each brings a table of its own, the prompt's is used all along.
TEST_F(HotLoop, KeepsTheTablesThatAStagePreparedLast) {
    SequenceShape negative = shape_;
    for (const Index length : {3, 5, 7, 1, 2, 8, 4}) {
        negative.text = length;
        model_.prepare(shape_);
        model_.prepare(negative);
    }
    const MemoryStage stage(&on_->counted(), block_);
    const std::uint64_t asked = on_->counted().use().asked;
    const std::uint64_t waits = on_->waits();
    const Given given(*on_, latent_);
    Tensor audio = on_->empty({9, 64});
    Tensor video = on_->empty(latent_);
    steps_.clear();
    denoise_base(
        model_, {.steps = 5, .passes = 2}, given.inputs, [](std::string_view, int, TensorView) {},
        *on_, video, audio, count_);
    expect_nothing_asked(asked);
    EXPECT_EQ(on_->waits(), waits) << "a table was made again";
}

// The counters count: without a block each step asks again, and without tables the first forward waits.
TEST_F(HotLoop, IsSeenWhereItAsks) {
    const Given given(*on_, latent_);
    Tensor video = on_->empty(latent_);
    Tensor audio = on_->empty({9, 64});
    Transformer fresh = test::random_transformer(config(), *on_, 0.2F);
    denoise_base(
        fresh, {.steps = 2, .passes = 1}, given.inputs, [](std::string_view, int, TensorView) {},
        *on_, video, audio, count_);
    ASSERT_EQ(steps_.size(), 3U);
    EXPECT_EQ(steps_[1].waits, steps_[0].waits + 1);
    EXPECT_EQ(steps_[2].waits, steps_[1].waits);
    EXPECT_GT(steps_[2].asked, steps_[1].asked + 10);
}

TEST(Memory, ADryRunChecksShapes) {
    const auto on = make_dry_backend();
    const Tensor x = on->empty({3, 4});
    Tensor y = on->empty({3, 5});
    EXPECT_THROW(on->gelu7(x, y), Error);
    EXPECT_EQ(on->counted().use().now, 27 * sizeof(float));
}

}  // namespace
}  // namespace gallop
