#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>

#include "core/clip.hpp"
#include "ops/backend.hpp"
#include "pipeline/item.hpp"
#include "pipeline/model_choice.hpp"
#include "pipeline/stage_runner.hpp"

namespace gallop {

/// Where a clip stands, for progress lines and heartbeats.
struct Progress {
    std::string stage;  ///< "text", "image", "audio", "base", "sr", "decode"
    int step = 0;       ///< done
    int steps = 0;      ///< in this stage
};
using ProgressSink = std::function<void(const Progress&)>;

/// Renders clips with the models of one folder on one backend, which are loaded when first needed and stay
/// while there is room. Between stages all of a clip is on the host; what a stage has on the device lies in
/// a block of its own, whose size a MemoryModel foretells. One clip at a time.
class Renderer {
public:
    /// Reads the folder's architecture; no weights yet. Throws InputError.
    Renderer(const ModelChoice& choice, Backend& on);
    /// One member of a tensor-parallel group: the transformers are shared, all else each member has
    /// whole. All members denoise the same items in the same order and get the same latents; any
    /// one of them may decode. `group` must outlive it.
    Renderer(const ModelChoice& choice, Backend& on, Group& group);
    ~Renderer();

    /// The latents of an item. Throws InputError for a request that can't be met, Error when the
    /// latents come out not finite or constant, GroupError.
    Latents denoise(const Item& item, const Conditioning& inputs,
                    const ProgressSink& progress = {});
    /// The second stage alone: an item's latents from those of its base stage (stored ones of a
    /// draft, say), bit by bit what `denoise` gives where the base latents are the same. base:
    /// `video_base` and `audio`. Throws InputError when they don't fit the item, or the item has no
    /// second stage; Error as `denoise`.
    Latents refine(const Item& item, const Conditioning& inputs, Latents base,
                   const ProgressSink& progress = {});
    /// Decodes a picture latent [48, T, Y, X] chunk by chunk; the first `how.frames` pictures go to
    /// `sink`, on another thread, while the next ones are decoded. Throws what the sink throws.
    void decode_video(const Tensor& latent, const PictureDecode& how, const FrameSink& sink,
                      const ProgressSink& progress = {});
    /// Decodes a sound latent [A, 64] → [2, A·1764] f32 at 44,100 Hz, ready once it is resampled on another
    /// thread.
    std::future<Tensor> decode_audio(const Tensor& latent);
    /// Seconds spent and memory held per stage since the last call.
    StageSeconds take_timings();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace gallop
