#include "pipeline/fp8_advice.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "core/check.hpp"
#include "model/bundle.hpp"
#include "model/shard.hpp"
#include "model/text_features.hpp"
#include "pipeline/denoise.hpp"

namespace gallop {
namespace {

using Parts = std::vector<std::size_t>;

/// The latents with which a base stage ended, on the host.
struct Drawn {
    Tensor video, audio;
};

class Adviser {
public:
    Adviser(const Fp8Question& question, Backend& on, const Fp8ProgressSink& progress)
        : asked_(question),
          bundle_(open_bundle(question.model, question.arch)),
          on_(on),
          progress_(progress) {
        check();
        list_parts();
        encode_prompts();
    }

    Fp8Advice answer() {
        advice_.chosen.resize(advice_.parts.size());
        std::iota(advice_.chosen.begin(), advice_.chosen.end(), std::size_t{0});
        std::vector<std::optional<Parts>> held(states_.size());
        const auto unsettled = [&] {
            return std::find_if(held.begin(), held.end(),
                                [&](const auto& set) { return set != advice_.chosen; });
        };
        for (auto next = held.begin(); next != held.end(); next = unsettled()) {
            visit(static_cast<std::size_t>(next - held.begin()));
            *next = advice_.chosen;
        }
        std::vector<Fp8Part> parts;
        for (const std::size_t part : advice_.chosen) parts.push_back(advice_.parts[part]);
        advice_.choice = fp8_choice_of(parts, layers_);
        for (State& state : states_) {
            for (const Fp8Error& error : state.network.errors)
                advice_.error = std::max(advice_.error, error.worst());
            for (const Fp8Case& one : state.cases) state.network.places.push_back(one.place);
            advice_.networks.push_back(std::move(state.network));
        }
        return std::move(advice_);
    }

private:
    struct State {
        const DitVariant* variant;
        Fp8Network network;
        std::vector<Fp8Case> cases;
        std::vector<Velocity> truth;
    };

    /// The number of a step by its word.
    static int step_of(const std::string& word, int steps) {
        if (word == "first") return 0;
        if (word == "middle") return steps / 2;
        if (word == "last") return steps - 1;
        throw_input_error("the steps to measure name \"{}\" (first, middle, last)", word);
    }

    void check() {
        if (asked_.steps.empty()) throw_input_error("no step to measure (first, middle, last)");
        for (const std::string& step : asked_.steps) (void)step_of(step, 1);
        if (asked_.prompts.empty()) throw_input_error("no prompt to render");
        if (!(asked_.within >= 0)) throw_input_error("within is {} (at least 0)", asked_.within);
        if (asked_.variants.empty()) throw_input_error("no transformer to measure");
        for (const std::string& name : asked_.variants) {
            const DitVariant& variant = bundle_.variant(name);
            if (states_.empty()) layers_ = variant.network.num_layers;
            if (variant.network.num_layers != layers_)
                throw_input_error("'{}' has {} layers, '{}' has {}: no one choice fits both", name,
                                  variant.network.num_layers, asked_.variants.front(), layers_);
            (void)bundle_.dit(name);
            states_.push_back({&variant, {.variant = name}, {}, {}});
        }
        // A second stage begins with what a first one made.
        std::stable_partition(states_.begin(), states_.end(),
                              [](const State& state) { return !state.variant->super_resolution; });
    }

    void list_parts() {
        const TransformerConfig& config = states_.front().variant->network;
        std::map<std::string, Shape> shapes;
        for (const TensorSpec& spec : transformer_specs(config, DType::bf16))
            shapes.emplace(spec.name, spec.shape);
        for (Index layer = 0; layer < layers_; ++layer)
            for (const std::string& linear : fp8_linears()) {
                advice_.parts.push_back({layer, linear});
                const Shape& shape = shapes.at(weight_name(advice_.parts.back()));
                // Each token meets one expert.
                advice_.work.push_back(static_cast<double>(shape.numel()) /
                                       static_cast<double>(config.experts(layer)));
                advice_.bytes.push_back(static_cast<std::size_t>(shape.numel()) -
                                        sizeof(float) * static_cast<std::size_t>(shape[0]));
            }
        const double all = std::accumulate(advice_.work.begin(), advice_.work.end(), 0.0);
        for (double& work : advice_.work) work /= all;
        for (State& state : states_)
            state.network.alone.assign(advice_.parts.size(),
                                       std::numeric_limits<double>::quiet_NaN());
    }

    void encode_prompts() {
        say("text");
        const Tokenizer words = Tokenizer::open(bundle_.text_encoder());
        const TextEncoder encoder(bundle_.text_encoder(), {.compute = DType::bf16}, on_);
        const auto features = [&](const std::string& prompt) {
            return on_.upload(encode_prompt(prompt, words.encode(prompt), encoder).embedding);
        };
        for (const std::string& prompt : asked_.prompts) texts_.push_back(features(prompt));
        if (std::any_of(states_.begin(), states_.end(),
                        [](const State& state) { return state.variant->passes == 2; }))
            negative_ = features(asked_.negative_prompt);
    }

    void say(const std::string& what, std::size_t done = 0, std::size_t total = 0) {
        if (progress_) progress_({what, done, total});
    }

    Transformer load(const std::string& name, Precision precision) {
        say(name + ": loading");
        const TransformerConfig& config = bundle_.variant(name).network;
        const DType dtype = compute_dtype(precision);
        const auto table =
            sharded_specs(config, dtype, shard_of(config, 0, 1, on_.matrix_unit(dtype)));
        return {config, Checkpoint::open(bundle_.dit(name)).load(table, on_), on_};
    }

    /// A network's part of the answer: what of the chosen it leaves.
    void visit(std::size_t index) {
        State& state = states_[index];
        const std::string& name = state.network.variant;
        const bool first = state.cases.empty();
        if (first && state.variant->super_resolution && drawn_.empty()) draw_bases();
        if (first && asked_.against == Precision::fp32) {
            Transformer network = load(name, Precision::fp32);
            render(network, state);
            state.truth = velocities_of(network, state.cases, on_);
        }
        Transformer network = load(name, Precision::bf16);
        if (state.cases.empty()) render(network, state);
        if (state.truth.empty()) state.truth = velocities_of(network, state.cases, on_);

        Fp8Trial trial(network, state.cases, state.truth, on_);
        const auto sets = static_cast<std::size_t>(std::log2(advice_.chosen.size() + 1.0)) + 2;
        std::size_t total = (sets + (first ? advice_.chosen.size() : 0)) * state.truth.size();
        std::size_t done = 0;
        const auto errors = [&](const std::string& what, const Parts& chosen) {
            std::vector<Fp8Part> parts;
            for (const std::size_t part : chosen) parts.push_back(advice_.parts[part]);
            total = std::max(total, done + state.truth.size());
            return trial.errors(parts, [&] { say(name + ": " + what, ++done, total); });
        };
        if (first)
            for (const std::size_t part : advice_.chosen)
                state.network.alone[part] =
                    worst(errors(fmt::format("{} of layer {}", advice_.parts[part].linear,
                                             advice_.parts[part].layer),
                                 {part}));
        std::vector<Fp8Candidate> candidates;
        for (const std::size_t part : advice_.chosen)
            candidates.push_back({part, advice_.work[part], state.network.alone[part]});
        std::map<Parts, std::vector<Fp8Error>> measured;
        const Fp8Set set =
            choose_within(std::move(candidates), asked_.within, [&](const Parts& parts) {
                return worst(measured[parts] =
                                 errors(fmt::format("{} linears together", parts.size()), parts));
            });
        advice_.chosen = set.parts;
        state.network.errors = measured.at(set.parts);
    }

    static double worst(const std::vector<Fp8Error>& errors) {
        double most = 0;
        for (const Fp8Error& error : errors) most = std::max(most, error.worst());
        return most;
    }

    /// Renders with a base stage that is not asked about, for the second stages.
    void draw_bases() {
        const std::string* name = nullptr;
        int steps = 0;
        std::error_code ignored;
        for (const auto& [known, variant] : bundle_.architecture.variants) {
            if (variant.super_resolution ||
                !std::filesystem::is_directory(bundle_.folder / known, ignored))
                continue;
            if (name != nullptr && variant.steps >= steps) continue;
            name = &known;
            steps = variant.steps;
        }
        if (name == nullptr)
            throw_input_error(
                "{}: a second stage begins with what a base network made, and there is "
                "none",
                bundle_.folder.string());
        State unasked{&bundle_.variant(*name), {.variant = *name}, {}, {}};
        if (unasked.variant->passes == 2 && !negative_.defined())
            throw_input_error("{}: its one base network wants guidance; name it, too",
                              bundle_.folder.string());
        Transformer network = load(*name, Precision::bf16);
        render(network, unasked);
    }

    /// Renders every prompt; keeps what the network is shown.
    void render(Transformer& network, State& state) {
        const DitVariant& variant = *state.variant;
        const std::size_t count = asked_.prompts.size();
        for (std::size_t i = 0; i < count; ++i) {
            say(fmt::format("{}: rendering {} of {}", state.network.variant, i + 1, count));
            const StageInputs inputs{.text = texts_[i], .negative = negative_, .image = {}};
            const std::uint64_t seed = asked_.seed + i;
            if (variant.super_resolution)
                render_super(network, state, inputs, i, seed);
            else
                render_base(network, state, inputs, i, seed);
        }
    }

    Tensor noise(std::uint64_t seed, std::string_view stream, const Shape& shape) {
        Tensor made = on_.empty(shape);
        on_.normal(NoiseStream(seed, stream), 0, made);
        return made;
    }

    /// Of a picture of the base stage's size, times `scale`.
    Shape latent_shape(Index scale) const {
        return {video_latent_channels, (asked_.audio_latents - 1) / 4 + 1,
                scale * asked_.size.height / 16, scale * asked_.size.width / 16};
    }

    /// Keeps a step's latents, for the prompt and, with guidance, for the negative one.
    ProgressSink keeper(State& state, std::size_t prompt, const Tensor& video,
                        const Tensor& audio) {
        return [&, prompt](const Progress& at) {
            std::set<int> wanted;
            for (const std::string& step : asked_.steps) wanted.insert(step_of(step, at.steps));
            if (!wanted.contains(at.step)) return;
            const auto copy = [&](const Tensor& from) {
                Tensor made = on_.empty(from.shape());
                on_.copy(from, made);
                return made;
            };
            const auto keep = [&](const std::string& words, const Tensor& text) {
                state.cases.push_back(
                    {{words, at.step, at.steps}, copy(video), copy(audio), &text});
            };
            keep(asked_.prompts[prompt], texts_[prompt]);
            if (state.variant->passes == 2) keep("", negative_);
        };
    }

    void render_base(Transformer& network, State& state, const StageInputs& inputs,
                     std::size_t prompt, std::uint64_t seed) {
        Tensor video = noise(seed, "video", latent_shape(1));
        Tensor audio = noise(seed, "audio",
                             {asked_.audio_latents, bundle_.architecture.audio.decoder.latent_dim});
        BaseSampling sampling;
        sampling.steps = state.variant->steps;
        sampling.passes = state.variant->passes;
        const StepNoise fresh = [&](std::string_view modality, int step, TensorView out) {
            on_.normal(NoiseStream(seed, fmt::format("renoise.{}.{}", modality, step)), 0, out);
        };
        denoise_base(network, sampling, inputs, fresh, on_, video, audio,
                     keeper(state, prompt, video, audio));
        if (drawn_.size() < asked_.prompts.size())
            drawn_.push_back({on_.download(video), on_.download(audio)});
    }

    void render_super(Transformer& network, State& state, const StageInputs& inputs,
                      std::size_t prompt, std::uint64_t seed) {
        const Tensor video = on_.upload(drawn_[prompt].video);
        const Tensor audio = on_.upload(drawn_[prompt].audio);
        SrSampling sampling;
        sampling.steps = state.variant->steps;
        sampling.passes = state.variant->passes;
        SrStart start = start_sr(sampling, video, audio, noise(seed, "sr.video", latent_shape(2)),
                                 noise(seed, "sr.audio", audio.shape()), on_);
        denoise_sr(network, sampling, inputs, on_, start,
                   keeper(state, prompt, start.video, start.audio));
    }

    const Fp8Question& asked_;
    const Bundle bundle_;
    Backend& on_;
    const Fp8ProgressSink& progress_;
    Index layers_ = 0;
    std::vector<Tensor> texts_;  ///< of each prompt, on the backend
    Tensor negative_;
    std::vector<State> states_;
    std::vector<Drawn> drawn_;  ///< of each prompt, by the first base stage
    Fp8Advice advice_;
};

}  // namespace

Fp8Advice advise_fp8(const Fp8Question& question, Backend& on, const Fp8ProgressSink& progress) {
    return Adviser(question, on, progress).answer();
}

}  // namespace gallop
