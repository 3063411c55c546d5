#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>

#include "pipeline/item.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// What a clip's time is spent on, as `Renderer::take_timings` names it; `write` is everything
/// behind the networks: colour, encoders, files.
enum class Stage { text, image, audio, base, sr, decode, decode_audio, write, count };
inline constexpr std::size_t stage_count = static_cast<std::size_t>(Stage::count);
const char* name_of(Stage stage);

/// One number a stage.
using PerStage = std::array<double, stage_count>;

/// Work of one clip: FLOP of the networks; for `write`, pixels.
/// And the bytes that a device needs for it at the peak.
struct ClipWork {
    PerStage amount{};
    double weight_bytes = 0;      ///< of the networks that stay on the device
    double activation_bytes = 0;  ///< the largest stage's
};

/// Counts work from the shapes of a model folder's networks; opens no weights.
/// Source: the layer tables of the networks; tokens as in data_proxy.py of daVinci-MagiHuman.
class WorkModel {
public:
    /// Throws InputError when the folder's configuration is wrong.
    explicit WorkModel(const ModelChoice& choice);
    ~WorkModel();
    WorkModel(WorkModel&&) noexcept;
    WorkModel& operator=(WorkModel&&) noexcept;

    /// For an item of `gpus` sharing it, which split the transformers.
    ClipWork of(const Item& item, int gpus = 1) const;
    /// FLOP of one forward of a transformer at this many tokens.
    double forward(std::string_view network, Size size, int audio_latents,
                   double text_tokens) const;
    /// FLOP of decoding a picture.
    double decode(VideoDecoder decoder, Size size, int latent_frames) const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Tokens that a prompt comes to, estimated from its length: 3.7 letters of Latin script a token,
/// three tokens for four other characters, at most the 640 that the model is given.
double estimated_tokens(std::string_view prompt);

}  // namespace gallop
