#include "pipeline/work.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "core/clip.hpp"
#include "model/audio_vae.hpp"
#include "model/bundle.hpp"
#include "model/text_features.hpp"

namespace gallop {
namespace {

double numel(const TensorSpec& spec) { return static_cast<double>(spec.shape.numel()); }

/// FLOP of a convolution's kernel over `positions` outputs.
double conv_flop(const TensorSpec& spec, double positions) { return 2 * numel(spec) * positions; }

bool is_kernel(const TensorSpec& spec) { return spec.shape.rank() >= 4; }

/// The number behind `prefix` in a tensor's name.
std::size_t number_in(const std::string& name, std::string_view prefix) {
    std::size_t number = 0;
    const char* begin = name.data() + prefix.size();
    std::from_chars(begin, name.data() + name.size(), number);
    return number;
}

/// FLOP of one call of the turbo decoder on t latent frames.
double turbo_call(const TurboVaeConfig& config, double t, double h, double w, bool first) {
    static constexpr std::string_view blocks = "decoder.up_blocks.";
    const std::size_t count = config.channels.size();
    double flop = 0;
    for (const TensorSpec& spec : specs(config)) {
        if (!is_kernel(spec)) continue;
        if (spec.name.find(".time_conv") != std::string::npos) continue;  // counted with resample
        if (spec.name.find(".resample.1") != std::string::npos) {
            const std::size_t entry = count - 1 - number_in(spec.name, blocks);
            if (!config.spatial_only[entry]) {
                flop += 2 * 6 * static_cast<double>(spec.shape[0] * spec.shape[0]) * t * h * w;
                t = 2 * t - (first ? 1 : 0);
            }
            h *= 2;
            w *= 2;
        }
        flop += conv_flop(spec, t * h * w);
        if (spec.name == "decoder.upsampler2d_1.conv.weight") {  // its channels become pixels
            h *= 2;
            w *= 2;
        }
    }
    return flop;
}

/// FLOP of the full decoder on all frames.
double wan_decode(const WanVaeConfig& config, double t, double h, double w) {
    static constexpr std::string_view stages = "decoder.upsamples.";
    double flop = 0;
    for (const TensorSpec& spec : specs(config, WanPart::decoder)) {
        if (!is_kernel(spec) || spec.name.find(".time_conv") != std::string::npos) continue;
        if (spec.name.find(".resample.1") != std::string::npos) {
            const std::size_t mirrored = config.dim_mult.size() - 1 - number_in(spec.name, stages);
            if (mirrored > 0 && config.temporal_downsample[mirrored - 1]) {
                flop += 2 * 6 * static_cast<double>(spec.shape[0] * spec.shape[0]) * t * h * w;
                t = 2 * t - 1;
            }
            h *= 2;
            w *= 2;
        }
        flop += conv_flop(spec, t * h * w);
    }
    return flop;
}

/// FLOP of the full encoder on one picture.
double wan_encode(const WanVaeConfig& config, Size size) {
    double flop = 0;
    double h = size.height / 2.0;
    double w = size.width / 2.0;
    for (const TensorSpec& spec : specs(config, WanPart::encoder)) {
        if (!is_kernel(spec) || spec.name.find(".time_conv") != std::string::npos) continue;
        if (spec.name.find(".resample.1") != std::string::npos) {
            h /= 2;
            w /= 2;
        }
        // One frame meets the last of the three taps in time; the others see zeros.
        flop += conv_flop(spec, h * w);
    }
    return flop;
}

/// One half of the sound VAE for so many latents; the convolution at its latents has so many taps. Source:
/// OobleckEncoder and OobleckDecoder.
double oobleck(const OobleckConfig& config, double taps, double latents) {
    double flop = 0;
    double samples = latents;
    double width = static_cast<double>(config.channels * config.c_mults.back());
    flop += 2 * taps * static_cast<double>(config.latent_dim) * width * samples;
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

/// Attention of the text encoder among so many tokens.
double text_attention(const TextEncoderConfig& config, double tokens) {
    double seen = 0;  // by one token, summed over the layers
    for (const bool sliding : config.sliding)
        seen += sliding && config.window > 0
                    ? std::min(tokens, 2.0 * static_cast<double>(config.window) - 1)
                    : tokens;
    return 4 * static_cast<double>(config.heads * config.head_size) * tokens * seen;
}

/// A transformer's numbers that don't depend on the clip.
struct Network {
    TransformerConfig config;
    double per_token = 0;  ///< weights that one token meets in the layers
    double local_layers = 0;
    double full_layers = 0;
};

/// What a clip's memory depends on, and by whom it is shared.
struct MemoryKey {
    std::string variant, sr;
    std::array<int, 10> numbers;  ///< GPUs, sizes, latents, decoder, inputs there are, and tokens
    auto operator<=>(const MemoryKey&) const = default;
};

std::size_t index_of(Stage stage) { return static_cast<std::size_t>(stage); }

}  // namespace

struct WorkModel::State {
    Bundle bundle;
    Precision precision;
    Fp8Choice fp8;
    Index unit;
    std::map<std::string, Network, std::less<>> networks = {};
    double text_per_token = 0;               ///< weights that one token meets in the text encoder
    std::map<int, MemoryModel> memory = {};  ///< by how many share a clip
    std::map<MemoryKey, std::array<StageMemory, stage_count>> clips = {};
    mutable std::map<std::array<int, 4>, double> decodes = {};  ///< by decoder, size and frames
    mutable std::map<std::array<int, 2>, double> encodes = {};  ///< by size

    MemoryModel& memory_of(int gpus) {
        return memory.try_emplace(gpus, bundle.architecture, precision, fp8, Member{0, gpus, unit})
            .first->second;
    }

    /// What a clip's stages take.
    std::array<StageMemory, stage_count> memory_of(const Item& item, int gpus) {
        // Those that the transformers take whole are all counted as the longest.
        const int tokens = std::max({static_cast<int>(max_text_rows),
                                     static_cast<int>(estimated_tokens(item.prompt)),
                                     static_cast<int>(estimated_tokens(item.negative_prompt))});
        const MemoryKey key{item.variant,
                            item.sr,
                            {gpus, item.base_size.width, item.base_size.height, item.size.width,
                             item.size.height, item.audio_latents, static_cast<int>(item.decoder),
                             item.image.empty() ? 0 : 1, item.audio.empty() ? 0 : 1, tokens}};
        if (const auto found = clips.find(key); found != clips.end()) return found->second;
        MemoryModel& model = memory_of(gpus);
        std::array<StageMemory, stage_count> made{};
        const auto at = [&](Stage stage) -> StageMemory& { return made[index_of(stage)]; };
        at(Stage::text) = model.text(tokens);
        // Plans are made for folders that hold other transformers, too: what is unknown counts nothing.
        if (networks.contains(item.variant))
            at(Stage::base) = model.denoise(item.variant, item.base_size, item.audio_latents);
        if (networks.contains(item.sr))
            at(Stage::sr) = model.denoise(item.sr, item.size, item.audio_latents);
        if (!item.image.empty())
            at(Stage::image) = model.image(item.sr.empty() ? item.base_size : item.size);
        if (!item.audio.empty()) at(Stage::audio) = model.audio(item.audio_latents);
        const Shape latent = latent_shape(item.size, item.audio_latents);
        at(Stage::decode) =
            model.decode(item.decoder, latent, model.most_strips(item.decoder, latent[2]));
        at(Stage::decode_audio) = model.decode_audio(item.audio_latents);
        return clips.emplace(key, made).first->second;
    }

    double encode(Size size) const {
        const auto [found, fresh] = encodes.try_emplace({size.width, size.height}, 0.0);
        if (fresh) found->second = wan_encode(bundle.architecture.wan, size);
        return found->second;
    }

    double decode(VideoDecoder decoder, Size size, int frames) const {
        const std::array<int, 4> key = {static_cast<int>(decoder), size.width, size.height, frames};
        if (const auto found = decodes.find(key); found != decodes.end()) return found->second;
        const double h = size.height / 16.0;
        const double w = size.width / 16.0;
        double flop = 0;
        if (decoder == VideoDecoder::wan) {
            flop = wan_decode(bundle.architecture.wan, frames, h, w);
        } else {
            for (const TurboChunk& chunk : turbo_chunks(bundle.architecture.turbo, frames).chunks)
                flop += turbo_call(bundle.architecture.turbo,
                                   static_cast<double>(chunk.end - chunk.begin), h, w, chunk.first);
        }
        return decodes.emplace(key, flop).first->second;
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
};

WorkModel::WorkModel(const ModelChoice& choice, Index unit)
    : state_(new State{open_bundle(choice.path, choice.arch), choice.precision, choice.fp8,
                       choice.precision == Precision::fp32 ? 1 : unit}) {
    State& s = *state_;
    const MemoryModel& alone = s.memory_of(1);
    for (const auto& [name, variant] : s.bundle.architecture.variants) {
        static_cast<void>(alone.transformer_table(name));  // does the choice of layers fit?
        Network made;
        const TransformerConfig& c = made.config = variant.network;
        for (Index layer = 0; layer < c.num_layers; ++layer) {
            const Index inner = c.intermediate(layer);
            const Index up = c.is_gelu7(layer) ? inner : 2 * inner;
            made.per_token += static_cast<double>(
                c.hidden_size * (c.qkv_rows() + c.heads() * c.head_dim + up + inner));
            (c.is_local(layer) ? made.local_layers : made.full_layers) += 1;
        }
        s.networks.emplace(name, std::move(made));
    }
    const TextEncoderConfig& text = s.bundle.architecture.text;
    s.text_per_token =
        static_cast<double>(text.layers() * text.width *
                            (2 * text.head_size * (text.heads + text.kv_heads) + 3 * text.mlp));
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
    return state_->decode(decoder, size, latent_frames);
}

bool WorkModel::can_share(const Item& item, int gpus) const {
    try {
        for (const std::string* name : {&item.variant, &item.sr})
            if (const auto found = state_->networks.find(*name); found != state_->networks.end())
                shard_of(found->second.config, 0, gpus);
        return true;
    } catch (const InputError&) {
        return false;
    }
}

ClipWork WorkModel::of(const Item& item, int gpus) const {
    State& s = *state_;
    ClipWork work;
    work.memory = s.memory_of(item, gpus);
    const auto put = [&](Stage stage, double amount) { work.amount[index_of(stage)] += amount; };
    const double whole = estimated_tokens(item.prompt);
    constexpr auto most = static_cast<double>(max_text_rows);
    const double text = std::min(whole, most);
    const double negative = std::min(estimated_tokens(item.negative_prompt), most);
    const int latent_frames = (item.audio_latents - 1) / 4 + 1;
    put(Stage::text,
        2 * s.text_per_token * whole + text_attention(s.bundle.architecture.text, whole));
    const auto denoise = [&](Stage stage, const std::string& name, Size size, int steps,
                             int passes) {
        const auto found = s.networks.find(name);
        if (found == s.networks.end()) return;
        const Network& network = found->second;
        put(stage, steps * s.forward(network, size, item.audio_latents, text));
        if (passes == 2) put(stage, steps * s.forward(network, size, item.audio_latents, negative));
    };
    denoise(Stage::base, item.variant, item.base_size, item.base.steps, item.base.passes);
    if (!item.sr.empty())
        denoise(Stage::sr, item.sr, item.size, item.super.steps, item.super.passes);
    if (!item.image.empty()) {
        put(Stage::image, s.encode(item.base_size));
        if (!item.sr.empty()) put(Stage::image, s.encode(item.size));
    }
    const AudioVaeConfig& sound = s.bundle.architecture.audio;
    if (!item.audio.empty()) {
        const Index windows = driving_windows(Index{item.audio_latents} * samples_per_latent);
        const Index latents = windows == 1 ? Index{item.audio_latents}
                                           : windows * driving_window / samples_per_latent;
        put(Stage::audio, oobleck(sound.encoder, 3, static_cast<double>(latents)));
    }
    put(Stage::decode_audio, oobleck(sound.decoder, 7, item.audio_latents));
    put(Stage::decode, s.decode(item.decoder, item.size, latent_frames));
    put(Stage::write, static_cast<double>(item.size.width) * item.size.height * item.frames);
    return work;
}

std::size_t ClipWork::memory_bytes() const {
    const StageMemory& text = memory[index_of(Stage::text)];
    std::size_t weights = 0;
    std::size_t arrays = 0;
    for (std::size_t i = 0; i < stage_count; ++i) {
        if (i == index_of(Stage::text)) continue;
        // One network encodes sounds and decodes them.
        if (i != index_of(Stage::audio)) weights += memory[i].weights;
        arrays = std::max(arrays, with_workspaces(memory[i].arrays));
    }
    return std::max(weights + arrays, text.weights + with_workspaces(text.arrays));
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
    return std::ceil(tokens) + 1;
}

}  // namespace gallop
