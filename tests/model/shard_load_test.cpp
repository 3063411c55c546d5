// What loading a network or a share of it reads and holds.

#include <algorithm>

#include <gmock/gmock.h>

#include "model/fp8.hpp"
#include "model/shard.hpp"
#include "model/transformer.hpp"
#include "model/weight_loader.hpp"
#include "ops/cpu_backend.hpp"
#include "ops/dry.hpp"
#include "support/expect_near.hpp"
#include "support/random_transformer.hpp"
#include "support/temporary_folder.hpp"

namespace gallop {
using namespace test;
namespace {

/// Rows of 2 KiB and more: half of one is worth a read of its own, an eighth of the shortest is not. An
/// expert and a shared layer.
TransformerConfig wide() {
    TransformerConfig config;
    config.num_layers = 2;
    config.hidden_size = 512;
    config.head_dim = 64;
    config.num_query_groups = 8;
    config.text_in_channels = 8;
    config.mm_layers = {0};
    config.gelu7_layers = {0};
    return config;
}

/// A CPU that counts the host memory through which weights come, too.
class CountedBackend final : public CpuBackend {
public:
    CountedBackend() : CpuBackend(1) {}
    Memory& transfer_memory() override { return transfer_; }
    std::size_t peak() { return dynamic_cast<CountedMemory&>(memory()).use().peak; }
    std::size_t transfer_peak() const { return transfer_.use().peak; }

private:
    PoolMemory transfer_;
};

/// How often each byte of a file was read.
class CountingSource final : public ByteSource {
public:
    CountingSource(ByteSource& source, std::vector<int>& reads) : source_(source), reads_(reads) {}

    void read(std::uint64_t offset, std::span<std::byte> out) override {
        source_.read(offset, out);
        for (std::uint64_t i = offset; i < offset + out.size(); ++i) ++reads_.at(i);
        EXPECT_TRUE(out.size() >= whole_rows || announced(offset, out.size())) << offset;
    }
    void announce(std::uint64_t offset, std::uint64_t bytes) override {
        announced_ = {offset, offset + bytes};
    }
    std::uint64_t size_bound() const override { return source_.size_bound(); }
    bool size_known() const override { return true; }

    std::size_t whole_rows = 0;  ///< shorter reads must be announced with what lies between them

private:
    bool announced(std::uint64_t offset, std::size_t bytes) const {
        return announced_.first <= offset && offset + bytes <= announced_.second;
    }

    ByteSource& source_;
    std::vector<int>& reads_;
    std::pair<std::uint64_t, std::uint64_t> announced_{0, 0};
};

class ShardLoading : public ::testing::Test {
protected:
    ShardLoading() {
        const auto drawn = random_weights(config, 0.1F);
        std::vector<NamedTensor> named;
        for (const auto& [name, tensor] : drawn) named.push_back({name, tensor});
        write_safetensors(folder.path() / "model.safetensors", named);
        checkpoint.emplace(Checkpoint::open(folder.path()));
        reads.resize(std::filesystem::file_size(checkpoint->files()[0]));
    }

    /// Loads one member's share and counts what it reads.
    void load(int rank, int size, DType linears) {
        const auto specs = sharded_specs(config, linears, shard_of(config, rank, size));
        std::vector<LoadJob> jobs;
        for (const TensorSpec& spec : specs)
            if (const StoredTensor* stored = checkpoint->find(spec.name))
                jobs.push_back({&spec, stored});
        std::vector<std::unique_ptr<CountingSource>> counted;
        const auto on = make_cpu_backend(1);
        load_weights(
            jobs, checkpoint->files(),
            [&](ByteSource& source, const StoredTensor& stored) {
                counted.push_back(std::make_unique<CountingSource>(source, reads));
                const bool columns = stored.name.ends_with("proj.weight") &&
                                     !stored.name.ends_with("up_gate_proj.weight");
                if (columns && size > 1)
                    counted.back()->whole_rows = static_cast<std::size_t>(stored.shape[1]) * 4;
                return TensorStream(*counted.back(), stored);
            },
            *on);
    }

    /// The most and the fewest reads of any byte of a tensor.
    std::pair<int, int> reads_of(const StoredTensor& tensor) const {
        const auto begin = reads.begin() + static_cast<std::ptrdiff_t>(tensor.offset);
        const auto [fewest, most] =
            std::minmax_element(begin, begin + static_cast<std::ptrdiff_t>(tensor.bytes));
        return {*fewest, *most};
    }

    const TransformerConfig config = wide();
    const TemporaryFolder folder;
    std::optional<Checkpoint> checkpoint;
    std::vector<int> reads;
};

TEST_F(ShardLoading, OfAWholeNetworkReadsEachByteOnce) {
    for (const DType linears : {DType::f32, DType::bf16}) {
        std::fill(reads.begin(), reads.end(), 0);
        load(0, 1, linears);
        for (const StoredTensor& tensor : checkpoint->tensors())
            EXPECT_EQ(reads_of(tensor), std::pair(1, 1)) << tensor.name;
    }
}

TEST_F(ShardLoading, ByAllMembersReadsEachByteOfALinearOnce) {
    load(0, 2, DType::bf16);
    load(1, 2, DType::bf16);
    for (const StoredTensor& tensor : checkpoint->tensors()) {
        const bool linear = tensor.name.starts_with("block.layers.") && tensor.shape.rank() == 2;
        EXPECT_EQ(reads_of(tensor), linear ? std::pair(1, 1) : std::pair(2, 2)) << tensor.name;
    }
}

// At two members columns are read alone, at eight most come with their rows.
TEST_F(ShardLoading, GivesTheColumnsOfTheWhole) {
    const auto on = make_cpu_backend(1);
    const Weights whole =
        checkpoint->load(sharded_specs(config, DType::f32, shard_of(config, 0, 1)), *on);
    for (const int size : {2, 8}) {
        const Shard shard = shard_of(config, size - 1, size);
        const Weights share = checkpoint->load(sharded_specs(config, DType::f32, shard), *on);
        for (const Index layer : {0, 1}) {
            const auto expect_columns = [&](std::string_view name, Index begin, Index held) {
                const std::string full = fmt::format("block.layers.{}.{}", layer, name);
                const Tensor &part = share[full], &all = whole[full];
                const Index filled = std::min(held, all.size(1) - begin);
                ASSERT_EQ(part.shape(), Shape({all.size(0), held})) << full;
                std::vector<float> expected;
                for (Index row = 0; row < all.size(0); ++row) {
                    const float* from = all.data<float>() + row * all.size(1) + begin;
                    expected.insert(expected.end(), from, from + filled);
                    expected.insert(expected.end(), static_cast<std::size_t>(held - filled), 0.0F);
                }
                EXPECT_EQ(floats(part), expected) << full << ", " << size << " members";
            };
            const Index held = shard.intermediate(config, layer);
            expect_columns("mlp.down_proj.weight", held * shard.rank, held);
            expect_columns("attention.linear_proj.weight", shard.first_head * config.head_dim,
                           shard.heads * config.head_dim);
        }
    }
}

/// A piece on its way: 2^19 elements of f32.
constexpr std::size_t piece = std::size_t{2} << 20;

TEST_F(ShardLoading, NeverHoldsMoreThanTheShareAndFourPieces) {
    for (const int size : {1, 2, 8}) {
        CountedBackend on;
        const auto specs = sharded_specs(config, DType::f32, shard_of(config, size - 1, size));
        const Weights share = checkpoint->load(specs, on);
        EXPECT_EQ(on.peak(), share.bytes()) << size;
        EXPECT_GT(on.transfer_peak(), 0U);
        EXPECT_LE(on.transfer_peak(), 4 * piece) << size;
    }
}

TEST_F(ShardLoading, HoldsOnePieceBesideAShareInE4M3OnTheDevice) {
    for (const int size : {1, 2, 8}) {
        const auto on = make_dry_backend();
        auto specs = sharded_specs(config, DType::bf16, shard_of(config, size - 1, size));
        choose_fp8(specs, config.num_layers, {.layers = "all"}, "net");
        const Weights share = checkpoint->load(specs, *on);
        EXPECT_TRUE(size > 1 || on->counted().use().peak > share.bytes()) << "no piece is counted";
        EXPECT_LE(on->counted().use().peak, share.bytes() + piece) << size;
    }
}

}  // namespace
}  // namespace gallop
