// A member of a tensor-parallel group beside the whole network, op by op: heads, hidden columns and sums.

#include <thread>

#include <gmock/gmock.h>

#include "model/shard.hpp"
#include "model/transformer.hpp"
#include "ops/cpu_backend.hpp"
#include "support/expect_near.hpp"
#include "support/random_transformer.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

using namespace std::chrono_literals;

/// Sums of another order, over at most five layers.
constexpr double tolerance = 1e-5;

/// What one layer of one member makes.
struct LayerTrace {
    Tensor q, k, v;         ///< [L, H, K] and [L, G, K]
    Tensor gated;           ///< [L, H, K], the attended heads behind their gates
    Tensor hidden;          ///< [L, I]
    Tensor attended, down;  ///< [L, D], what goes into the sums; alone: the layer's outputs
    Tensor attended_sum, down_sum;
};

/// A CPU that keeps what a transformer's ops make on it.
class TracingBackend final : public CpuBackend {
public:
    TracingBackend() : CpuBackend(1) {}
    std::vector<LayerTrace> layers;

private:
    void do_split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                      const NormSpec& spec, Segments segments, ConstTensorView rope, TensorView q,
                      TensorView k, TensorView v) override {
        plain_->split_qkv(u, q_norm, k_norm, spec, segments, rope, q, k, v);
        LayerTrace& layer = layers.emplace_back();
        layer.q = plain_->download(q);
        layer.k = plain_->download(k);
        layer.v = plain_->download(v);
    }
    void do_gate_heads(TensorView o, ConstTensorView u, Index column) override {
        plain_->gate_heads(o, u, column);
        layers.back().gated = plain_->download(o);
    }
    void do_gelu7(ConstTensorView u, TensorView y) override {
        plain_->gelu7(u, y);
        layers.back().hidden = plain_->download(y);
    }
    void do_swiglu7(ConstTensorView u, TensorView y) override {
        plain_->swiglu7(u, y);
        layers.back().hidden = plain_->download(y);
    }
    /// The linears of a layer: qkv, proj, up, down.
    void do_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                   Segments segments, TensorView y) override {
        plain_->linear(x, weight, bias, segments, y);
        if (layers.empty()) return;
        LayerTrace& layer = layers.back();
        if (layer.hidden.defined() && !layer.down.defined())
            layer.down = plain_->download(y);
        else if (!layer.attended.defined())
            layer.attended = plain_->download(y);
    }

    std::unique_ptr<Backend> plain_ = make_cpu_backend(1);
};

/// A member whose sums are counted and kept.
class TracingGroup final : public Group {
public:
    TracingGroup(Group& group, TracingBackend& on) : group_(group), on_(on) {}
    int rank() const override { return group_.rank(); }
    int size() const override { return group_.size(); }
    void sum(TensorView x) override {
        group_.sum(x);
        LayerTrace& layer = on_.layers.back();
        (layer.hidden.defined() ? layer.down_sum : layer.attended_sum) = on_.download(x);
        ++sums;
    }
    Index sums = 0;

private:
    Group& group_;
    TracingBackend& on_;
};

struct Member {
    Shard shard;
    std::vector<LayerTrace> layers;
    Index sums = 0;
};

/// Columns begin … begin+count−1 of [L, …], flattened behind the first axis.
std::vector<float> columns(const Tensor& x, Index begin, Index count) {
    const std::vector<float> all = floats(x);
    const Index width = x.numel() / x.size(0);
    std::vector<float> part;
    for (Index l = 0; l < x.size(0); ++l)
        part.insert(part.end(), all.begin() + l * width + begin,
                    all.begin() + l * width + begin + count);
    return part;
}

class ShardOps : public ::testing::TestWithParam<int> {
protected:
    ShardOps() {
        const auto drawn = random_weights(config, 0.1F);
        std::vector<NamedTensor> named;
        for (const auto& [name, tensor] : drawn) named.push_back({name, tensor});
        write_safetensors(folder.path() / "model.safetensors", named);
    }

    Member forward(Group& group) const {
        TracingBackend on;
        TracingGroup counted(group, on);
        const Shard shard = shard_of(config, group.rank(), group.size());
        Transformer model(
            config,
            Checkpoint::open(folder.path()).load(sharded_specs(config, DType::f32, shard), on), on,
            counted);
        model.forward({video, audio, text});
        return {shard, std::move(on.layers), counted.sums};
    }

    std::vector<Member> forward_shared(int size) const {
        auto groups = make_thread_group(size, 60s);
        std::vector<Member> members(groups.size());
        std::vector<std::thread> threads;
        for (std::size_t rank = 0; rank < members.size(); ++rank)
            threads.emplace_back([&, rank] { members[rank] = forward(*groups[rank]); });
        for (std::thread& thread : threads) thread.join();
        return members;
    }

    const TransformerConfig config = one_of_each();
    const TemporaryFolder folder;
    RandomValues random;
    const Tensor video = random.tensor({48, 3, 4, 4});
    const Tensor audio = random.tensor({9, 64});
    const Tensor text = random.tensor({5, 8});
};

TEST_P(ShardOps, GiveEachMemberItsPartOfTheWhole) {
    const Member whole = forward(solo_group());
    ASSERT_EQ(whole.layers.size(), 5U);
    const Index k = config.head_dim;
    for (const Member& member : forward_shared(GetParam())) {
        const Shard& shard = member.shard;
        ASSERT_EQ(member.layers.size(), 5U);
        for (std::size_t i = 0; i < 5; ++i) {
            SCOPED_TRACE(testing::Message() << "member " << shard.rank << ", layer " << i);
            const LayerTrace& own = member.layers[i];
            const LayerTrace& all = whole.layers[i];
            const auto heads = [&](const Tensor& x) {
                return columns(x, shard.first_head * k, shard.heads * k);
            };
            const auto kv_heads = [&](const Tensor& x) {
                return columns(x, shard.first_kv_head * k, shard.kv_heads * k);
            };
            expect_near(floats(own.q), heads(all.q), tolerance);
            expect_near(floats(own.k), kv_heads(all.k), tolerance);
            expect_near(floats(own.v), kv_heads(all.v), tolerance);
            expect_near(floats(own.gated), heads(all.gated), tolerance);
            const auto layer = static_cast<Index>(i);
            const Index held = shard.intermediate(config, layer);
            const Index begin = held * shard.rank;
            const Index filled = std::min(held, config.intermediate(layer) - begin);
            expect_near(columns(own.hidden, 0, filled), columns(all.hidden, begin, filled),
                        tolerance);
            EXPECT_THAT(columns(own.hidden, filled, held - filled), testing::Each(0.0F));
        }
    }
}

TEST_P(ShardOps, AddUpToTheWholesOutputsInTwoSumsALayer) {
    const Member whole = forward(solo_group());
    EXPECT_EQ(whole.sums, 0);
    const std::vector<Member> members = forward_shared(GetParam());
    for (const Member& member : members) EXPECT_EQ(member.sums, 2 * config.num_layers);
    for (std::size_t i = 0; i < 5; ++i) {
        SCOPED_TRACE(testing::Message() << "layer " << i);
        const auto total = [&](Tensor LayerTrace::*part) {
            std::vector<float> sum = floats(members[0].layers[i].*part);
            for (std::size_t rank = 1; rank < members.size(); ++rank) {
                const std::vector<float> more = floats(members[rank].layers[i].*part);
                for (std::size_t at = 0; at < sum.size(); ++at) sum[at] += more[at];
            }
            return sum;
        };
        expect_near(total(&LayerTrace::attended), floats(whole.layers[i].attended), tolerance);
        expect_near(total(&LayerTrace::down), floats(whole.layers[i].down), tolerance);
        for (const Member& member : members) {
            expect_near(floats(member.layers[i].attended_sum), floats(whole.layers[i].attended),
                        tolerance);
            expect_near(floats(member.layers[i].down_sum), floats(whole.layers[i].down), tolerance);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Members, ShardOps, testing::Values(2, 4, 8));

}  // namespace
}  // namespace gallop
