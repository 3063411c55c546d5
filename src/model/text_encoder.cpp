#include "model/text_encoder.hpp"

#include <array>
#include <cmath>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/reader.hpp"
#include "model/fp8.hpp"

namespace gallop {
namespace {

std::string layer_name(Index layer, std::string_view tensor) {
    return fmt::format("layers.{}.{}.weight", layer, tensor);
}

/// Where the encoder's tensors lie: in the published files, in a saved T5GemmaModel, or alone.
std::string prefix_in(const Checkpoint& checkpoint) {
    for (const char* prefix : {"model.encoder.", "encoder.", ""})
        if (checkpoint.find(std::string(prefix) + "embed_tokens.weight") != nullptr) return prefix;
    return "model.encoder.";
}

void read_layers(Reader& in, TextEncoderConfig& config) {
    constexpr int most_layers = 1000;
    in.require("num_hidden_layers");
    const int layers = in.get("num_hidden_layers", 1, Range{1, most_layers});
    config.sliding = TextEncoderConfig::alternate(layers);
    if (const auto types = in.get_list("layer_types", std::vector<std::string>{}); !types.empty()) {
        if (static_cast<int>(types.size()) != layers)
            in.problem("layer_types",
                       fmt::format("layer_types has {} entries (needs one a layer, {})",
                                   types.size(), layers));
        config.sliding.clear();
        for (const std::string& type : types) {
            if (type != "sliding_attention" && type != "full_attention")
                in.problem("layer_types",
                           fmt::format("layer_types names \"{}\" (must be sliding_attention or "
                                       "full_attention)",
                                       type));
            config.sliding.push_back(type == "sliding_attention");
        }
    }
}

bool is_null(Reader& in, std::string_view key) {
    const Node* node = in.node(key);
    return node != nullptr && node->kind == Node::Kind::null;
}

void read_rope(Reader& in, TextEncoderConfig& config) {
    constexpr Range base{1.0, 1e9};
    config.rope_base = in.get("rope_theta", config.rope_base, base);
    if (in.has("rope_scaling") && !is_null(in, "rope_scaling"))
        in.problem("rope_scaling", "rope_scaling is set (only plain RoPE is known)");
    Reader rope = in.child("rope_parameters");  // transformers 5
    rope.ignore_unknown();
    config.rope_base = rope.get("rope_theta", config.rope_base, base);
    rope.choice("rope_type", "default", {"default"});
}

}  // namespace

std::vector<bool> TextEncoderConfig::alternate(Index layers) {
    std::vector<bool> sliding;
    for (Index layer = 0; layer < layers; ++layer) sliding.push_back(layer % 2 == 0);
    return sliding;
}

TextEncoderConfig read_text_encoder_config(const std::filesystem::path& path) {
    const Node root = parse_json(read_text(path), path.string());
    Reader file(root);
    TextEncoderConfig config = read_text_encoder_config(file);
    file.finish();
    return config;
}

TextEncoderConfig read_text_encoder_config(Reader& file) {
    constexpr Range extent{Index{1}, Index{1} << 20};
    file.ignore_unknown();
    Reader encoder = file.child("encoder");
    Reader& in = file.has("encoder") ? encoder : file;
    in.ignore_unknown();

    TextEncoderConfig config;
    const auto required = [&](std::string_view key, Index& value) {
        in.require(key);
        value = in.get(key, value, extent);
    };
    required("hidden_size", config.width);
    required("num_attention_heads", config.heads);
    required("num_key_value_heads", config.kv_heads);
    required("head_dim", config.head_size);
    required("intermediate_size", config.mlp);
    required("vocab_size", config.vocabulary);
    read_layers(in, config);
    read_rope(in, config);
    config.window =
        is_null(in, "sliding_window") ? 0 : in.get("sliding_window", config.window, extent);
    config.soft_cap = is_null(in, "attn_logit_softcapping")
                          ? 0.0
                          : in.get("attn_logit_softcapping", config.soft_cap, Range{1e-3, 1e6});
    config.query_scalar = in.get("query_pre_attn_scalar", config.query_scalar, Range{1e-3, 1e6});
    config.eps = in.get("rms_norm_eps", config.eps, Range{0.0, 1.0});
    in.choice("hidden_activation", "gelu_pytorch_tanh", {"gelu_pytorch_tanh"});
    if (in.get("attention_bias", false))
        in.problem("attention_bias", "attention_bias is true (must be false)");
    if (config.heads % config.kv_heads != 0)
        in.problem("num_key_value_heads",
                   fmt::format("num_key_value_heads is {} (must divide {} heads)", config.kv_heads,
                               config.heads));
    if (config.head_size % 2 != 0)
        in.problem("head_dim", fmt::format("head_dim is {} (must be even)", config.head_size));
    return config;
}

std::vector<TensorSpec> text_encoder_specs(const TextEncoderConfig& config, DType compute,
                                           bool fp8) {
    CHECK(compute == DType::f32 || compute == DType::bf16, "the text encoder computes in {}",
          name_of(compute));
    const Index q = config.heads * config.head_size;
    const Index kv = config.kv_heads * config.head_size;
    const Index d = config.width;
    std::vector<TensorSpec> specs{
        {.name = "embed_tokens.weight",
         .shape = {config.vocabulary, d},
         .dtype = compute,
         .any_rows = true},
        {.name = "norm.weight", .shape = {d}, .dtype = DType::f32},
    };
    const auto add = [&](Index layer, std::string_view name, const Shape& shape) {
        specs.push_back({.name = layer_name(layer, name),
                         .shape = shape,
                         .dtype = shape.rank() == 1 ? DType::f32
                                  : fp8             ? DType::f8_e4m3
                                                    : compute});
    };
    for (Index layer = 0; layer < config.layers(); ++layer) {
        add(layer, "pre_self_attn_layernorm", {d});
        add(layer, "self_attn.q_proj", {q, d});
        add(layer, "self_attn.k_proj", {kv, d});
        add(layer, "self_attn.v_proj", {kv, d});
        add(layer, "self_attn.o_proj", {d, q});
        add(layer, "post_self_attn_layernorm", {d});
        add(layer, "pre_feedforward_layernorm", {d});
        add(layer, "mlp.gate_proj", {config.mlp, d});
        add(layer, "mlp.up_proj", {config.mlp, d});
        add(layer, "mlp.down_proj", {d, config.mlp});
        add(layer, "post_feedforward_layernorm", {d});
    }
    return specs;
}

void require_text_encoder(const std::filesystem::path& folder, const TextEncoderOptions& options) {
    const TextEncoderConfig config = read_text_encoder_config(folder / "config.json");
    const Checkpoint checkpoint = Checkpoint::open(folder);
    checkpoint.require(text_encoder_specs(config, options.compute, options.fp8),
                       {.prefix = prefix_in(checkpoint)});
}

TextEncoder::TextEncoder(const std::filesystem::path& folder, const TextEncoderOptions& options,
                         Backend& on)
    : TextEncoder(read_text_encoder_config(folder / "config.json"), folder, options, on) {}

TextEncoder::TextEncoder(TextEncoderConfig config, const std::filesystem::path& weights,
                         const TextEncoderOptions& options, Backend& on)
    : config_(std::move(config)), options_(options), on_(&on) {
    const Checkpoint checkpoint = Checkpoint::open(weights);
    weights_ = checkpoint.load(text_encoder_specs(config_, options.compute, options.fp8), on,
                               {.prefix = prefix_in(checkpoint)});
}

TextEncoder::TextEncoder(TextEncoderConfig config, Weights weights,
                         const TextEncoderOptions& options, Backend& on)
    : config_(std::move(config)), options_(options), weights_(std::move(weights)), on_(&on) {}

/// What one forward pass needs besides the weights; all in the compute dtype.
struct TextEncoder::Scratch {
    Tensor x;              ///< [L, D] residual
    Tensor y, z;           ///< [L, D]
    Tensor q, attended;    ///< [L, H, K]
    Tensor k, v;           ///< [L, G, K]
    Tensor gate, up, act;  ///< [L, mlp]
};

Tensor TextEncoder::rope(Index tokens) const {
    const Index half = config_.head_size / 2;
    // Frequency and angle are singles in the reference; of large angles every bit counts.
    std::vector<float> frequencies;
    for (Index i = 0; i < half; ++i) {
        const float share = static_cast<float>(2 * i) / static_cast<float>(config_.head_size);
        frequencies.push_back(1.0F / std::pow(static_cast<float>(config_.rope_base), share));
    }
    Tensor table({tokens, 2 * half});
    auto* row = table.data<float>();
    for (Index l = 0; l < tokens; ++l, row += 2 * half)
        for (Index i = 0; i < half; ++i) {
            const float angle = static_cast<float>(l) * frequencies[static_cast<std::size_t>(i)];
            row[i] = std::sin(angle);
            row[half + i] = std::cos(angle);
        }
    if (options_.compute == DType::bf16)
        for (float& value : table.span<float>()) value = to_float(to_bf16(value));
    return on_->upload(table);
}

void TextEncoder::norm(ConstTensorView x, const std::string& name, TensorView y) const {
    on_->norm(x, weights_[name], {.eps = static_cast<float>(config_.eps)}, {}, y);
}

void TextEncoder::linear(ConstTensorView x, const std::string& name, TensorView y) const {
    const std::array<Index, 1> all{x.size(0)};
    multiply(x, weights_, name, all, y, *on_);
}

// x ← x + norm(attention(norm(x)))
void TextEncoder::attend(Index layer, const Tensor& rope, Scratch& s) const {
    const Index tokens = s.x.size(0);
    const bool round_products = options_.compute == DType::bf16;
    const auto flat = [&](Tensor& heads) {
        return heads.view().reshape({tokens, heads.numel() / tokens});
    };

    norm(s.x, layer_name(layer, "pre_self_attn_layernorm"), s.y);
    linear(s.y, layer_name(layer, "self_attn.q_proj"), flat(s.q));
    linear(s.y, layer_name(layer, "self_attn.k_proj"), flat(s.k));
    linear(s.y, layer_name(layer, "self_attn.v_proj"), flat(s.v));
    on_->rotate(s.q, rope, round_products);
    on_->rotate(s.k, rope, round_products);
    AttentionMask mask;
    if (config_.sliding[static_cast<std::size_t>(layer)] && config_.window > 0 &&
        config_.window < tokens)
        mask = {.kind = AttentionMask::Kind::window, .radius = config_.window};
    on_->attention(s.q, s.k, s.v, mask, static_cast<float>(1.0 / std::sqrt(config_.query_scalar)),
                   options_.soft_cap ? static_cast<float>(config_.soft_cap) : 0.0F, s.attended);
    linear(flat(s.attended), layer_name(layer, "self_attn.o_proj"), s.y);
    norm(s.y, layer_name(layer, "post_self_attn_layernorm"), s.z);
    on_->add(s.x, s.z);
}

// x ← x + norm(down(gelu(gate(norm(x))) · up(norm(x))))
void TextEncoder::feed_forward(Index layer, Scratch& s) const {
    norm(s.x, layer_name(layer, "pre_feedforward_layernorm"), s.y);
    linear(s.y, layer_name(layer, "mlp.gate_proj"), s.gate);
    linear(s.y, layer_name(layer, "mlp.up_proj"), s.up);
    on_->geglu(s.gate, s.up, options_.compute == DType::bf16, s.act);
    linear(s.act, layer_name(layer, "mlp.down_proj"), s.y);
    norm(s.y, layer_name(layer, "post_feedforward_layernorm"), s.z);
    on_->add(s.x, s.z);
}

Tensor TextEncoder::encode(std::span<const std::int32_t> ids) const {
    const Tensor& table = weights_["embed_tokens.weight"];
    if (ids.empty()) throw_input_error("the text has no tokens (needs at least one)");
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= table.size(0))
            throw_input_error(
                "token {} has id {} (the embedding table has {} rows); does the "
                "tokenizer belong to these weights?",
                i, ids[i], table.size(0));

    const auto tokens = static_cast<Index>(ids.size());
    const auto make = [&](Shape shape) { return on_->empty(shape, options_.compute); };
    const auto rows = [&] { return make({tokens, config_.width}); };
    const auto heads = [&](Index count) { return make({tokens, count, config_.head_size}); };
    const auto wide = [&] { return make({tokens, config_.mlp}); };
    Scratch s{.x = rows(),
              .y = rows(),
              .z = rows(),
              .q = heads(config_.heads),
              .attended = heads(config_.heads),
              .k = heads(config_.kv_heads),
              .v = heads(config_.kv_heads),
              .gate = wide(),
              .up = wide(),
              .act = wide()};

    auto scale = static_cast<float>(std::sqrt(static_cast<double>(config_.width)));
    if (options_.compute == DType::bf16) scale = to_float(to_bf16(scale));
    on_->embed(table, ids, scale, s.x);
    const Tensor angles = rope(tokens);
    for (Index layer = 0; layer < config_.layers(); ++layer) {
        attend(layer, angles, s);
        feed_forward(layer, s);
    }
    norm(s.x, "norm.weight", s.y);

    const Tensor hidden = on_->download(s.y);
    Tensor result(hidden.shape());
    convert(hidden, result);
    return result;
}

}  // namespace gallop
