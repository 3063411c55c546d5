#include "model/shard.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "model/transformer.hpp"

namespace gallop {
namespace {

/// Columns of the feed-forward layer come in runs of this many: what tensor cores like, and even,
/// so that a gated pair is never cut.
constexpr Index column_unit = 16;

Index rounded_up(Index value, Index unit) { return (value + unit - 1) / unit * unit; }

/// Cuts a table's linear layers for one member.
class Cutter {
public:
    Cutter(const TransformerConfig& config, const Shard& shard) : config_(config), shard_(shard) {}

    void cut(Index layer, std::string_view name, TensorSpec& spec) const {
        const Index experts = config_.experts(layer);
        if (name == "attention.linear_qkv.weight") return cut_qkv(experts, spec);
        if (name == "attention.linear_proj.weight")
            return cut_columns(shard_.first_head * config_.head_dim,
                               shard_.heads * config_.head_dim, shard_.heads * config_.head_dim,
                               spec);
        const Index held = shard_.intermediate(config_, layer);
        const Index begin = std::min(held * shard_.rank, config_.intermediate(layer));
        const Index filled = std::min(held, config_.intermediate(layer) - begin);
        if (name == "mlp.down_proj.weight") return cut_columns(begin, filled, held, spec);
        if (name == "mlp.up_gate_proj.weight") {
            // Gate and up rows alternate, so a range of columns is a range of pairs.
            const Index rows = config_.is_gelu7(layer) ? 1 : 2;
            Slice slice{spec.shape, {}, 0};
            for (Index e = 0; e < experts; ++e)
                slice.rows.push_back({e * config_.intermediate(layer) * rows + begin * rows,
                                      filled * rows, e * held * rows});
            spec.shape = {experts * held * rows, spec.shape[1]};
            spec.slice = std::move(slice);
        }
    }

private:
    void cut_qkv(Index experts, TensorSpec& spec) const {
        const Index k = config_.head_dim;
        const Index q_rows = config_.heads() * k;
        const Index kv_rows = config_.num_query_groups * k;
        const Index held = shard_.qkv_rows(config_);
        Slice slice{spec.shape, {}, 0};
        for (Index e = 0; e < experts; ++e) {
            const Index from = e * config_.qkv_rows();
            Index to = e * held;
            const auto keep = [&](Index first, Index rows) {
                slice.rows.push_back({from + first, rows, to});
                to += rows;
            };
            keep(shard_.first_head * k, shard_.heads * k);
            keep(q_rows + shard_.first_kv_head * k, shard_.kv_heads * k);
            keep(q_rows + kv_rows + shard_.first_kv_head * k, shard_.kv_heads * k);
            if (config_.enable_attn_gating)
                keep(q_rows + 2 * kv_rows + shard_.first_head, shard_.heads);
        }
        spec.shape = {experts * held, spec.shape[1]};
        spec.slice = std::move(slice);
    }

    static void cut_columns(Index begin, Index filled, Index held, TensorSpec& spec) {
        Slice slice{spec.shape, {{0, spec.shape[0], 0}}, begin, filled};
        spec.shape = {spec.shape[0], held};
        spec.slice = std::move(slice);
    }

    const TransformerConfig& config_;
    const Shard& shard_;
};

}  // namespace

Index Shard::qkv_rows(const TransformerConfig& config) const {
    return rounded_up(
        (heads + 2 * kv_heads) * config.head_dim + (config.enable_attn_gating ? heads : 0), unit);
}

Index Shard::intermediate(const TransformerConfig& config, Index layer) const {
    const Index all = config.intermediate(layer);
    if (size == 1) return rounded_up(all, unit);
    return rounded_up((all + size - 1) / size, column_unit);
}

Shard shard_of(const TransformerConfig& config, int rank, int size, Index unit) {
    CHECK(0 <= rank && rank < size, "member {} of {}", rank, size);
    const Index heads = config.heads();
    const Index kv_heads = config.num_query_groups;
    if (heads % size != 0 || (kv_heads % size != 0 && size % kv_heads != 0))
        throw_input_error(
            "{} heads and {} key/value heads cannot be split over {} renderers (each must divide)",
            heads, kv_heads, size);
    Shard shard;
    shard.rank = rank;
    shard.size = size;
    shard.unit = size == 1 ? unit : std::min(unit, column_unit);
    shard.heads = heads / size;
    shard.first_head = shard.heads * rank;
    shard.kv_heads = std::max<Index>(kv_heads / size, 1);
    shard.first_kv_head = shard.first_head / (heads / kv_heads);
    return shard;
}

std::vector<TensorSpec> sharded_specs(const TransformerConfig& config, DType linears,
                                      const Shard& shard) {
    std::vector<TensorSpec> table = transformer_specs(config, linears);
    if (shard.size == 1 && shard.unit == 1) return table;
    const Cutter cutter(config, shard);
    for (TensorSpec& spec : table) {
        constexpr std::string_view layers = "block.layers.";
        if (!spec.name.starts_with(layers)) continue;
        const std::size_t dot = spec.name.find('.', layers.size());
        const Index layer = std::stoll(spec.name.substr(layers.size(), dot - layers.size()));
        const std::string name = spec.name.substr(dot + 1);
        cutter.cut(layer, name, spec);
    }
    return table;
}

}  // namespace gallop
