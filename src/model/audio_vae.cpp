#include "model/audio_vae.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>

namespace gallop {
namespace {

/// The dilations of the three residual units of a block.
constexpr std::array<Index, 3> dilations{1, 3, 9};

/// Width at depth i: the first two stages share the first multiplier.
Index width_at(const OobleckConfig& c, std::size_t depth) {
    return c.channels * (depth == 0 ? 1 : c.c_mults[depth - 1]);
}

/// One layer with parameters, by its stored name.
struct Layer {
    enum class Kind { conv, transposed, activation };
    Kind kind;
    std::string name;
    Index in, out, width;
    bool bias = true;
};

void visit_units(const std::string& block, std::size_t first, Index width,
                 const std::function<void(const Layer&)>& visit) {
    for (std::size_t u = 0; u < dilations.size(); ++u) {
        const std::string name = fmt::format("{}.layers.{}.layers.", block, first + u);
        visit({Layer::Kind::activation, name + "0", width, width, 0});
        visit({Layer::Kind::conv, name + "1", width, width, 7});
        visit({Layer::Kind::activation, name + "2", width, width, 0});
        visit({Layer::Kind::conv, name + "3", width, width, 1});
    }
}

/// Calls `visit` for every layer of both halves: the network's table.
void visit_layers(const AudioVaeConfig& config, const std::function<void(const Layer&)>& visit) {
    using Kind = Layer::Kind;
    {
        const OobleckConfig& c = config.encoder;
        const std::size_t depth = c.strides.size();
        visit({Kind::conv, "encoder.layers.0", c.audio_channels, width_at(c, 0), 7});
        for (std::size_t i = 0; i < depth; ++i) {
            const std::string block = fmt::format("encoder.layers.{}", i + 1);
            visit_units(block, 0, width_at(c, i), visit);
            visit({Kind::activation, block + ".layers.3", width_at(c, i), width_at(c, i), 0});
            visit({Kind::conv, block + ".layers.4", width_at(c, i), width_at(c, i + 1),
                   2 * c.strides[i]});
        }
        const Index top = width_at(c, depth);
        visit({Kind::activation, fmt::format("encoder.layers.{}", depth + 1), top, top, 0});
        visit({Kind::conv, fmt::format("encoder.layers.{}", depth + 2), top, c.latent_dim, 3});
    }
    const OobleckConfig& c = config.decoder;
    const std::size_t depth = c.strides.size();
    visit({Kind::conv, "decoder.layers.0", c.latent_dim, width_at(c, depth), 7});
    for (std::size_t i = 0; i < depth; ++i) {
        const std::string block = fmt::format("decoder.layers.{}", i + 1);
        const Index in = width_at(c, depth - i);
        const Index out = width_at(c, depth - i - 1);
        visit({Kind::activation, block + ".layers.0", in, in, 0});
        visit({Kind::transposed, block + ".layers.1", in, out, 2 * c.strides[depth - 1 - i]});
        visit_units(block, 2, out, visit);
    }
    const Index low = width_at(c, 0);
    visit({Kind::activation, fmt::format("decoder.layers.{}", depth + 1), low, low, 0});
    visit({Kind::conv, fmt::format("decoder.layers.{}", depth + 2), low, c.audio_channels, 7,
           /*bias=*/false});
}

bool uses_snake(const AudioVaeConfig& config, const Layer& layer) {
    return layer.name.starts_with("encoder.") ? config.encoder.snake : config.decoder.snake;
}

/// The network's table; `add_weight` adds a layer's kernel of that shape.
template <class AddWeight>
std::vector<TensorSpec> table_of(const AudioVaeConfig& config, const AddWeight& add_weight) {
    std::vector<TensorSpec> table;
    visit_layers(config, [&](const Layer& layer) {
        if (layer.kind == Layer::Kind::activation) {
            if (!uses_snake(config, layer)) return;
            table.push_back({.name = layer.name + ".alpha", .shape = {layer.in}});
            table.push_back({.name = layer.name + ".beta", .shape = {layer.in}});
            return;
        }
        const bool conv = layer.kind == Layer::Kind::conv;
        add_weight(table, layer,
                   {conv ? layer.out : layer.in, conv ? layer.in : layer.out, layer.width});
        if (layer.bias) table.push_back({.name = layer.name + ".bias", .shape = {layer.out}});
    });
    return table;
}

/// One half of the network on one sound. Arrays are [S, C] f32.
class Half {
public:
    Half(const OobleckConfig& config, const Weights& weights, Backend& on)
        : config_(config), weights_(weights), on_(on) {}

    Tensor encode(Tensor x) const {
        x = conv("encoder.layers.0", x, 1, 3);
        const std::size_t depth = config_.strides.size();
        for (std::size_t i = 0; i < depth; ++i) {
            const std::string block = fmt::format("encoder.layers.{}", i + 1);
            x = units(block, 0, std::move(x));
            x = activated(block + ".layers.3", x);
            const Index stride = config_.strides[i];
            x = conv(block + ".layers.4", x, stride, (stride + 1) / 2);
        }
        x = activated(fmt::format("encoder.layers.{}", depth + 1), x);
        return conv(fmt::format("encoder.layers.{}", depth + 2), x, 1, 1);
    }

    Tensor decode(ConstTensorView latent) const {
        Tensor x = conv("decoder.layers.0", latent, 1, 3);
        const std::size_t depth = config_.strides.size();
        for (std::size_t i = 0; i < depth; ++i) {
            const std::string block = fmt::format("decoder.layers.{}", i + 1);
            x = activated(block + ".layers.0", x);
            x = transposed(block + ".layers.1", x, config_.strides[depth - 1 - i]);
            x = units(block, 2, std::move(x));
        }
        x = activated(fmt::format("decoder.layers.{}", depth + 1), x);
        x = conv(fmt::format("decoder.layers.{}", depth + 2), x, 1, 3);
        if (config_.final_tanh) on_.activate(x, Activation::tanh, x);
        return x;
    }

private:
    ConstTensorView bias(const std::string& name) const {
        return weights_.has(name + ".bias") ? weights_[name + ".bias"].view() : ConstTensorView();
    }

    Tensor conv(const std::string& name, ConstTensorView x, Index stride, Index pad,
                Index dilation = 1) const {
        const Tensor& kernel = weights_[name + ".weight"];
        const ConvSpec spec{.stride = {1, 1, stride},
                            .pad_before = {0, 0, pad},
                            .pad_after = {0, 0, pad},
                            .dilation = {1, 1, dilation}};
        const auto row = x.reshape({1, 1, x.size(0), x.size(1)});
        Tensor y = on_.empty(Backend::conv_shape(row.shape(), kernel.shape(), spec));
        on_.conv(row, kernel, bias(name), spec, y);
        y.reshape({y.size(2), y.size(3)});
        return y;
    }

    Tensor transposed(const std::string& name, ConstTensorView x, Index stride) const {
        const Tensor& kernel = weights_[name + ".weight"];
        const Index pad = (stride + 1) / 2;
        Tensor y = on_.empty({(x.size(0) - 1) * stride - 2 * pad + kernel.size(2), kernel.size(1)});
        on_.conv_transpose(x, kernel, bias(name), stride, pad, y);
        return y;
    }

    Tensor activated(const std::string& name, ConstTensorView x) const {
        Tensor y = on_.empty(x.shape());
        if (config_.snake)
            on_.snake(x, weights_[name + ".alpha"], weights_[name + ".beta"], y);
        else
            on_.activate(x, Activation::elu, y);
        return y;
    }

    Tensor units(const std::string& block, std::size_t first, Tensor x) const {
        for (std::size_t u = 0; u < dilations.size(); ++u) {
            const std::string name = fmt::format("{}.layers.{}.layers.", block, first + u);
            Tensor h = activated(name + "0", x);
            h = conv(name + "1", h, 1, 3 * dilations[u], dilations[u]);
            h = activated(name + "2", h);
            h = conv(name + "3", h, 1, 0);
            on_.add(x, h);
        }
        return x;
    }

    const OobleckConfig& config_;
    const Weights& weights_;
    Backend& on_;
};

void transpose(ConstTensorView x, TensorView y, Backend& on) {
    on.permute(x, x.shape(), std::array{1, 0}, y);
}

OobleckConfig read_half(Reader&& in, const char* channels_key, OobleckConfig c) {
    in.ignore_unknown();
    constexpr Range<std::int64_t> width{1, 65536};
    for (const char* key : {channels_key, "channels", "latent_dim", "c_mults", "strides"})
        in.require(key);
    c.audio_channels = in.get(channels_key, c.audio_channels, Range<std::int64_t>{1, 64});
    c.channels = in.get("channels", c.channels, width);
    c.latent_dim = in.get("latent_dim", c.latent_dim, width);
    c.c_mults = in.get_list("c_mults", c.c_mults, Range<std::int64_t>{1, 4096});
    c.strides = in.get_list("strides", c.strides, Range<std::int64_t>{1, 4096});
    if (c.c_mults.empty() || c.c_mults.size() != c.strides.size())
        in.problem("strides", fmt::format("{} strides for {} c_mults (the same number, 1 or more)",
                                          c.strides.size(), c.c_mults.size()));
    // What the library takes for keys that are absent.
    c.snake = in.get("use_snake", false);
    for (const char* key : {"antialias_activation", "use_nearest_upsample"})
        if (in.get(key, false)) in.problem(key, fmt::format("{} is true (not supported)", key));
    return c;
}

/// A child whose surplus keys are let pass.
Reader lenient_child(Reader& in, const char* key) {
    in.ignore_unknown();
    in.require(key);
    return in.child(key);
}

}  // namespace

Index AudioVaeConfig::ratio() const {
    return std::accumulate(encoder.strides.begin(), encoder.strides.end(), Index{1},
                           std::multiplies<>());
}

AudioVaeConfig read_audio_vae(Reader& in) {
    AudioVaeConfig config;
    Reader model = lenient_child(in, "model");
    Reader pretransform = lenient_child(model, "pretransform");
    Reader vae = lenient_child(pretransform, "config");
    Reader encoder = lenient_child(vae, "encoder");
    Reader decoder = lenient_child(vae, "decoder");
    config.encoder = read_half(lenient_child(encoder, "config"), "in_channels", config.encoder);
    Reader decoder_config = lenient_child(decoder, "config");
    config.decoder.final_tanh = decoder_config.get("final_tanh", true);
    config.decoder = read_half(std::move(decoder_config), "out_channels", config.decoder);
    for (Reader* half : {&encoder, &decoder}) {
        const std::string type = half->get("type", "oobleck");
        if (type != "oobleck")
            half->problem("type", fmt::format("an autoencoder of type '{}' (oobleck)", type));
    }
    if (config.encoder.latent_dim != 2 * config.decoder.latent_dim)
        encoder.problem("config",
                        fmt::format("latent_dim is {} ({}, mean and scale of the decoder's "
                                    "{} channels)",
                                    config.encoder.latent_dim, 2 * config.decoder.latent_dim,
                                    config.decoder.latent_dim));
    return config;
}

std::vector<TensorSpec> specs(const AudioVaeConfig& config) {
    return table_of(config, [](std::vector<TensorSpec>& table, const Layer& layer, Shape shape) {
        table.push_back({.name = layer.name + ".weight_g", .shape = {shape[0], 1, 1}});
        table.push_back({.name = layer.name + ".weight_v", .shape = shape});
    });
}

std::vector<TensorSpec> folded_specs(const AudioVaeConfig& config) {
    return table_of(config, [](std::vector<TensorSpec>& table, const Layer& layer, Shape shape) {
        table.push_back({.name = layer.name + ".weight",
                         .shape = shape,
                         .conv = layer.kind == Layer::Kind::conv});
    });
}

Tensor fold_weight_norm(ConstTensorView g, ConstTensorView v) {
    const Index rows = v.size(0);
    CHECK(g.numel() == rows, "{} factors for {} rows", g.numel(), rows);
    const Index n = v.numel() / rows;
    Tensor w(v.shape());
    for (Index r = 0; r < rows; ++r) {
        const float* from = v.data<float>() + r * n;
        double sum = 0.0;
        for (Index i = 0; i < n; ++i) sum += double{from[i]} * from[i];
        const double factor = g.data<float>()[r] / std::sqrt(sum);
        for (Index i = 0; i < n; ++i)
            w.data<float>()[r * n + i] = static_cast<float>(from[i] * factor);
    }
    return w;
}

Tensor sample_posterior(ConstTensorView mean_scale, std::span<const float> noise) {
    const Index rows = mean_scale.size(0);
    const Index n = mean_scale.size(1) / 2;
    Tensor latent({rows, n});
    CHECK(noise.empty() || static_cast<Index>(noise.size()) == rows * n,
          "{} normals for {} latents", noise.size(), rows * n);
    for (Index r = 0; r < rows; ++r) {
        const float* mean = mean_scale.data<float>() + r * 2 * n;
        const float* scale = mean + n;
        for (Index c = 0; c < n; ++c) {
            float value = mean[c];
            if (!noise.empty()) {
                const float softplus = scale[c] > 20.0F ? scale[c] : std::log1p(std::exp(scale[c]));
                value += (softplus + 1e-4F) * noise[static_cast<std::size_t>(r * n + c)];
            }
            latent.data<float>()[r * n + c] = value;
        }
    }
    return latent;
}

Tensor cross_fade(std::span<const Tensor> windows) {
    CHECK(!windows.empty(), "no windows to join");
    const Index length = windows[0].size(0);
    const Index n = windows[0].size(1);
    const Index overlap = length / 2;
    const Index step = length - overlap;
    Tensor joined = Tensor::zeros({(static_cast<Index>(windows.size()) - 1) * step + length, n});
    for (std::size_t w = 0; w < windows.size(); ++w) {
        CHECK(windows[w].shape() == windows[0].shape(), "windows of {} and {}",
              to_string(windows[0].shape()), to_string(windows[w].shape()));
        const float* from = windows[w].data<float>();
        float* to = joined.data<float>() + static_cast<Index>(w) * step * n;
        const Index fade = w == 0 ? 0 : overlap;
        for (Index i = 0; i < fade; ++i) {
            const float old_share = static_cast<float>(overlap - i) / static_cast<float>(overlap);
            const float new_share = static_cast<float>(i) / static_cast<float>(overlap);
            for (Index c = 0; c < n; ++c)
                to[i * n + c] = old_share * to[i * n + c] + new_share * from[i * n + c];
        }
        std::copy(from + fade * n, from + length * n, to + fade * n);
    }
    return joined;
}

Index driving_windows(Index samples, Index window) {
    const Index step = window / 2;
    return samples <= window ? 1 : 1 + (samples - window + step - 1) / step;
}

AudioVae::AudioVae(AudioVaeConfig config, Weights stored, Backend& on)
    : config_(std::move(config)), weights_(std::move(stored)) {
    visit_layers(config_, [&](const Layer& layer) {
        if (layer.kind == Layer::Kind::activation) return;
        Tensor folded;
        {
            const Tensor g = on.download(weights_[layer.name + ".weight_g"]);
            const Tensor v = on.download(weights_[layer.name + ".weight_v"]);
            weights_.put(layer.name + ".weight_v", {});
            folded = fold_weight_norm(g, v);
        }
        weights_.put(layer.name + ".weight", layer.kind == Layer::Kind::conv
                                                 ? on.prepare_conv(folded, DType::f32)
                                                 : on.upload(folded));
    });
}

Tensor AudioVae::encode(ConstTensorView sound, Backend& on) const {
    CHECK(sound.shape().rank() == 2 && sound.size(0) == config_.encoder.audio_channels,
          "a sound of shape {} to encode ([{}, S])", to_string(sound.shape()),
          config_.encoder.audio_channels);
    Tensor x = on.empty({sound.size(1), sound.size(0)});
    transpose(sound, x, on);
    return Half(config_.encoder, weights_, on).encode(std::move(x));
}

Tensor AudioVae::decode(ConstTensorView latent, Backend& on) const {
    CHECK(latent.shape().rank() == 2 && latent.size(0) > 0 &&
              latent.size(1) == config_.decoder.latent_dim,
          "a sound latent of shape {} ([A, {}])", to_string(latent.shape()),
          config_.decoder.latent_dim);
    const Tensor x = Half(config_.decoder, weights_, on).decode(latent);
    Tensor sound = on.empty({x.size(1), x.size(0)});
    transpose(x, sound, on);
    return sound;
}

Tensor AudioVae::encode_driving(ConstTensorView mono, const std::optional<NoiseStream>& posterior,
                                Backend& on, Index window) const {
    const Index samples = mono.numel();
    if (samples < config_.ratio())
        throw_input_error("a driving sound of {} samples (at least {})", samples, config_.ratio());
    const Index channels = config_.encoder.audio_channels;
    std::uint64_t drawn = 0;
    const auto encode_window = [&](Index begin, Index length) {
        Tensor sound = Tensor::zeros({channels, length});
        for (Index c = 0; c < channels; ++c)
            std::copy_n(mono.data<float>() + begin, std::min(length, samples - begin),
                        sound.data<float>() + c * length);
        const Tensor mean_scale = on.download(encode(on.upload(sound), on));
        std::vector<float> noise;
        if (posterior) {
            noise.resize(static_cast<std::size_t>(mean_scale.numel() / 2));
            fill_normal(*posterior, drawn, noise);
            drawn += noise.size();
        }
        return sample_posterior(mean_scale, noise);
    };
    const Index count = driving_windows(samples, window);
    if (count == 1) return encode_window(0, samples);
    std::vector<Tensor> windows;
    for (Index i = 0; i < count; ++i) windows.push_back(encode_window(i * (window / 2), window));
    const Index per_window = windows.front().size(0);
    const Index latents = (samples * per_window + window - 1) / window;
    const Tensor joined = cross_fade(windows);
    const auto kept = joined.rows(0, std::min(latents, joined.size(0)));
    return Tensor::of<float>(kept.shape(), kept.span<float>());
}

}  // namespace gallop
