#include "model/turbo_vae.hpp"

#include <algorithm>
#include <array>

namespace gallop {
namespace {

/// An up-block as the decoder meets it.
struct UpBlock {
    std::string name;
    Index in, out, layers;
    bool scaling, spatial_only;
};

std::vector<UpBlock> up_blocks(const TurboVaeConfig& config) {
    std::vector<UpBlock> blocks;
    const std::size_t count = config.channels.size();
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t entry = count - 1 - i;
        blocks.push_back({fmt::format("decoder.up_blocks.{}", i),
                          config.channels[std::min(entry + 1, count - 1)], config.channels[entry],
                          config.layers[entry], config.scaling[entry], config.spatial_only[entry]});
    }
    return blocks;
}

/// The up-block at which strips begin: what comes before works on arrays so small that cutting them
/// would save little, and deep in the network each strip needs many rows of its neighbours. Behind
/// the first enlargement, unless nothing is enlarged after it.
std::size_t first_of_tail(const TurboVaeConfig& config) {
    const auto blocks = up_blocks(config);
    const auto scaling = [](const UpBlock& block) { return block.scaling; };
    const auto first = std::find_if(blocks.begin(), blocks.end(), scaling);
    if (first == blocks.end()) return 0;
    const bool more = std::any_of(first + 1, blocks.end(), scaling);
    return static_cast<std::size_t>(first - blocks.begin()) + (more ? 1 : 0);
}

/// How many rows of the tail's input lie between a row and the farthest that its pixels depend on:
/// a 3×3 convolution looks one row further, an enlargement halves the distance.
Index reach_of_tail(const TurboVaeConfig& config) {
    const auto blocks = up_blocks(config);
    Index reach = 1;                                      // conv_out
    if (!config.unpatchify) reach = (reach + 1) / 2 + 1;  // the shuffle, and the convolution before
    for (std::size_t i = blocks.size(); i-- > first_of_tail(config);) {
        reach += 2 * blocks[i].layers;
        if (blocks[i].scaling) reach = (reach + 1 + 1) / 2;
        if (blocks[i].in != blocks[i].out) reach += 2;
    }
    return reach;
}

void add_resnet(std::vector<TensorSpec>& table, const std::string& name, Index in, Index out,
                DType dtype) {
    add_conv(table, name + ".conv1.conv", {out, in, 3, 3, 3}, dtype);
    add_conv(table, name + ".conv2.conv", {out, out, 3, 3, 3}, dtype);
    if (in != out) add_conv(table, name + ".conv_shortcut.conv", {out, in, 1, 1, 1}, dtype);
}

/// One call of the decoder on one stretch of latent frames.
class Decoder {
public:
    Decoder(const TurboVaeConfig& config, const VideoLayers& layers)
        : config_(config), layers_(layers), on_(layers.on()) {}

    /// z: [T, Y, X, 48] → what `conv_out` gives, frames begin … end−1 cut to those kept, as
    /// pictures.
    void run(ConstTensorView z, bool first_chunk, Index drop_front, Index drop_back, Index strips,
             const PictureSink& sink) const {
        Tensor h = layers_.conv("decoder.conv_in.conv", repeated_ends(z), around);
        for (Index i = 0; i < config_.layers.back(); ++i)
            h = resnet(fmt::format("decoder.mid_block.resnets.{}", i), std::move(h),
                       Activation::silu);
        const auto blocks = up_blocks(config_);
        const std::size_t tail = first_of_tail(config_);
        for (std::size_t i = 0; i < tail; ++i) h = enlarging(blocks[i], std::move(h), first_chunk);
        const auto finish = [&](Tensor x) {
            for (std::size_t i = tail; i < blocks.size(); ++i)
                x = enlarging(blocks[i], std::move(x), first_chunk);
            return pictures(std::move(x), drop_front, drop_back);
        };
        if (strips <= 1) return sink(finish(std::move(h)));
        Tensor whole;
        const Index rows = h.size(1);
        for (const Strip& strip : cut(rows, strips, reach_of_tail(config_))) {
            const Tensor part =
                finish(picture_rows(h, strip.begin - strip.above, strip.end + strip.below, on_));
            const Shape& s = part.shape();
            const Index scale = s[1] / (strip.above + strip.end - strip.begin + strip.below);
            const Index line = s[2] * s[3];
            if (!whole.defined()) whole = layers_.empty({s[0], rows * scale, s[2], s[3]});
            const auto from = part.view().reshape({s[0] * s[1], line});
            const auto to = whole.view().reshape({s[0] * rows * scale, line});
            for (Index t = 0; t < s[0]; ++t)
                on_.copy(
                    from.rows(t * s[1] + strip.above * scale, (t + 1) * s[1] - strip.below * scale),
                    to.rows((t * rows + strip.begin) * scale, (t * rows + strip.end) * scale));
        }
        sink(whole);
    }

private:
    static constexpr float eps = 1e-8F;  // of every norm but the shortcuts'

    /// Room for x with one more frame at each end; the caller fills the middle.
    Tensor padded(const Shape& x) const { return layers_.empty({x[0] + 2, x[1], x[2], x[3]}); }
    /// Time is padded by repeating the first and the last frame.
    void repeat_ends(Tensor& x) const {
        const Index frames = x.size(0);
        on_.copy(std::as_const(x).rows(1, 2), x.rows(0, 1));
        on_.copy(std::as_const(x).rows(frames - 2, frames - 1), x.rows(frames - 1, frames));
    }
    Tensor repeated_ends(ConstTensorView x) const {
        Tensor y = padded(x.shape());
        on_.copy(x, y.rows(1, x.size(0) + 1));
        repeat_ends(y);
        return y;
    }
    /// act(norm(x)), ready for a convolution over time. Frees x.
    Tensor normed(Tensor x, Activation activation) const {
        Tensor y = padded(x.shape());
        on_.norm(x, {}, {NormSpec::Kind::rms, eps}, {}, y.rows(1, x.size(0) + 1), activation);
        x = Tensor();
        repeat_ends(y);
        return y;
    }
    /// Frees x.
    Tensor conv3(const std::string& name, Tensor x) const {
        Tensor y = layers_.conv(name, x, around);
        x = Tensor();
        return y;
    }

    Tensor resnet(const std::string& name, Tensor x, Activation first) const {
        Tensor h = padded(x.shape());
        on_.norm(x, {}, {NormSpec::Kind::rms, eps}, {}, h.rows(1, x.size(0) + 1), first);
        repeat_ends(h);
        h = conv3(name + ".conv1.conv", std::move(h));
        h = conv3(name + ".conv2.conv", normed(std::move(h), Activation::silu));
        if (layers_.has(name + ".conv_shortcut.conv")) {
            on_.norm(x, {}, {NormSpec::Kind::rms, config_.shortcut_eps}, {}, x);
            x = layers_.conv(name + ".conv_shortcut.conv", x);
        }
        on_.add(h, x);
        return h;
    }

    /// A whole up-block. Frees x.
    Tensor enlarging(const UpBlock& block, Tensor x, bool first_chunk) const {
        if (block.in != block.out)
            x = resnet(block.name + ".conv_in", std::move(x), Activation::silu);
        if (block.scaling) x = enlarged(block, std::move(x), first_chunk);
        for (Index i = 0; i < block.layers; ++i)
            x = resnet(fmt::format("{}.resnets.{}", block.name, i), std::move(x),
                       block.scaling ? Activation::relu : Activation::silu);
        return x;
    }

    /// What is behind the up-blocks, without the pictures that belong to a neighbour. Frees h.
    Tensor pictures(Tensor h, Index drop_front, Index drop_back) const {
        if (!config_.unpatchify) h = shuffled(std::move(h));
        h = conv3("decoder.conv_out.conv", normed(std::move(h), Activation::silu));
        CHECK(drop_front + drop_back < h.size(0), "dropping {} and {} of {} pictures", drop_front,
              drop_back, h.size(0));
        const auto kept = std::as_const(h).rows(drop_front, h.size(0) - drop_back);
        if (config_.unpatchify) return unfold_pixels(kept, on_);
        if (kept.size(0) == h.size(0)) return h;
        Tensor made = layers_.empty(kept.shape());
        on_.copy(kept, made);
        return made;
    }

    Tensor enlarged(const UpBlock& block, Tensor x, bool first_chunk) const {
        const std::string name = block.name + ".upsamplers.0";
        if (block.spatial_only) return layers_.upsample(name + ".resample.1", x);
        x = layers_.conv(name + ".time_conv.conv", repeated_ends(x));
        x = layers_.interleave_frames(x);
        return layers_.upsample(name + ".resample.1",
                                std::as_const(x).rows(first_chunk ? 1 : 0, x.size(0)));
    }

    /// The learnt alternative to folding: norm, SiLU, a 3×3 convolution, then channel c·4 + iy·2 +
    /// ix becomes channel c of pixel (2y + iy, 2x + ix).
    Tensor shuffled(Tensor x) const {
        on_.norm(x, {}, {NormSpec::Kind::rms, eps}, {}, x, Activation::silu);
        x = layers_.conv("decoder.upsampler2d_1.conv", x, around);
        const Shape s = x.shape();
        Tensor y = layers_.empty({s[0], 2 * s[1], 2 * s[2], s[3] / 4});
        on_.permute(x, {s[0], s[1], s[2], s[3] / 4, 2, 2}, std::array{0, 1, 4, 2, 5, 3}, y);
        return y;
    }

    const TurboVaeConfig& config_;
    const VideoLayers& layers_;
    Backend& on_;
};

}  // namespace

namespace {

/// Absent keys keep the values of `c`; without a list of its own no up-block enlarges in space only.
TurboVaeConfig read_keys(Reader& in, TurboVaeConfig c) {
    in.ignore_unknown();
    constexpr Range<std::int64_t> width{1, 65536};
    c.latent_channels = in.get("latent_channels", c.latent_channels, width);
    if (c.latent_channels != video_latent_channels)
        in.problem("latent_channels", fmt::format("{} latent channels ({}, which the latents' mean "
                                                  "and deviation are known for)",
                                                  c.latent_channels, video_latent_channels));
    c.channels = in.get_list("decoder_block_out_channels", c.channels, width);
    c.layers = in.get_list("decoder_layers_per_block", c.layers, Range<std::int64_t>{0, 1000});
    c.scaling = in.get_list("decoder_spatio_temporal_scaling", c.scaling);
    const std::size_t blocks = c.channels.size();
    if (c.spatial_only.empty()) c.spatial_only.resize(blocks);
    c.spatial_only = in.get_list("decoder_spatio_only", c.spatial_only);
    if (blocks == 0) in.problem("decoder_block_out_channels", "no up-blocks (1 or more)");
    const auto check_length = [&](const char* key, std::size_t have, std::size_t want) {
        if (have != want)
            in.problem(key,
                       fmt::format("{} entries ({}, by decoder_block_out_channels)", have, want));
    };
    check_length("decoder_layers_per_block", c.layers.size(), blocks + 1);
    check_length("decoder_spatio_temporal_scaling", c.scaling.size(), blocks);
    check_length("decoder_spatio_only", c.spatial_only.size(), blocks);
    const auto depthwise = in.get_list("decoder_is_dw_conv", std::vector<bool>{});
    if (std::find(depthwise.begin(), depthwise.end(), true) != depthwise.end())
        in.problem("decoder_is_dw_conv", "depthwise convolutions (none is supported)");
    if (const auto patch = in.get("patch_size", std::int64_t{2}, Range<std::int64_t>{1, 64});
        patch != 2)
        in.problem("patch_size", fmt::format("patches of {} (2)", patch));
    c.unpatchify = in.get("use_unpatchify", c.unpatchify);
    if (!c.unpatchify && blocks > 0 && c.channels.front() % 4 != 0)
        in.problem("decoder_block_out_channels",
                   fmt::format("{} channels last (a multiple of 4 without use_unpatchify)",
                               c.channels.front()));
    c.shortcut_eps = static_cast<float>(
        in.get("resnet_norm_eps", double{c.shortcut_eps}, Range<double>{0.0, 1.0}));
    constexpr Range<std::int64_t> frames{1, 1 << 20};
    c.temporal_ratio = in.get("temporal_compression_ratio", c.temporal_ratio, frames);
    c.first_chunk = in.get("first_chunk_size", c.first_chunk, frames);
    c.step = in.get("step_size", c.step, frames);
    return c;
}

}  // namespace

TurboVaeConfig read_turbo_vae(Reader& in) { return read_keys(in, {}); }

TurboVaeConfig read_turbo_vae_json(Reader& in) {
    // Source: the parameters of the class's constructor.
    return read_keys(in, {.channels = {128, 256, 512, 512},
                          .layers = {4, 3, 3, 3, 4},
                          .scaling = {true, true, true, false},
                          .spatial_only = {},
                          .unpatchify = false,
                          .first_chunk = 3,
                          .step = 5});
}

std::vector<TensorSpec> specs(const TurboVaeConfig& config, DType dtype) {
    std::vector<TensorSpec> table;
    const Index top = config.channels.back();
    add_conv(table, "decoder.conv_in.conv", {top, config.latent_channels, 3, 3, 3}, dtype);
    for (Index i = 0; i < config.layers.back(); ++i)
        add_resnet(table, fmt::format("decoder.mid_block.resnets.{}", i), top, top, dtype);
    for (const UpBlock& b : up_blocks(config)) {
        if (b.in != b.out) add_resnet(table, b.name + ".conv_in", b.in, b.out, dtype);
        if (b.scaling) {
            const std::string name = b.name + ".upsamplers.0";
            add_conv(table, name + ".resample.1", {b.out, b.out, 3, 3}, dtype);
            if (!b.spatial_only)
                add_conv(table, name + ".time_conv.conv", {2 * b.out, b.out, 3, 1, 1}, dtype);
        }
        for (Index i = 0; i < b.layers; ++i)
            add_resnet(table, fmt::format("{}.resnets.{}", b.name, i), b.out, b.out, dtype);
    }
    const Index last = config.channels.front();
    if (config.unpatchify) {
        add_conv(table, "decoder.conv_out.conv", {12, last, 3, 3, 3}, dtype);
    } else {
        add_conv(table, "decoder.upsampler2d_1.conv", {last, last, 3, 3}, dtype);
        add_conv(table, "decoder.conv_out.conv", {3, last / 4, 3, 3, 3}, dtype);
    }
    return table;
}

namespace {

/// How a checkpoint names the decoder's tensors.
struct TurboNames {
    std::vector<TensorSpec> table;
    LoadOptions options;
    bool relative = false;  ///< `table` lacks `decoder.`
};

constexpr std::string_view decoder_part = "decoder.";

TurboNames names_in(const Checkpoint& file, const TurboVaeConfig& config, DType dtype) {
    const std::string module = "module.";
    const auto any = [&](const std::string& start) {
        return std::any_of(
            file.tensors().begin(), file.tensors().end(),
            [&](const StoredTensor& tensor) { return tensor.name.starts_with(start); });
    };
    std::vector<TensorSpec> table = specs(config, dtype);
    for (const std::string& prefix : {std::string(), module})
        if (any(prefix + std::string(decoder_part)) || any(prefix + "encoder."))
            return {std::move(table), {.prefix = prefix, .strict = false}};

    for (TensorSpec& spec : table) spec.name.erase(0, decoder_part.size());
    const std::string prefix = any(module + table.front().name) ? module : "";
    return {std::move(table), {.prefix = prefix, .strict = false}, true};
}

}  // namespace

void require_turbo_vae(const Checkpoint& file, const TurboVaeConfig& config, DType dtype) {
    const TurboNames names = names_in(file, config, dtype);
    file.require(names.table, names.options);
}

Weights load_turbo_vae(const Checkpoint& file, const TurboVaeConfig& config, DType dtype,
                       Backend& on) {
    const TurboNames names = names_in(file, config, dtype);
    Weights loaded = file.load(names.table, on, names.options);
    if (!names.relative) return loaded;
    Weights made;
    for (const TensorSpec& spec : names.table)
        made.put(std::string(decoder_part) + spec.name, loaded.take(spec.name));
    return made;
}

TurboChunks turbo_chunks(const TurboVaeConfig& config, Index frames) {
    const Index first = config.first_chunk;
    const Index step = config.step;
    const Index beyond = std::max<Index>(frames - first, 0);
    const Index padded = first + (beyond + step - 1) / step * step;
    TurboChunks plan{padded - frames, {}};
    const Index overlap = config.temporal_ratio;  // pictures of the one latent frame of context
    if (padded == first) {
        plan.chunks.push_back({0, first, true, 0, 0});
        return plan;
    }
    plan.chunks.push_back({0, first + 1, true, 0, overlap});
    for (Index i = first; i < padded; i += step) {
        const bool last = i + step == padded;
        plan.chunks.push_back(
            {i - 1, i + step + (last ? 0 : 1), false, overlap, last ? 0 : overlap});
    }
    return plan;
}

TurboVae::TurboVae(TurboVaeConfig config, Weights weights, DType dtype)
    : config_(std::move(config)), weights_(std::move(weights)), dtype_(dtype) {}

Index TurboVae::most_strips(Index latent_rows) const {
    const auto blocks = up_blocks(config_);
    Index rows = latent_rows;
    for (std::size_t i = 0; i < first_of_tail(config_); ++i) rows *= blocks[i].scaling ? 2 : 1;
    return gallop::most_strips(rows, reach_of_tail(config_));
}

Index TurboVae::telling_frames(const Shape& /*latent*/) const {
    return config_.first_chunk + 2 * config_.step;  // the chunk in the middle has both neighbours
}

void TurboVae::decode(ConstTensorView latent, Backend& on, const PictureSink& sink,
                      Index strips) const {
    const Tensor z = denormalised(latent, dtype_, on);
    const Shape& s = z.shape();
    const auto [padding, chunks] = turbo_chunks(config_, s[0]);
    const VideoLayers layers(weights_, dtype_, on);
    const Decoder decoder(config_, layers);
    for (const TurboChunk& chunk : chunks) {
        // Frames behind the end repeat the last one.
        Tensor given = layers.empty({chunk.end - chunk.begin, s[1], s[2], s[3]});
        const Index real = std::min(chunk.end, s[0]);
        if (chunk.begin < real)
            on.copy(z.rows(chunk.begin, real), given.rows(0, real - chunk.begin));
        for (Index t = std::max(real, chunk.begin); t < chunk.end; ++t)
            on.copy(z.rows(s[0] - 1, s[0]), given.rows(t - chunk.begin, t - chunk.begin + 1));
        const bool last = &chunk == &chunks.back();
        decoder.run(given, chunk.first, chunk.drop_front,
                    chunk.drop_back + (last ? padding * config_.temporal_ratio : 0), strips, sink);
    }
}

}  // namespace gallop
