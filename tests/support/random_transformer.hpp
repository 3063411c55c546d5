#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/random.hpp"
#include "model/transformer.hpp"

namespace gallop::test {

/// One layer of each kind: experts with gelu7, shared with swiglu7, frame-local, post-norm, experts with
/// swiglu7. Eight heads over two key/value heads; widths of 340, which eight members cannot share evenly.
inline TransformerConfig one_of_each() {
    TransformerConfig config;
    config.num_layers = 5;
    config.hidden_size = 128;
    config.head_dim = 16;
    config.num_query_groups = 2;
    config.text_in_channels = 8;
    config.mm_layers = {0, 4};
    config.gelu7_layers = {0};
    config.local_attn_layers = {2};
    config.post_norm_layers = {3};
    config.frame_receptive_field = 1;
    return config;
}

/// Random fp32 weights of a network, by name; the same configuration gives the same ones.
inline std::vector<std::pair<std::string, Tensor>> random_weights(const TransformerConfig& config,
                                                                  float scale) {
    std::vector<std::pair<std::string, Tensor>> weights;
    for (const TensorSpec& spec : transformer_specs(config, DType::f32)) {
        if (spec.optional) continue;
        Tensor drawn(spec.shape);
        fill_normal(NoiseStream(1, spec.name), 0, drawn.span<float>());
        for (float& value : drawn.span<float>()) value *= scale;
        weights.emplace_back(spec.name, std::move(drawn));
    }
    return weights;
}

/// A network of such weights.
inline Transformer random_transformer(TransformerConfig config, Backend& on, float scale) {
    Weights weights;
    for (const auto& [name, tensor] : random_weights(config, scale))
        weights.put(name, on.upload(tensor));
    return {std::move(config), std::move(weights), on};
}

}  // namespace gallop::test
