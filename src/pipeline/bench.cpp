#include "pipeline/bench.hpp"

#include <chrono>
#include <cmath>

#include "model/fp8.hpp"
#include "model/shard.hpp"

namespace gallop {
namespace {

Tensor normals(std::string_view name, const Shape& shape, float scale, Backend& on) {
    Tensor made = on.empty(shape);
    on.normal(NoiseStream(1, name), 0, made);
    const std::array<Term, 1> scaled{{{scale, made}}};
    on.combine(scaled, made);
    return made;
}

}  // namespace

double forward_flop(const TransformerConfig& c, const SequenceShape& shape) {
    const auto tokens = static_cast<double>(shape.tokens());
    const auto width = static_cast<double>(c.hidden_size);
    double per_token = 0;
    double attention = 0;
    for (Index layer = 0; layer < c.num_layers; ++layer) {
        const auto inner = static_cast<double>(c.intermediate(layer));
        const double up = c.is_gelu7(layer) ? inner : 2 * inner;
        per_token += width * (static_cast<double>(c.qkv_rows()) + width + up + inner);
        double pairs = tokens * tokens;
        if (c.is_local(layer)) {
            const auto rest = static_cast<double>(shape.audio + shape.text);
            const auto frame = static_cast<double>(shape.per_frame());
            pairs = rest * tokens + static_cast<double>(shape.video()) * rest;
            for (Index i = 0; i < shape.frames; ++i) {
                const Index low = std::max<Index>(0, i - c.frame_receptive_field);
                const Index high = std::min(shape.frames - 1, i + c.frame_receptive_field);
                pairs += frame * frame * static_cast<double>(high - low + 1);
            }
        }
        attention += 4 * width * pairs;
    }
    const double heads = width * (static_cast<double>(c.video_in_channels * shape.video()) * 2 +
                                  static_cast<double>(c.audio_in_channels * shape.audio) * 2 +
                                  static_cast<double>(c.text_in_channels * shape.text));
    return 2 * (per_token * tokens + heads) + attention;
}

Weights random_weights(const std::vector<TensorSpec>& specs, Backend& on) {
    Weights weights;
    for (const TensorSpec& spec : specs) {
        if (spec.optional) continue;
        const bool matrix = spec.shape.rank() > 1 && spec.shape.numel() > spec.shape[0];
        const double fan_in =
            matrix ? static_cast<double>(spec.shape.numel() / spec.shape[0]) : 100.0;
        const auto scale = static_cast<float>(1.0 / std::sqrt(fan_in));
        if (spec.conv) {
            weights.put(spec.name,
                        on.prepare_conv(on.download(normals(spec.name, spec.shape, scale, on)),
                                        spec.dtype));
            continue;
        }
        Tensor values = normals(spec.name, spec.shape, scale, on);
        if (spec.dtype == DType::f8_e4m3) {
            put_fp8(weights, spec.name, values, on);
            continue;
        }
        if (spec.dtype != DType::f32) {
            Tensor narrow = on.empty(spec.shape, spec.dtype);
            on.copy(values, narrow);
            values = std::move(narrow);
        }
        weights.put(spec.name, std::move(values));
    }
    return weights;
}

std::vector<TensorSpec> bench_specs(const TransformerConfig& config, Precision precision,
                                    Backend& on) {
    const DType dtype = compute_dtype(precision);
    auto table = sharded_specs(config, dtype, shard_of(config, 0, 1, on.matrix_unit(dtype)));
    if (precision == Precision::fp8) choose_fp8(table, config.num_layers, {}, "bench");
    return table;
}

ForwardTiming time_forward(const TransformerConfig& config, const SequenceShape& shape,
                           Precision precision, int repeats, Backend& on,
                           const std::function<void(const ForwardTiming&)>& progress) {
    ForwardTiming timing;
    timing.tokens = shape.tokens();
    timing.gflop = forward_flop(config, shape) * 1e-9;
    for (const TensorSpec& spec : transformer_specs(config, compute_dtype(precision)))
        timing.parameters += spec.optional ? 0 : spec.shape.numel();
    Transformer model(config, random_weights(bench_specs(config, precision, on), on), on);
    const Tensor video = normals(
        "video", {config.video_in_channels / 4, shape.frames, 2 * shape.rows, 2 * shape.columns}, 1,
        on);
    const Tensor audio = normals("audio", {shape.audio, config.audio_in_channels}, 1, on);
    const Tensor text = normals("text", {shape.text, config.text_in_channels}, 1, on);
    for (int i = 0; i <= repeats; ++i) {
        on.synchronize();
        const auto begin = std::chrono::steady_clock::now();
        const Velocity velocity = model.forward({video, audio, text});
        on.synchronize();
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
        CHECK(on.all_finite(velocity.video), "the bench's forward is not finite");
        if (i == 0) continue;
        timing.seconds.push_back(spent.count());
        if (progress) progress(timing);
    }
    return timing;
}

TransformerConfig bench_transformer() {
    TransformerConfig config;
    config.num_layers = 10;
    config.hidden_size = 768;
    config.head_dim = 64;
    config.num_query_groups = 4;
    config.text_in_channels = 768;
    config.mm_layers = {0, 9};
    config.gelu7_layers = {0};
    return config;
}

SequenceShape bench_sequence() { return {7, 8, 14, 26, 190}; }

}  // namespace gallop
