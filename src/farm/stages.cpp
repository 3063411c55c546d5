#include "farm/stages.hpp"

namespace gallop {

Stages stages_of(Renderer& renderer) {
    return {
        [&renderer](const Item& item, const Conditioning& inputs, const ProgressSink& progress) {
            return renderer.denoise(item, inputs, progress);
        },
        [&renderer](const Tensor& latent, const PictureDecode& how, const FrameSink& sink,
                    const ProgressSink& progress) {
            renderer.decode_video(latent, how, sink, progress);
        },
        [&renderer](const Tensor& latent) { return renderer.decode_audio(latent); },
        [&renderer] { return renderer.take_timings(); }};
}

}  // namespace gallop
