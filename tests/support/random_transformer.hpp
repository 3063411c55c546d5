#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/random.hpp"
#include "model/transformer.hpp"

namespace gallop::test {

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
