#pragma once

#include <vector>

#include "model/checkpoint.hpp"

namespace gallop {

struct TransformerConfig;

/// What one member of a tensor-parallel group holds of each layer: some of the heads and some of
/// the feed-forward layer's columns, of every expert. Everything else it holds whole.
struct Shard {
    Index heads = 0;       ///< query heads held
    Index first_head = 0;  ///< their place among all
    Index kv_heads = 0;    ///< key/value heads held; where there are fewer than members, several
                           ///< members hold the same
    Index first_kv_head = 0;
    int rank = 0;
    int size = 1;
    Index unit = 1;  ///< widths inside a layer are rounded up to its multiples, with zeros

    /// Rows of the fused projection held of one expert: q, k, v, gates, zeros.
    Index qkv_rows(const TransformerConfig& config) const;
    /// Columns of the feed-forward layer held: the same for each member, so the last one's may end
    /// in zeros (13652 does not divide by 8).
    Index intermediate(const TransformerConfig& config, Index layer) const;
};

/// The share of member `rank` of `size`. `unit`: what Backend::matrix_unit gives for the linears; a
/// network that is held whole is rounded up to it, a part of one to 16 at most. Throws InputError when the
/// heads don't divide.
Shard shard_of(const TransformerConfig& config, int rank, int size, Index unit = 1);

/// transformer_specs of one member: shapes as held, and which part of the stored tensors that is.
std::vector<TensorSpec> sharded_specs(const TransformerConfig& config, DType linears,
                                      const Shard& shard);

}  // namespace gallop
