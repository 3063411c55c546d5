#include "model/shard.hpp"

#include <thread>

#include <gmock/gmock.h>

#include "core/check.hpp"
#include "model/fp8.hpp"
#include "model/transformer.hpp"
#include "support/expect_near.hpp"
#include "support/random_transformer.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

using namespace std::chrono_literals;
using ::testing::Each;

/// A checkpoint of random weights in a folder.
std::filesystem::path write_random(const TransformerConfig& config,
                                   const std::filesystem::path& folder) {
    const auto drawn = random_weights(config, 0.1F);
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

/// `linears`: f32, bf16, or f8_e4m3, which is bf16 with all layers' linears in E4M3.
std::vector<TensorSpec> table_of(const TransformerConfig& config, DType linears, int rank,
                                 int size) {
    const bool fp8 = linears == DType::f8_e4m3;
    auto table = sharded_specs(config, fp8 ? DType::bf16 : linears, shard_of(config, rank, size));
    if (fp8) choose_fp8(table, config.num_layers, {.layers = "all"}, "net");
    return table;
}

Result forward(const std::filesystem::path& checkpoint, const TransformerConfig& config,
               DType linears, const Inputs& inputs, Group& group) {
    const auto on = make_cpu_backend(1);
    Weights weights = Checkpoint::open(checkpoint)
                          .load(table_of(config, linears, group.rank(), group.size()), *on);
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

double relative_l2(const std::vector<float>& x, const std::vector<float>& truth) {
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) {
        error += std::pow(static_cast<double>(x[i]) - truth[i], 2);
        size += std::pow(static_cast<double>(truth[i]), 2);
    }
    return std::sqrt(error / size);
}

class Sharding : public ::testing::Test {
protected:
    TransformerConfig config = one_of_each();
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
    for (const int size : {2, 4, 8}) {
        const auto shared = forward_shared(checkpoint, config, DType::bf16, inputs, size);
        // One rounding more or less is the luck of the draw; what counts is that none is added.
        EXPECT_LT(relative_error(shared[0].video, exact.video), 1.5 * error + 1e-6) << size;
    }
}

// A member scales rows of proj and down, and what meets them, by its own columns alone, which is finer
// than the whole rows' scales, never coarser.
TEST_F(Sharding, CostsE4M3NoAccuracy) {
    const Result exact = forward(checkpoint, config, DType::f32, inputs, solo_group());
    const Result alone = forward(checkpoint, config, DType::f8_e4m3, inputs, solo_group());
    const double error = relative_l2(alone.video, exact.video);
    EXPECT_GT(error, 1e-3) << "was anything multiplied in E4M3?";
    for (const int size : {2, 4, 8}) {
        const auto shared = forward_shared(checkpoint, config, DType::f8_e4m3, inputs, size);
        EXPECT_THAT(shared, Each(shared[0])) << size;
        EXPECT_LE(relative_l2(shared[0].video, exact.video), 1.2 * error) << size;
        // The same roundings but for those scales: nearer to the one renderer's than to fp32.
        EXPECT_LE(relative_l2(shared[0].video, alone.video), 1.5 * error) << size;
    }
}

TEST_F(Sharding, QuantisesItsRowsOfQkvAsTheWholeDoes) {
    const auto on = make_cpu_backend(1);
    const std::string name = "block.layers.2.attention.linear_qkv.weight";
    const std::string scales = name + std::string(fp8_scale_suffix);
    const auto load = [&](int rank, int size) {
        return Checkpoint::open(checkpoint).load(table_of(config, DType::f8_e4m3, rank, size), *on);
    };
    const Weights whole = load(0, 1);
    const Weights third =
        load(2, 4);  // two of eight heads of 16, the second of two key/value heads
    const auto rows = [](const Tensor& x, Index begin, Index end) {
        const std::vector<float> all = floats(x);
        const Index width = x.numel() / x.size(0);
        return std::vector<float>(all.begin() + begin * width, all.begin() + end * width);
    };
    EXPECT_EQ(rows(third[name], 0, 32), rows(whole[name], 64, 96));     // q
    EXPECT_EQ(rows(third[name], 32, 48), rows(whole[name], 144, 160));  // k
    EXPECT_EQ(rows(third[name], 48, 64), rows(whole[name], 176, 192));  // v
    EXPECT_EQ(rows(third[scales], 48, 64), rows(whole[scales], 176, 192));
    EXPECT_EQ(rows(third[name], 64, 66), rows(whole[name], 196, 198));  // gates
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
    EXPECT_THROW(shard_of(one_of_each(), 0, 16), InputError);
}

}  // namespace
}  // namespace gallop
