#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/clip.hpp"
#include "model/fp8.hpp"
#include "ops/backend.hpp"
#include "pipeline/item.hpp"

namespace gallop {

/// Where a clip stands, for progress lines and heartbeats.
struct Progress {
    std::string stage;  ///< "text", "image", "audio", "base", "sr", "decode"
    int step = 0;       ///< done
    int steps = 0;      ///< in this stage
};
using ProgressSink = std::function<void(const Progress&)>;

/// fp32: fp32 throughout. bf16: the published casts. fp8: these, but for the linears that an Fp8Choice
/// names, which multiply in E4M3.
enum class Precision { fp32, bf16, fp8 };
/// Of weights and activations, but for what fp8 multiplies in E4M3.
inline DType compute_dtype(Precision precision) {
    return precision == Precision::fp32 ? DType::f32 : DType::bf16;
}

/// Where the models are and what they look like.
struct ModelChoice {
    std::string path;  ///< the model folder
    std::string arch;  ///< architecture file; empty: the folder's own `gallop.yaml`, else the 15B
    Precision precision = Precision::bf16;
    Fp8Choice fp8 = {};  ///< only for Precision::fp8
};

/// What a rendered clip cost: seconds per stage, in order.
struct StageSeconds {
    std::vector<std::pair<std::string, double>> stages;
    /// Bytes that arrays held at the peak of a stage, weights of all loaded networks included; what
    /// the device's libraries take of their own isn't. Empty where the backend doesn't count.
    std::vector<std::pair<std::string, std::size_t>> peak_bytes = {};
};

/// Owns the models of one folder on one backend, loads each when first needed and keeps it while
/// there is room: where a stage's network and arrays don't fit beside what is there, the networks that
/// were unused for longest leave, and come back when they are needed. One clip at a time.
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
    /// Decodes a sound latent [A, 64] → [2, A·1764] f32 at 44,100 Hz.
    Tensor decode_audio(const Tensor& latent);
    /// Seconds spent and memory held per stage since the last call.
    StageSeconds take_timings();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace gallop
