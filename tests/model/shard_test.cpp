#include "model/shard.hpp"

#include <thread>

#include <gmock/gmock.h>

#include "core/check.hpp"
#include "model/transformer.hpp"
#include "support/expect_near.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

using namespace std::chrono_literals;
using ::testing::Each;

/// Every kind of layer: experts and shared, gelu7 and swiglu7, post-norms, local attention; eight
/// heads over two key/value heads; feed-forward widths that eight members cannot share evenly.
TransformerConfig mixed() {
    TransformerConfig config;
    config.num_layers = 4;
    config.hidden_size = 128;
    config.head_dim = 16;
    config.num_query_groups = 2;
    config.text_in_channels = 8;
    config.mm_layers = {0, 3};
    config.gelu7_layers = {0};
    config.local_attn_layers = {1};
    config.post_norm_layers = {2};
    config.frame_receptive_field = 1;
    return config;
}

/// A checkpoint of random weights in a folder.
std::filesystem::path write_random(const TransformerConfig& config,
                                   const std::filesystem::path& folder) {
    std::vector<std::pair<std::string, Tensor>> drawn;
    for (const TensorSpec& spec : transformer_specs(config, DType::f32)) {
        if (spec.optional) continue;
        Tensor values(spec.shape);
        fill_normal(NoiseStream(1, spec.name), 0, values.span<float>());
        for (float& value : values.span<float>()) value *= 0.1F;
        drawn.emplace_back(spec.name, std::move(values));
    }
    std::vector<NamedTensor> named;
    for (const auto& [name, tensor] : drawn) named.push_back({name, tensor});
    write_safetensors(folder / "model.safetensors", named);
    return folder;
}

struct Inputs {
    Tensor video, audio, text;
};

struct Result {
    std::vector<float> video, audio;
    std::size_t bytes = 0;
    bool operator==(const Result& other) const {
        return video == other.video && audio == other.audio;
    }
};

Result forward(const std::filesystem::path& checkpoint, const TransformerConfig& config,
               DType linears, const Inputs& inputs, Group& group) {
    const auto on = make_cpu_backend(1);
    const Shard shard = shard_of(config, group.rank(), group.size());
    Weights weights = Checkpoint::open(checkpoint).load(sharded_specs(config, linears, shard), *on);
    Transformer model(config, std::move(weights), *on, group);
    const Velocity velocity = model.forward({inputs.video, inputs.audio, inputs.text});
    return {floats(velocity.video), floats(velocity.audio), model.bytes()};
}

std::vector<Result> forward_shared(const std::filesystem::path& checkpoint,
                                   const TransformerConfig& config, DType linears,
                                   const Inputs& inputs, int size) {
    auto members = make_thread_group(size, 60s);
    std::vector<Result> results(members.size());
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < members.size(); ++rank)
        threads.emplace_back([&, rank] {
            results[rank] = forward(checkpoint, config, linears, inputs, *members[rank]);
        });
    for (std::thread& thread : threads) thread.join();
    return results;
}

class Sharding : public ::testing::Test {
protected:
    TransformerConfig config = mixed();
    TemporaryFolder folder;
    std::filesystem::path checkpoint = write_random(config, folder.path());
    RandomValues random;
    Inputs inputs{random.tensor({48, 3, 4, 4}), random.tensor({9, 64}), random.tensor({5, 8})};
};

TEST_F(Sharding, GivesWhatOneRendererGives) {
    const Result alone = forward(checkpoint, config, DType::f32, inputs, solo_group());
    for (const int size : {2, 4, 8}) {
        const auto shared = forward_shared(checkpoint, config, DType::f32, inputs, size);
        EXPECT_THAT(shared, Each(shared[0])) << size;
        expect_near(shared[0].video, alone.video, 1e-5);  // sums of another order
        expect_near(shared[0].audio, alone.audio, 1e-5);
    }
}

TEST_F(Sharding, CostsTheCastsNoAccuracy) {
    const Result exact = forward(checkpoint, config, DType::f32, inputs, solo_group());
    const Result alone = forward(checkpoint, config, DType::bf16, inputs, solo_group());
    const double error = relative_error(alone.video, exact.video);
    for (const int size : {2, 8}) {
        const auto shared = forward_shared(checkpoint, config, DType::bf16, inputs, size);
        // One rounding more or less is the luck of the draw; what counts is that none is added.
        EXPECT_LT(relative_error(shared[0].video, exact.video), 1.5 * error + 1e-6) << size;
    }
}

TEST_F(Sharding, HoldsOnlyItsShare) {
    const std::size_t whole = forward(checkpoint, config, DType::f32, inputs, solo_group()).bytes;
    std::size_t shared = 0;
    for (const TensorSpec& spec : sharded_specs(config, DType::f32, shard_of(config, 1, 2)))
        if (!spec.optional) shared += static_cast<std::size_t>(spec.shape.numel()) * 4;
    EXPECT_EQ(forward_shared(checkpoint, config, DType::f32, inputs, 2)[1].bytes, shared);
    // All but embedders, heads and norms is halved, up to the padding.
    EXPECT_LT(static_cast<double>(shared), 0.62 * static_cast<double>(whole));
}

TEST(Shard, SplitsThePublishedHeads) {
    const TransformerConfig published;
    const Shard third = shard_of(published, 3, 8);
    EXPECT_EQ(third.heads, 5);
    EXPECT_EQ(third.first_head, 15);
    EXPECT_EQ(third.kv_heads, 1);
    EXPECT_EQ(third.first_kv_head, 3);
    // 13652 = 8 · 1706.5: shares of 1712, the last of which ends in 44 zeros.
    EXPECT_EQ(third.intermediate(published, 10), 1712);
    EXPECT_EQ(third.intermediate(published, 0), 2560);
    EXPECT_EQ(shard_of(published, 0, 1).intermediate(published, 10), 13652);
}

TEST(Shard, RefusesHeadsThatDoNotDivide) {
    EXPECT_THROW(shard_of(TransformerConfig{}, 0, 3), InputError);
    EXPECT_THROW(shard_of(TransformerConfig{}, 0, 16), InputError);
    EXPECT_THROW(shard_of(mixed(), 0, 16), InputError);
}

}  // namespace
}  // namespace gallop
