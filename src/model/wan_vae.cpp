#include "model/wan_vae.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "model/wan_shortcuts.hpp"

namespace gallop {
namespace {

/// A stage of the encoder or decoder: blocks, then a resampling (but for the last).
struct Stage {
    std::string name;
    Index in, out, blocks;
    bool resample, temporal;

    std::string block(Index i) const { return fmt::format("{}.{}", name, i); }
};

std::vector<Stage> encoder_stages(const WanVaeConfig& c) {
    std::vector<Stage> stages;
    const std::size_t count = c.dim_mult.size();
    for (std::size_t i = 0; i < count; ++i)
        stages.push_back({fmt::format("encoder.downsamples.{}.downsamples", i),
                          c.dim * (i == 0 ? 1 : c.dim_mult[i - 1]), c.dim * c.dim_mult[i],
                          c.num_res_blocks, i + 1 < count,
                          i + 1 < count && c.temporal_downsample[i]});
    return stages;
}

std::vector<Stage> decoder_stages(const WanVaeConfig& c) {
    std::vector<Stage> stages;
    const std::size_t count = c.dim_mult.size();
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t mirrored = count - 1 - i;
        stages.push_back({fmt::format("decoder.upsamples.{}.upsamples", i),
                          c.dec_dim * c.dim_mult[std::min(mirrored + 1, count - 1)],
                          c.dec_dim * c.dim_mult[mirrored], c.num_res_blocks + 1, mirrored > 0,
                          mirrored > 0 && c.temporal_downsample[mirrored - 1]});
    }
    return stages;
}

/// Pictures a latent frame stands for.
Index temporal_factor(const WanVaeConfig& c) {
    return Index{1} << std::count(c.temporal_downsample.begin(), c.temporal_downsample.end(), true);
}

void add_gamma(std::vector<TensorSpec>& table, const std::string& name, Shape shape) {
    table.push_back({.name = name + ".gamma", .shape = shape});
}

void add_block(std::vector<TensorSpec>& table, const std::string& name, Index in, Index out,
               DType dtype) {
    add_gamma(table, name + ".residual.0", {in, 1, 1, 1});
    add_conv(table, name + ".residual.2", {out, in, 3, 3, 3}, dtype);
    add_gamma(table, name + ".residual.3", {out, 1, 1, 1});
    add_conv(table, name + ".residual.6", {out, out, 3, 3, 3}, dtype);
    if (in != out) add_conv(table, name + ".shortcut", {out, in, 1, 1, 1}, dtype);
}

void add_stage(std::vector<TensorSpec>& table, const Stage& stage, Index time_width, DType dtype) {
    for (Index i = 0; i < stage.blocks; ++i)
        add_block(table, stage.block(i), i == 0 ? stage.in : stage.out, stage.out, dtype);
    if (!stage.resample) return;
    const std::string name = stage.block(stage.blocks);
    add_conv(table, name + ".resample.1", {stage.out, stage.out, 3, 3}, dtype);
    if (stage.temporal)
        add_conv(table, name + ".time_conv", {time_width * stage.out, stage.out, 3, 1, 1}, dtype);
}

void add_middle(std::vector<TensorSpec>& table, const std::string& name, Index width, DType dtype) {
    add_block(table, name + ".0", width, width, dtype);
    add_gamma(table, name + ".1.norm", {width, 1, 1});
    table.push_back(
        {.name = name + ".1.to_qkv.weight", .shape = {3 * width, width, 1, 1}, .dtype = dtype});
    table.push_back({.name = name + ".1.to_qkv.bias", .shape = {3 * width}});
    table.push_back(
        {.name = name + ".1.proj.weight", .shape = {width, width, 1, 1}, .dtype = dtype});
    table.push_back({.name = name + ".1.proj.bias", .shape = {width}});
    add_block(table, name + ".2", width, width, dtype);
}

void add_head(std::vector<TensorSpec>& table, const std::string& name, Index in, Index out,
              DType dtype) {
    add_gamma(table, name + ".0", {in, 1, 1, 1});
    add_conv(table, name + ".2", {out, in, 3, 3, 3}, dtype);
}

/// The network run over one clip, chunk after chunk. Causal convolutions find their history by
/// name.
class Chunks {
public:
    explicit Chunks(const VideoLayers& layers) : layers_(layers), on_(layers.on()) {}

    /// Announces the next chunk; without a successor no history is kept.
    void begin(bool last) {
        first_ = !begun_;
        begun_ = true;
        last_ = last;
    }
    bool first() const { return first_; }

    /// A causal convolution over time, kernel 3 in time, zeros before the clip. Frees x.
    Tensor causal(const std::string& name, Tensor x, const ConvSpec& space) {
        return causal_in(name,
                         joined(name, x.shape(),
                                [&](TensorView y) {
                                    on_.copy(x, y);
                                    x = Tensor();
                                }),
                         space);
    }
    /// The same over act(norm(x)), which is written straight behind the history.
    Tensor normed_causal(const std::string& norm, const std::string& name, ConstTensorView x) {
        return causal_in(name,
                         joined(name, x.shape(),
                                [&](TensorView y) {
                                    on_.norm(x, layers_.weight(norm + ".gamma"), l2, {}, y,
                                             Activation::silu);
                                }),
                         around);
    }

    Tensor block(const std::string& name, Tensor x) {
        Tensor h = normed_causal(name + ".residual.0", name + ".residual.2", x);
        h = normed_causal(name + ".residual.3", name + ".residual.6", h);
        if (layers_.has(name + ".shortcut")) x = layers_.conv(name + ".shortcut", x);
        on_.add(h, x);
        return h;
    }

    Tensor middle(const std::string& name, Tensor x) {
        x = block(name + ".0", std::move(x));
        attend(name + ".1", x);
        return block(name + ".2", std::move(x));
    }

    Tensor down(const Stage& stage, Tensor x) {
        const Tensor shortcut =
            average_down(x, stage.temporal ? 2 : 1, stage.resample ? 2 : 1, stage.out, on_);
        x = blocks(stage, std::move(x));
        if (stage.resample) {
            const std::string name = stage.block(stage.blocks);
            x = layers_.conv(name + ".resample.1", x,
                             {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}});
            if (stage.temporal) x = halved(name + ".time_conv", std::move(x));
        }
        on_.add(x, shortcut);
        return x;
    }

    Tensor up(const Stage& stage, Tensor x) {
        if (!stage.resample) return blocks(stage, std::move(x));
        const Tensor shortcut = duplicate_up(x, stage.temporal ? 2 : 1, 2, stage.out, first_, on_);
        x = blocks(stage, std::move(x));
        const std::string name = stage.block(stage.blocks);
        // The clip's first frame stays one frame, and those behind it don't see it.
        if (stage.temporal && !first_)
            x = layers_.interleave_frames(causal(name + ".time_conv", std::move(x), {}));
        x = layers_.upsample(name + ".resample.1", x);
        on_.add(x, shortcut);
        return x;
    }

private:
    static constexpr NormSpec l2{NormSpec::Kind::l2, 1e-12F};
    static constexpr Index reach = 2;  // frames that a kernel of 3 looks back

    Tensor blocks(const Stage& stage, Tensor x) {
        for (Index i = 0; i < stage.blocks; ++i) x = block(stage.block(i), std::move(x));
        return x;
    }

    /// History of the convolution `name`, then what `fill` writes.
    template <class Fill>
    Tensor joined(const std::string& name, const Shape& x, const Fill& fill) {
        const auto found = history_.find(name);
        const Index have = found == history_.end() ? 0 : found->second.size(0);
        Tensor y = layers_.empty({have + x[0], x[1], x[2], x[3]});
        if (have > 0) {
            on_.copy(found->second, y.rows(0, have));
            history_.erase(found);
        }
        had_ = have;
        fill(y.rows(have, have + x[0]));
        return y;
    }

    /// x: history and new frames. Frees x.
    Tensor causal_in(const std::string& name, Tensor x, ConvSpec space) {
        space.pad_before[0] = reach - had_;
        Tensor y = layers_.conv(name, x, space);
        remember(name, x, reach);
        return y;
    }

    /// Keeps the last frames of x for the next chunk.
    void remember(const std::string& name, const Tensor& x, Index frames) {
        if (last_) return;
        const Index keep = std::min(frames, x.size(0));
        Tensor kept = layers_.empty({keep, x.size(1), x.size(2), x.size(3)});
        on_.copy(x.rows(x.size(0) - keep, x.size(0)), kept);
        history_.insert_or_assign(name, std::move(kept));
    }

    /// Every other frame, by a convolution over it and its two predecessors; the clip's first frame
    /// is kept as it is.
    Tensor halved(const std::string& name, Tensor x) {
        if (first_) {
            remember(name, x, 1);
            return x;
        }
        const Tensor with_last = joined(name, x.shape(), [&](TensorView y) { on_.copy(x, y); });
        remember(name, x, 1);
        return layers_.conv(name, with_last, {.stride = {2, 1, 1}});
    }

    /// x ← x + attention over the pixels of each frame, one head.
    void attend(const std::string& name, Tensor& x) {
        const Index frames = x.size(0);
        const Index pixels = x.size(1) * x.size(2);
        const Index width = x.size(3);
        const auto matrix = [&](const std::string& which) {
            const Tensor& w = layers_.weight(name + which);
            return w.view().reshape({w.size(0), w.size(1)});
        };
        Tensor h = layers_.empty(x.shape());
        on_.norm(x, layers_.weight(name + ".norm.gamma"), l2, {}, h);
        h.reshape({frames * pixels, width});
        Tensor qkv = layers_.empty({frames * pixels, 3 * width});
        on_.linear(h, matrix(".to_qkv.weight"), layers_.weight(name + ".to_qkv.bias"), qkv);
        std::array<Tensor, 3> part;
        for (Index i = 0; i < 3; ++i) {
            Tensor& p = part[static_cast<std::size_t>(i)];
            p = layers_.empty({frames * pixels, width});
            on_.columns(qkv, i * width, p);
            p.reshape({frames * pixels, 1, width});
        }
        qkv = Tensor();
        h.reshape({frames * pixels, 1, width});
        const float scale = 1.0F / std::sqrt(static_cast<float>(width));
        for (Index t = 0; t < frames; ++t) {
            const auto frame = [&](Tensor& all) { return all.rows(t * pixels, (t + 1) * pixels); };
            on_.attention(frame(part[0]), frame(part[1]), frame(part[2]), {}, scale, 0.0F,
                          frame(h));
        }
        h.reshape({frames * pixels, width});
        Tensor out = layers_.empty(x.shape());
        on_.linear(h, matrix(".proj.weight"), layers_.weight(name + ".proj.bias"),
                   out.view().reshape({frames * pixels, width}));
        on_.add(x, out);
    }

    const VideoLayers& layers_;
    Backend& on_;
    std::map<std::string, Tensor> history_;
    Index had_ = 0;  ///< frames of history in front of what `joined` made last
    bool begun_ = false;
    bool first_ = true;
    bool last_ = false;
};

/// How many of the decoder's stages run on whole pictures: the first, unless nothing is enlarged after
/// it. Its arrays are small, and attention before it needs all rows anyway.
Index stages_before_strips(const WanVaeConfig& config) {
    return config.dim_mult.size() > 2 ? 1 : 0;
}

/// Rows of the strips' input between a row and the farthest that its pixels depend on.
Index reach_of_strips(const WanVaeConfig& config) {
    const auto stages = decoder_stages(config);
    Index reach = 1;  // the head
    for (std::size_t i = stages.size();
         i-- > static_cast<std::size_t>(stages_before_strips(config));) {
        if (stages[i].resample) reach = (reach + 1 + 1) / 2;
        reach += 2 * stages[i].blocks;
    }
    return reach;
}

/// Rows begin … end−1 of each picture, from the host.
Tensor uploaded_rows(ConstTensorView x, Index begin, Index end, Backend& on) {
    const Shape& s = x.shape();
    const Index own = end - begin;
    Tensor y = on.empty({s[0], own, s[2], s[3]}, x.dtype());
    const ConstTensorView from = x.reshape({s[0] * s[1], s[2], s[3]});
    const TensorView to = y.view().reshape({s[0] * own, s[2], s[3]});
    for (Index t = 0; t < s[0]; ++t)
        on.upload(from.rows(t * s[1] + begin, t * s[1] + end), to.rows(t * own, (t + 1) * own));
    return y;
}

/// Latent frames decoded at once behind the first one: more of small pictures, whose time would otherwise
/// go into reordering kernels.
Index frames_at_once(Index rows, Index columns) {
    constexpr Index positions = 4096;
    return std::clamp<Index>(positions / (rows * columns), 1, 8);
}

}  // namespace

WanVaeConfig read_wan_vae(Reader& in) {
    WanVaeConfig c;
    in.ignore_unknown();
    constexpr Range<std::int64_t> width{1, 65536};
    c.dim = in.get("dim", c.dim, width);
    c.dec_dim = in.get("dec_dim", c.dec_dim, width);
    c.z_dim = in.get("z_dim", c.z_dim, width);
    if (c.z_dim != video_latent_channels)
        in.problem("z_dim", fmt::format("{} latent channels ({}, which the latents' mean and "
                                        "deviation are known for)",
                                        c.z_dim, video_latent_channels));
    c.dim_mult = in.get_list("dim_mult", c.dim_mult, Range<std::int64_t>{1, 64});
    c.num_res_blocks = in.get("num_res_blocks", c.num_res_blocks, Range<std::int64_t>{1, 100});
    c.temporal_downsample = in.get_list("temperal_downsample", c.temporal_downsample);
    if (c.dim_mult.empty() || c.dim_mult.size() > 10) {
        in.problem("dim_mult", fmt::format("{} stages (1 to 10)", c.dim_mult.size()));
        return c;
    }
    if (c.temporal_downsample.size() + 1 != c.dim_mult.size()) {
        in.problem("temperal_downsample",
                   fmt::format("{} entries ({}, one for each stage of dim_mult but the last)",
                               c.temporal_downsample.size(), c.dim_mult.size() - 1));
        return c;
    }
    for (const Stage& s : encoder_stages(c))
        if (const Index fold = (s.temporal ? 2 : 1) * (s.resample ? 4 : 1);
            s.in * fold % s.out != 0)
            in.problem("dim_mult", fmt::format("{} × {} channels cannot be averaged to {} (a "
                                               "multiple of them)",
                                               s.in, fold, s.out));
    for (const Stage& s : decoder_stages(c))
        if (const Index fold = (s.temporal ? 2 : 1) * 4; s.resample && s.out * fold % s.in != 0)
            in.problem("dim_mult", fmt::format("{} channels cannot be repeated to {} × {} (a "
                                               "multiple of them)",
                                               s.in, s.out, fold));
    return c;
}

std::vector<TensorSpec> specs(const WanVaeConfig& c, WanPart part, DType dtype) {
    std::vector<TensorSpec> table;
    if (part != WanPart::decoder) {
        const auto stages = encoder_stages(c);
        add_conv(table, "encoder.conv1", {c.dim, 12, 3, 3, 3}, dtype);
        for (const Stage& stage : stages) add_stage(table, stage, 1, dtype);
        add_middle(table, "encoder.middle", stages.back().out, dtype);
        add_head(table, "encoder.head", stages.back().out, 2 * c.z_dim, dtype);
        add_conv(table, "conv1", {2 * c.z_dim, 2 * c.z_dim, 1, 1, 1}, dtype);
    }
    if (part != WanPart::encoder) {
        const auto stages = decoder_stages(c);
        add_conv(table, "conv2", {c.z_dim, c.z_dim, 1, 1, 1}, dtype);
        add_conv(table, "decoder.conv1", {stages.front().in, c.z_dim, 3, 3, 3}, dtype);
        add_middle(table, "decoder.middle", stages.front().in, dtype);
        for (const Stage& stage : stages) add_stage(table, stage, 2, dtype);
        add_head(table, "decoder.head", stages.back().out, 12, dtype);
    }
    return table;
}

WanVae::WanVae(WanVaeConfig config, Weights weights, DType dtype)
    : config_(std::move(config)), weights_(std::move(weights)), dtype_(dtype) {}

Tensor WanVae::encode(ConstTensorView pictures, Backend& on) const {
    const Shape& s = pictures.shape();
    const Index factor = temporal_factor(config_);
    const Index space = Index{1} << config_.dim_mult.size();
    CHECK(s.rank() == 4 && s[3] == 3 && s[0] >= 1 && (s[0] - 1) % factor == 0 && s[1] > 0 &&
              s[1] % space == 0 && s[2] > 0 && s[2] % space == 0,
          "pictures of shape {} to encode ([1 + {}·k, {}·n, {}·m, 3])", to_string(s), factor, space,
          space);
    const VideoLayers layers(weights_, dtype_, on);
    Chunks chunks(layers);
    const Index latent_frames = (s[0] - 1) / factor + 1;
    Tensor mean = layers.empty({latent_frames, s[1] / space, s[2] / space, config_.z_dim});
    for (Index begin = 0, done = 0; begin < s[0];) {
        const Index end = begin == 0 ? 1 : std::min(s[0], begin + std::max<Index>(factor, 4));
        chunks.begin(end == s[0]);
        Tensor x = layers.empty({end - begin, s[1], s[2], 3});
        on.copy(pictures.rows(begin, end), x);
        x = fold_pixels(x, on);
        x = chunks.causal("encoder.conv1", std::move(x), around);
        for (const Stage& stage : encoder_stages(config_)) x = chunks.down(stage, std::move(x));
        x = chunks.middle("encoder.middle", std::move(x));
        x = chunks.normed_causal("encoder.head.0", "encoder.head.2", x);
        x = layers.conv("conv1", x);
        const Index frames = x.size(0);
        const Index pixels = frames * x.size(1) * x.size(2);
        // The first half is the mean; the log-variance behind it is not used.
        on.columns(x.view().reshape({pixels, 2 * config_.z_dim}), 0,
                   mean.rows(done, done + frames).reshape({pixels, config_.z_dim}));
        done += frames;
        begin = end;
    }
    return normalised(mean, on);
}

Index WanVae::most_strips(Index latent_rows) const {
    return gallop::most_strips(latent_rows << stages_before_strips(config_),
                               reach_of_strips(config_));
}

Index WanVae::telling_frames(const Shape& latent) const {
    // Behind the first frame chunks that fill the history, then some that find and leave it.
    return 1 + std::max<Index>(16, 4 * frames_at_once(latent[2], latent[3]));
}

void WanVae::decode(ConstTensorView latent, Backend& on, const PictureSink& sink,
                    Index strips) const {
    const VideoLayers layers(weights_, dtype_, on);
    const auto stages = decoder_stages(config_);
    const auto cut_at = static_cast<std::size_t>(stages_before_strips(config_));
    const Tensor z = layers.conv("conv2", denormalised(latent, dtype_, on));
    const Index frames = z.size(0);
    const Index block = frames_at_once(z.size(1), z.size(2));
    const auto each_chunk = [&](Chunks& chunks, const auto& work) {
        for (Index begin = 0; begin < frames;) {
            const Index end = begin == 0 ? 1 : std::min(frames, begin + block);
            chunks.begin(end == frames);
            work(begin, end);
            begin = end;
        }
    };
    const auto head = [&](Chunks& chunks, Index begin, Index end) {
        Tensor x = layers.empty({end - begin, z.size(1), z.size(2), z.size(3)});
        on.copy(z.rows(begin, end), x);
        x = chunks.causal("decoder.conv1", std::move(x), around);
        x = chunks.middle("decoder.middle", std::move(x));
        for (std::size_t i = 0; i < cut_at; ++i) x = chunks.up(stages[i], std::move(x));
        return x;
    };
    const auto tail = [&](Chunks& chunks, Tensor x) {
        for (std::size_t i = cut_at; i < stages.size(); ++i) x = chunks.up(stages[i], std::move(x));
        x = chunks.normed_causal("decoder.head.0", "decoder.head.2", x);
        on.activate(x, Activation::clamp, x);
        return unfold_pixels(x, on);
    };
    if (strips <= 1) {
        Chunks chunks(layers);
        each_chunk(chunks,
                   [&](Index begin, Index end) { sink(tail(chunks, head(chunks, begin, end))); });
        return;
    }
    std::vector<Tensor> between;  // of each chunk, on the host
    {
        Chunks chunks(layers);
        each_chunk(chunks, [&](Index begin, Index end) {
            between.push_back(on.download(head(chunks, begin, end)));
        });
    }
    std::vector<Tensor> pictures(between.size());  // likewise
    const Index rows = between.front().size(1);
    for (const Strip& strip : cut(rows, strips, reach_of_strips(config_))) {
        Chunks chunks(layers);
        std::size_t chunk = 0;
        each_chunk(chunks, [&](Index, Index) {
            const Tensor part =
                tail(chunks, uploaded_rows(between[chunk], strip.begin - strip.above,
                                           strip.end + strip.below, on));
            const Shape& s = part.shape();
            const Index scale = s[1] / (strip.above + strip.end - strip.begin + strip.below);
            Tensor& whole = pictures[chunk++];
            if (!whole.defined()) whole = Tensor({s[0], rows * scale, s[2], s[3]}, part.dtype());
            const Tensor own = on.download(
                picture_rows(part, strip.above * scale, s[1] - strip.below * scale, on));
            const std::size_t bytes = own.bytes() / static_cast<std::size_t>(s[0]);
            const std::size_t step = whole.bytes() / static_cast<std::size_t>(s[0]);
            const std::size_t first =
                step / static_cast<std::size_t>(rows) * static_cast<std::size_t>(strip.begin);
            for (std::size_t t = 0; t < static_cast<std::size_t>(s[0]); ++t)
                std::memcpy(whole.view().raw() + t * step + first, own.view().raw() + t * bytes,
                            bytes);
        });
    }
    between.clear();
    for (Tensor& whole : pictures) {
        sink(on.upload(whole));
        whole = Tensor();
    }
}

}  // namespace gallop
