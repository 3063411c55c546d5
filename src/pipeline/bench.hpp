#pragma once

#include <vector>

#include "model/transformer.hpp"

namespace gallop {

/// One network on one sequence, timed.
struct ForwardTiming {
    Index parameters = 0;
    Index tokens = 0;
    double gflop = 0;  ///< of one forward, a multiplication and an addition counted as two
    std::vector<double> seconds;  ///< of each forward, in order, after one that is not counted
};

/// Floating-point operations of one forward: the linears each token meets, and attention.
double forward_flop(const TransformerConfig& config, const SequenceShape& shape);

/// Times `repeats` forwards of a network with random weights on random inputs; waits for the backend
/// after each. `dtype` of the block linears: f32 or bf16.
ForwardTiming time_forward(const TransformerConfig& config, const SequenceShape& shape, DType dtype,
                           int repeats, Backend& on);

/// The network and sequence of `gallop bench cpu`: 89 million parameters, all four kinds of layers,
/// 1,000 tokens (448×256, 1 s, 190 tokens of text).
TransformerConfig bench_transformer();
SequenceShape bench_sequence();

}  // namespace gallop
