#include "model/transformer.hpp"

#include <algorithm>
#include <cmath>

#include "model/fp8.hpp"

namespace gallop {
namespace {

bool contains(const std::vector<Index>& list, Index value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

std::string layer_name(Index layer, std::string_view rest) {
    return fmt::format("block.layers.{}.{}", layer, rest);
}

}  // namespace

bool TransformerConfig::is_mm(Index layer) const { return contains(mm_layers, layer); }
bool TransformerConfig::is_local(Index layer) const { return contains(local_attn_layers, layer); }
bool TransformerConfig::is_gelu7(Index layer) const { return contains(gelu7_layers, layer); }
bool TransformerConfig::is_post_norm(Index layer) const {
    return contains(post_norm_layers, layer);
}

Index TransformerConfig::intermediate(Index layer) const {
    return is_gelu7(layer) ? 4 * hidden_size : hidden_size * 8 / 3 / 4 * 4;
}

TransformerConfig read_transformer_config(Reader& in, const TransformerConfig& defaults) {
    TransformerConfig c = defaults;
    const Range<Index> extent{1, 1 << 20};
    c.num_layers = in.get("num_layers", c.num_layers, Range<Index>{1, 4096});
    c.hidden_size = in.get("hidden_size", c.hidden_size, extent);
    c.head_dim = in.get("head_dim", c.head_dim, Range<Index>{8, 4096});
    c.num_query_groups = in.get("num_query_groups", c.num_query_groups, extent);
    c.video_in_channels = in.get("video_in_channels", c.video_in_channels, extent);
    c.audio_in_channels = in.get("audio_in_channels", c.audio_in_channels, extent);
    c.text_in_channels = in.get("text_in_channels", c.text_in_channels, extent);
    const Range<Index> layers{0, c.num_layers - 1};
    c.mm_layers = in.get_list("mm_layers", c.mm_layers, layers);
    c.local_attn_layers = in.get_list("local_attn_layers", c.local_attn_layers, layers);
    c.gelu7_layers = in.get_list("gelu7_layers", c.gelu7_layers, layers);
    c.post_norm_layers = in.get_list("post_norm_layers", c.post_norm_layers, layers);
    c.enable_attn_gating = in.get("enable_attn_gating", c.enable_attn_gating);
    c.coords_style = coords_style_of(
        in.choice("coords_style", c.coords_style == CoordsStyle::v1 ? "v1" : "v2", {"v1", "v2"}));
    c.frame_receptive_field =
        in.get("frame_receptive_field", c.frame_receptive_field, Range<Index>{0, 1 << 20});
    if (c.head_dim % 8 != 0)
        in.problem("head_dim", fmt::format("head_dim is {} (a multiple of 8)", c.head_dim));
    if (c.hidden_size % c.head_dim != 0)
        in.problem("hidden_size", fmt::format("hidden_size is {} (a multiple of head_dim, {})",
                                              c.hidden_size, c.head_dim));
    else if (c.heads() % c.num_query_groups != 0)
        in.problem("num_query_groups",
                   fmt::format("num_query_groups is {} (a divisor of the {} heads)",
                               c.num_query_groups, c.heads()));
    if (c.video_in_channels % 4 != 0)
        in.problem("video_in_channels", fmt::format("video_in_channels is {} (a multiple of 4, for "
                                                    "2×2 patches)",
                                                    c.video_in_channels));
    return c;
}

std::vector<TensorSpec> transformer_specs(const TransformerConfig& c, DType linears) {
    std::vector<TensorSpec> table;
    const auto f32 = [&](std::string name, Shape shape, bool optional = false) {
        table.push_back({.name = std::move(name), .shape = shape, .optional = optional});
    };
    const auto linear = [&](std::string name, Shape shape) {
        table.push_back({.name = std::move(name), .shape = shape, .dtype = linears});
    };
    const Index d = c.hidden_size;
    const auto embedder = [&](std::string_view modality, Index channels) {
        f32(fmt::format("adapter.{}_embedder.weight", modality), {d, channels});
        f32(fmt::format("adapter.{}_embedder.bias", modality), {d});
    };
    embedder("video", c.video_in_channels);
    embedder("text", c.text_in_channels);
    embedder("audio", c.audio_in_channels);
    f32("adapter.rope.bands", {c.bands()}, true);
    for (Index i = 0; i < c.num_layers; ++i) {
        const Index e = c.experts(i);
        const Index inner = c.intermediate(i);
        f32(layer_name(i, "attention.pre_norm.weight"), {e * d});
        linear(layer_name(i, "attention.linear_qkv.weight"), {e * c.qkv_rows(), d});
        f32(layer_name(i, "attention.q_norm.weight"), {e * c.head_dim});
        f32(layer_name(i, "attention.k_norm.weight"), {e * c.head_dim});
        linear(layer_name(i, "attention.linear_proj.weight"), {e * d, d});
        f32(layer_name(i, "mlp.pre_norm.weight"), {e * d});
        linear(layer_name(i, "mlp.up_gate_proj.weight"),
               {e * (c.is_gelu7(i) ? inner : 2 * inner), d});
        linear(layer_name(i, "mlp.down_proj.weight"), {e * d, inner});
        if (c.is_post_norm(i)) {
            f32(layer_name(i, "attn_post_norm.weight"), {e * d});
            f32(layer_name(i, "mlp_post_norm.weight"), {e * d});
        }
    }
    f32("final_norm_video.weight", {d});
    f32("final_norm_audio.weight", {d});
    f32("final_linear_video.weight", {c.video_in_channels, d});
    f32("final_linear_audio.weight", {c.audio_in_channels, d});
    return table;
}

/// What every layer of one forward shares.
struct Transformer::Sequence {
    SequenceShape shape;
    std::array<Index, 3> by_modality;
    std::array<Index, 1> together;
    const Tensor& rope;

    Segments segments(bool mm) const { return mm ? Segments(by_modality) : Segments(together); }
};

Transformer::Transformer(TransformerConfig config, Weights weights, Backend& on)
    : Transformer(std::move(config), std::move(weights), on, solo_group()) {}

Transformer::Transformer(TransformerConfig config, Weights weights, Backend& on, Group& group)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      on_(on),
      group_(group),
      shard_(shard_of(config_, group.rank(), group.size())),
      precision_(weights_[layer_name(0, "attention.linear_qkv.weight")].dtype() == DType::f32
                     ? DType::f32
                     : DType::bf16) {
    if (weights_.has("adapter.rope.bands")) {
        const Tensor bands = on_.download(weights_["adapter.rope.bands"]);
        const auto values = bands.span<float>();
        bands_.assign(values.begin(), values.end());
    } else {
        for (Index i = 0; i < config_.bands(); ++i)
            bands_.push_back(static_cast<float>(
                std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(config_.bands()))));
    }
}

const Tensor& Transformer::rope_of(const SequenceShape& shape) {
    const auto found = std::find_if(ropes_.begin(), ropes_.end(),
                                    [&](const auto& entry) { return entry.first == shape; });
    if (found != ropes_.end()) {
        // The newest again: a stage's own tables must not put one another out.
        std::rotate(found, found + 1, ropes_.end());
        return ropes_.back().second;
    }
    prepare(shape, on_.upload(rope_table(token_coordinates(shape, config_.coords_style), bands_)));
    return ropes_.back().second;
}

void Transformer::prepare(const SequenceShape& shape, Tensor rope) {
    if (ropes_.size() >= 4) ropes_.erase(ropes_.begin());
    ropes_.emplace_back(shape, std::move(rope));
}

Velocity Transformer::forward(const TransformerInput& input,
                              const std::function<void(Index, ConstTensorView)>& watch) {
    const TransformerConfig& c = config_;
    CHECK(input.video.shape().rank() == 4 && input.video.size(0) * 4 == c.video_in_channels,
          "video latent of shape {} for {} input channels", to_string(input.video.shape()),
          c.video_in_channels);
    CHECK(input.audio.shape().rank() == 2 && input.audio.size(1) == c.audio_in_channels,
          "audio latent of shape {} for {} channels", to_string(input.audio.shape()),
          c.audio_in_channels);
    CHECK(input.text.shape().rank() == 2 && input.text.size(1) == c.text_in_channels,
          "text features of shape {} for {} channels", to_string(input.text.shape()),
          c.text_in_channels);
    const SequenceShape shape{input.video.size(1), input.video.size(2) / 2, input.video.size(3) / 2,
                              input.audio.size(0), input.text.size(0)};
    const Index video = shape.video();
    const Index text_begin = video + shape.audio;

    Tensor x = on_.empty({shape.tokens(), c.hidden_size});  // the residual, always f32
    const Tensor patches = patchify(input.video, on_);
    const auto embed = [&](std::string_view modality, ConstTensorView from, Index begin,
                           Index end) {
        if (begin == end) return;
        on_.project(from, weights_[fmt::format("adapter.{}_embedder.weight", modality)],
                    weights_[fmt::format("adapter.{}_embedder.bias", modality)],
                    x.rows(begin, end));
    };
    embed("video", patches, 0, video);
    embed("audio", input.audio, video, text_begin);
    embed("text", input.text, text_begin, shape.tokens());

    const Sequence sequence{
        shape, {video, shape.audio, shape.text}, {shape.tokens()}, rope_of(shape)};
    if (watch) watch(-1, x);
    for (Index layer = 0; layer < c.num_layers; ++layer) {
        attention_block(layer, sequence, x);
        mlp_block(layer, sequence, x);
        if (watch) watch(layer, x);
    }

    const auto head = [&](std::string_view modality, Index begin, Index end, Index channels) {
        Tensor normed = on_.empty({end - begin, c.hidden_size});
        Tensor out = on_.empty({end - begin, channels});
        if (begin == end) return out;
        on_.norm(x.rows(begin, end), weights_[fmt::format("final_norm_{}.weight", modality)], {},
                 {}, normed);
        on_.project(normed, weights_[fmt::format("final_linear_{}.weight", modality)], {}, out);
        return out;
    };
    const Tensor video_out = head("video", 0, video, c.video_in_channels);
    Velocity velocity;
    velocity.audio = head("audio", video, text_begin, c.audio_in_channels);
    velocity.video = unpatchify(video_out, shape, on_);
    return velocity;
}

void Transformer::attention_block(Index layer, const Sequence& sequence, TensorView x) {
    const TransformerConfig& c = config_;
    const Segments segments = sequence.segments(c.is_mm(layer));
    const Index s = sequence.shape.tokens();
    const auto weight = [&](std::string_view name) -> const Tensor& {
        return weights_[layer_name(layer, name)];
    };
    const Index heads = shard_.heads;
    const Index kv_heads = shard_.kv_heads;
    const std::string qkv = layer_name(layer, "attention.linear_qkv.weight");
    Tensor fused = on_.empty({s, made_by(qkv, segments)}, precision_);
    multiply_normed(x, weight("attention.pre_norm.weight"), weights_, qkv, segments, precision_,
                    fused, on_);
    Tensor mixed = on_.empty({s, heads, c.head_dim}, precision_);
    {
        Tensor q = on_.empty({s, heads, c.head_dim}, precision_);
        Tensor k = on_.empty({s, kv_heads, c.head_dim}, precision_);
        Tensor v = on_.empty({s, kv_heads, c.head_dim}, precision_);
        on_.split_qkv(fused, weight("attention.q_norm.weight"), weight("attention.k_norm.weight"),
                      {}, segments, sequence.rope, q, k, v);
        AttentionMask mask;
        if (c.is_local(layer))
            mask = {AttentionMask::Kind::frames, sequence.shape.frames, sequence.shape.per_frame(),
                    c.frame_receptive_field};
        const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
        on_.attention(q, k, v, mask, scale, 0.0F, mixed);
    }
    if (c.enable_attn_gating) on_.gate_heads(mixed, fused, (heads + 2 * kv_heads) * c.head_dim);
    const ConstTensorView attended = mixed.view().reshape({s, heads * c.head_dim});
    const std::string proj = layer_name(layer, "attention.linear_proj.weight");
    if (adds_itself(layer, proj))
        return multiply_and_add(attended, weights_, proj, segments, x, on_);
    const Tensor out = summed_linear(attended, proj, segments);
    if (c.is_post_norm(layer)) {
        Tensor normed = on_.empty(out.shape(), precision_);
        on_.norm(out, weight("attn_post_norm.weight"), {}, segments, normed);
        on_.add(x, normed);
    } else {
        on_.add(x, out);
    }
}

void Transformer::mlp_block(Index layer, const Sequence& sequence, TensorView x) {
    const TransformerConfig& c = config_;
    const Segments segments = sequence.segments(c.is_mm(layer));
    const Index s = sequence.shape.tokens();
    const bool gelu7 = c.is_gelu7(layer);
    const auto weight = [&](std::string_view name) -> const Tensor& {
        return weights_[layer_name(layer, name)];
    };
    const std::string up_name = layer_name(layer, "mlp.up_gate_proj.weight");
    const Index up_width = made_by(up_name, segments);
    Tensor hidden = on_.empty({s, gelu7 ? up_width : up_width / 2}, precision_);
    {
        Tensor up = on_.empty({s, up_width}, precision_);
        multiply_normed(x, weight("mlp.pre_norm.weight"), weights_, up_name, segments, precision_,
                        up, on_);
        if (gelu7)
            on_.gelu7(up, hidden);
        else
            on_.swiglu7(up, hidden);
    }
    const std::string down = layer_name(layer, "mlp.down_proj.weight");
    if (adds_itself(layer, down)) return multiply_and_add(hidden, weights_, down, segments, x, on_);
    const Tensor out = summed_linear(hidden, down, segments);
    if (c.is_post_norm(layer)) {
        Tensor normed = on_.empty(out.shape());  // f32: the reference widens before this norm
        on_.norm(out, weight("mlp_post_norm.weight"), {}, segments, normed);
        on_.add(x, normed);
    } else {
        on_.add(x, out);
    }
}

Tensor Transformer::summed_linear(ConstTensorView x, const std::string& name, Segments segments) {
    const Shape shape{x.size(0), config_.hidden_size};
    Tensor out = on_.empty(shape, precision_);
    if (group_.size() == 1) {
        multiply(x, weights_, name, segments, out, on_);
        return out;
    }
    Tensor partial = on_.empty(shape);
    multiply(x, weights_, name, segments, partial, on_);
    group_.sum(partial);
    if (precision_ == DType::f32) return partial;
    on_.copy(partial, out);
    return out;
}

bool Transformer::adds_itself(Index layer, const std::string& name) const {
    return weights_[name].dtype() == DType::f8_e4m3 && group_.size() == 1 &&
           !config_.is_post_norm(layer);
}

Index Transformer::made_by(const std::string& name, Segments segments) const {
    return weights_[name].size(0) / static_cast<Index>(segments.size());
}

}  // namespace gallop
