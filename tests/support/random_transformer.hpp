#pragma once

#include <utility>

#include "core/random.hpp"
#include "model/transformer.hpp"

namespace gallop::test {

/// A network of random fp32 weights; the same configuration gives the same ones.
inline Transformer random_transformer(TransformerConfig config, Backend& on, float scale) {
    Weights weights;
    for (const TensorSpec& spec : transformer_specs(config, DType::f32)) {
        if (spec.optional) continue;
        Tensor drawn(spec.shape);
        fill_normal(NoiseStream(1, spec.name), 0, drawn.span<float>());
        for (float& value : drawn.span<float>()) value *= scale;
        weights.put(spec.name, on.upload(drawn));
    }
    return {std::move(config), std::move(weights), on};
}

}  // namespace gallop::test
