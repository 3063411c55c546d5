#include "pipeline/work.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "model/bundle.hpp"
#include "pipeline/memory.hpp"

namespace gallop {
namespace {

constexpr double most_tokens = 640;  // Source: the text encoder's limit in the reference

double numel(const TensorSpec& spec) { return static_cast<double>(spec.shape.numel()); }

double bytes_of(const std::vector<TensorSpec>& specs) {
    return static_cast<double>(weight_bytes(specs));
}

/// FLOP and the largest activation of a picture network.
struct Picture {
    double flop = 0;
    double elements = 0;

    /// A convolution's kernel over `positions` outputs, `in_positions` inputs.
    void conv(const TensorSpec& spec, double positions, double in_positions) {
        flop += 2 * numel(spec) * positions;
        elements = std::max(elements, static_cast<double>(spec.shape[0]) * positions +
                                          static_cast<double>(spec.shape[1]) * in_positions);
    }
    void conv(const TensorSpec& spec, double positions) { conv(spec, positions, positions); }
};

bool is_kernel(const TensorSpec& spec) { return spec.shape.rank() >= 4; }

/// The number behind `prefix` in a tensor's name.
std::size_t number_in(const std::string& name, std::string_view prefix) {
    std::size_t number = 0;
    const char* begin = name.data() + prefix.size();
    std::from_chars(begin, name.data() + name.size(), number);
    return number;
}

/// One call of the turbo decoder on t latent frames.
void turbo_call(const TurboVaeConfig& config, double t, double h, double w, bool first,
                Picture& sum) {
    static constexpr std::string_view blocks = "decoder.up_blocks.";
    const std::size_t count = config.channels.size();
    for (const TensorSpec& spec : specs(config)) {
        if (!is_kernel(spec)) continue;
        if (spec.name.find(".time_conv") != std::string::npos) continue;  // counted with resample
        if (spec.name.find(".resample.1") != std::string::npos) {
            const std::size_t entry = count - 1 - number_in(spec.name, blocks);
            const double in = t * h * w;
            if (!config.spatial_only[entry]) {
                sum.flop += 2 * 6 * static_cast<double>(spec.shape[0] * spec.shape[0]) * t * h * w;
                t = 2 * t - (first ? 1 : 0);
            }
            h *= 2;
            w *= 2;
            sum.conv(spec, t * h * w, in);
            continue;
        }
        sum.conv(spec, t * h * w);
    }
}

/// The full decoder, all frames; the time cuts change memory only.
void wan_decode(const WanVaeConfig& config, double t, double h, double w, Picture& sum) {
    static constexpr std::string_view stages = "decoder.upsamples.";
    constexpr double chunk = 4;  // latent frames held at once
    for (const TensorSpec& spec : specs(config, WanPart::decoder)) {
        if (!is_kernel(spec) || spec.name.find(".time_conv") != std::string::npos) continue;
        double in = t * h * w;
        if (spec.name.find(".resample.1") != std::string::npos) {
            const std::size_t mirrored = config.dim_mult.size() - 1 - number_in(spec.name, stages);
            if (mirrored > 0 && config.temporal_downsample[mirrored - 1]) {
                sum.flop += 2 * 6 * static_cast<double>(spec.shape[0] * spec.shape[0]) * in;
                t = 2 * t - 1;
                in = t * h * w;
            }
            h *= 2;
            w *= 2;
        }
        Picture whole;
        whole.conv(spec, t * h * w, in);
        sum.flop += whole.flop;
        sum.elements = std::max(sum.elements, whole.elements * std::min(1.0, 4 * chunk / t));
    }
}

/// The full encoder on one picture.
double wan_encode(const WanVaeConfig& config, Size size) {
    Picture sum;
    double h = size.height / 2.0;
    double w = size.width / 2.0;
    for (const TensorSpec& spec : specs(config, WanPart::encoder)) {
        if (!is_kernel(spec) || spec.name.find(".time_conv") != std::string::npos) continue;
        if (spec.name.find(".resample.1") != std::string::npos) {
            h /= 2;
            w /= 2;
        }
        // One frame meets the last of the three taps in time; the others see zeros.
        sum.conv(spec, h * w);
    }
    return sum.flop;
}

/// One half of the sound VAE for so many latents. Source: OobleckEncoder and OobleckDecoder.
double oobleck(const OobleckConfig& config, double latents) {
    double flop = 0;
    double samples = latents;
    double width = static_cast<double>(config.channels * config.c_mults.back());
    flop += 2 * 7 * static_cast<double>(config.latent_dim) * width * samples;
    for (std::size_t i = config.strides.size(); i-- > 0;) {
        const double narrower =
            static_cast<double>(config.channels * (i == 0 ? 1 : config.c_mults[i - 1]));
        const auto stride = static_cast<double>(config.strides[i]);
        samples *= stride;
        flop += 2 * 2 * width * narrower * samples;               // the strided convolution
        flop += 3 * 2 * (7 + 1) * narrower * narrower * samples;  // three residual units
        width = narrower;
    }
    return flop + 2 * 7 * width * static_cast<double>(config.audio_channels) * samples;
}

/// A transformer's numbers that don't depend on the clip.
struct Network {
    TransformerConfig config;
    double per_token = 0;  ///< weights that one token meets in the layers
    double local_layers = 0;
    double full_layers = 0;
    double widest = 0;  ///< columns of the feed-forward layer's first product
    double weight_bytes = 0;
};

}  // namespace

struct WorkModel::State {
    Bundle bundle;
    Precision precision;
    std::map<std::string, Network, std::less<>> networks;
    double text_per_token = 0;
    double text_bytes = 0;
    double turbo_elements = 0;
    double wan_elements = 0;
    mutable std::map<std::array<int, 4>, Picture> decodes;  ///< by decoder, size and frames
    mutable std::map<std::array<int, 2>, double> encodes;   ///< by size

    double encode(Size size) const {
        const auto [found, fresh] = encodes.try_emplace({size.width, size.height}, 0.0);
        if (fresh) found->second = wan_encode(bundle.architecture.wan, size);
        return found->second;
    }

    Picture decode(VideoDecoder decoder, Size size, int frames) const {
        const std::array<int, 4> key = {static_cast<int>(decoder), size.width, size.height, frames};
        if (const auto found = decodes.find(key); found != decodes.end()) return found->second;
        const double h = size.height / 16.0;
        const double w = size.width / 16.0;
        Picture sum;
        if (decoder == VideoDecoder::wan) {
            wan_decode(bundle.architecture.wan, frames, h, w, sum);
        } else {
            for (const TurboChunk& chunk : turbo_chunks(bundle.architecture.turbo, frames).chunks)
                turbo_call(bundle.architecture.turbo, static_cast<double>(chunk.end - chunk.begin),
                           h, w, chunk.first, sum);
        }
        return decodes.emplace(key, sum).first->second;
    }

    double forward(const Network& network, Size size, int audio, double text) const {
        const TransformerConfig& c = network.config;
        const double frames = (audio - 1) / 4 + 1;
        const double per_frame = (size.width / 32) * (size.height / 32);
        const double video = frames * per_frame;
        const double other = audio + text;
        const double tokens = video + other;
        const auto width = static_cast<double>(c.hidden_size);
        double flop = 2 * network.per_token * tokens;
        flop += 2 * width *
                (2 * static_cast<double>(c.video_in_channels) * video +
                 2 * static_cast<double>(c.audio_in_channels) * audio +
                 static_cast<double>(c.text_in_channels) * text);
        const double pair = 4 * static_cast<double>(c.head_dim * c.heads());
        flop += network.full_layers * pair * tokens * tokens;
        if (network.local_layers > 0) {
            const auto reach = static_cast<double>(c.frame_receptive_field);
            double seen = 0;  // frames, summed over the frames that look
            for (double i = 0; i < frames; ++i)
                seen += std::min(i + reach, frames - 1) - std::max(i - reach, 0.0) + 1;
            flop += network.local_layers * pair *
                    (seen * per_frame * per_frame + video * other + other * tokens);
        }
        return flop;
    }

    /// Bytes of one forward's activations: residual and its copy, q, k, v, gates and the attended,
    /// the feed-forward layer's two widths.
    double activations(const Network& network, Size size, int audio, double text, int gpus) const {
        const TransformerConfig& c = network.config;
        const double frames = (audio - 1) / 4 + 1;
        const double tokens = frames * (size.width / 32) * (size.height / 32) + audio + text;
        const double element = precision == Precision::fp32 ? 4 : 2;
        const auto width = static_cast<double>(c.hidden_size);
        const double shared = (8 + element) * width;
        const double split =
            element * (static_cast<double>(c.qkv_rows()) + 2 * width + 1.5 * network.widest);
        return tokens * (shared + split / gpus);
    }
};

WorkModel::WorkModel(const ModelChoice& choice)
    : state_(new State{
          open_bundle(choice.path, choice.arch), choice.precision, {}, 0, 0, 0, 0, {}, {}}) {
    State& s = *state_;
    const bool fp8 = choice.precision == Precision::fp8;
    const DType dtype = compute_dtype(choice.precision);
    for (const auto& [name, variant] : s.bundle.architecture.variants) {
        Network made;
        const TransformerConfig& c = made.config = variant.network;
        for (Index layer = 0; layer < c.num_layers; ++layer) {
            const Index inner = c.intermediate(layer);
            const Index up = c.is_gelu7(layer) ? inner : 2 * inner;
            made.per_token += static_cast<double>(
                c.hidden_size * (c.qkv_rows() + c.heads() * c.head_dim + up + inner));
            made.widest = std::max(made.widest, static_cast<double>(up));
            (c.is_local(layer) ? made.local_layers : made.full_layers) += 1;
        }
        auto table = transformer_specs(c, dtype);
        if (fp8) choose_fp8(table, c.num_layers, choice.fp8, name);
        made.weight_bytes = bytes_of(table);
        s.networks.emplace(name, std::move(made));
    }
    for (const TensorSpec& spec : specs(s.bundle.architecture.turbo))
        s.turbo_elements += numel(spec);
    for (const TensorSpec& spec : specs(s.bundle.architecture.wan, WanPart::decoder))
        s.wan_elements += numel(spec);
    const TextEncoderConfig& text = s.bundle.architecture.text;
    s.text_per_token =
        static_cast<double>(text.layers() * text.width *
                            (2 * text.head_size * (text.heads + text.kv_heads) + 3 * text.mlp));
    s.text_bytes = bytes_of(text_encoder_specs(text, dtype, fp8 && choice.fp8.text_encoder));
}

WorkModel::~WorkModel() = default;
WorkModel::WorkModel(WorkModel&&) noexcept = default;
WorkModel& WorkModel::operator=(WorkModel&&) noexcept = default;

double WorkModel::forward(std::string_view network, Size size, int audio_latents,
                          double text_tokens) const {
    const auto found = state_->networks.find(network);
    return found == state_->networks.end()
               ? 0
               : state_->forward(found->second, size, audio_latents, text_tokens);
}

double WorkModel::decode(VideoDecoder decoder, Size size, int latent_frames) const {
    return state_->decode(decoder, size, latent_frames).flop;
}

ClipWork WorkModel::of(const Item& item, int gpus) const {
    const State& s = *state_;
    ClipWork work;
    const auto put = [&](Stage stage, double amount) {
        work.amount[static_cast<std::size_t>(stage)] += amount;
    };
    const double text = estimated_tokens(item.prompt);
    const double negative = estimated_tokens(item.negative_prompt);
    const int latent_frames = (item.audio_latents - 1) / 4 + 1;
    put(Stage::text, 2 * s.text_per_token * text);
    const auto denoise = [&](Stage stage, const std::string& name, Size size, int steps,
                             int passes) {
        const auto found = s.networks.find(name);
        if (found == s.networks.end()) return;
        const Network& network = found->second;
        put(stage, steps * s.forward(network, size, item.audio_latents, text));
        if (passes == 2) put(stage, steps * s.forward(network, size, item.audio_latents, negative));
        work.weight_bytes += network.weight_bytes / gpus;
        work.activation_bytes = std::max(
            work.activation_bytes, s.activations(network, size, item.audio_latents, text, gpus));
    };
    denoise(Stage::base, item.variant, item.base_size, item.base.steps, item.base.passes);
    if (!item.sr.empty())
        denoise(Stage::sr, item.sr, item.size, item.super.steps, item.super.passes);
    if (!item.image.empty()) {
        put(Stage::image, s.encode(item.base_size));
        if (!item.sr.empty()) put(Stage::image, s.encode(item.size));
    }
    const AudioVaeConfig& sound = s.bundle.architecture.audio;
    if (!item.audio.empty()) put(Stage::audio, oobleck(sound.encoder, item.audio_latents));
    put(Stage::decode_audio, oobleck(sound.decoder, item.audio_latents));
    const Picture decoded = s.decode(item.decoder, item.size, latent_frames);
    put(Stage::decode, decoded.flop);
    const double element = s.precision == Precision::fp32 ? 4 : 2;
    work.activation_bytes = std::max(work.activation_bytes, 1.5 * element * decoded.elements);
    work.weight_bytes +=
        element * (item.decoder == VideoDecoder::wan ? s.wan_elements : s.turbo_elements);
    // The text encoder leaves the device before the clip is denoised.
    if (s.text_bytes > work.weight_bytes + work.activation_bytes) {
        work.weight_bytes = s.text_bytes;
        work.activation_bytes = 0;
    }
    put(Stage::write, static_cast<double>(item.size.width) * item.size.height * item.frames);
    return work;
}

const char* name_of(Stage stage) {
    switch (stage) {
        case Stage::text: return "text";
        case Stage::image: return "image";
        case Stage::audio: return "audio";
        case Stage::base: return "base";
        case Stage::sr: return "sr";
        case Stage::decode: return "decode";
        case Stage::decode_audio: return "decode audio";
        case Stage::write: return "write";
        case Stage::count: break;
    }
    return "?";
}

double estimated_tokens(std::string_view prompt) {
    double tokens = 0;
    for (const char c : prompt) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x80)
            tokens += 1 / 3.7;
        else if ((byte & 0xc0) != 0x80)
            tokens += 0.75;
    }
    return std::min(std::ceil(tokens) + 1, most_tokens);
}

}  // namespace gallop
