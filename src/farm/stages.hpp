#pragma once

#include <functional>
#include <future>

#include "core/clip.hpp"
#include "pipeline/item.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// What rendering an item asks of the engine: Renderer's functions, or a test's.
struct Stages {
    std::function<Latents(const Item&, const Conditioning&, const ProgressSink&)> denoise;
    std::function<void(const Tensor&, const PictureDecode&, const FrameSink&, const ProgressSink&)>
        decode_video;
    std::function<std::future<Tensor>(const Tensor&)> decode_audio;
    std::function<StageSeconds()> take_timings;
};

/// `renderer` must outlive the result.
Stages stages_of(Renderer& renderer);

}  // namespace gallop
