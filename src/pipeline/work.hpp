#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>

#include "pipeline/memory_model.hpp"

namespace gallop {

/// What a clip's time is spent on, as `Renderer::take_timings` names it; `write` is everything
/// behind the networks: colour, encoders, files.
enum class Stage { text, image, audio, base, sr, decode, decode_audio, write, count };
inline constexpr std::size_t stage_count = static_cast<std::size_t>(Stage::count);
const char* name_of(Stage stage);

/// One number a stage.
using PerStage = std::array<double, stage_count>;

/// Work of one clip: FLOP of the networks; for `write`, pixels.
/// And what its stages take of a device at the least: pictures are decoded in strips.
struct ClipWork {
    PerStage amount{};
    std::array<StageMemory, stage_count> memory{};  ///< nothing for stages that the clip hasn't

    /// Bytes with which no network leaves the device from the first step of denoising to the last picture;
    /// the text encoder, whose features are kept, may.
    std::size_t memory_bytes() const;
};

/// Counts work from the shapes of a model folder's networks; opens no weights.
/// Source: the layer tables of the networks; tokens as in data_proxy.py of daVinci-MagiHuman.
class WorkModel {
public:
    /// unit: of the device's matrices, see Backend::matrix_unit. Throws InputError when the folder's
    /// configuration is wrong.
    explicit WorkModel(const ModelChoice& choice, Index unit = 1);
    ~WorkModel();
    WorkModel(WorkModel&&) noexcept;
    WorkModel& operator=(WorkModel&&) noexcept;

    /// For an item of `gpus` sharing it, which split the transformers. Throws InputError when they can't.
    ClipWork of(const Item& item, int gpus = 1) const;
    /// Whether so many GPUs can share an item's transformers: their heads must divide.
    bool can_share(const Item& item, int gpus) const;
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
/// three tokens for four other characters. The text encoder reads them all, the transformers the first
/// `max_text_rows`.
double estimated_tokens(std::string_view prompt);

}  // namespace gallop
