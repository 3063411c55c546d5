#pragma once

#include "core/random.hpp"
#include "farm/stages.hpp"
#include "support/ready.hpp"

namespace gallop::test {

/// Stages that cost nothing: latents are the item's noise, pictures a function of the latents.
inline Stages fake_stages() {
    constexpr int steps = 3;
    return {
        [](const Item& item, const Conditioning&, const ProgressSink& progress) {
            Latents latents;
            const Index frames = (item.audio_latents - 1) / 4 + 1;
            latents.video_base =
                Tensor(Shape{48, frames, item.base_size.height / 16, item.base_size.width / 16});
            fill_normal(NoiseStream(item.seed, "video"), 0, latents.video_base.span<float>());
            if (!item.sr.empty()) {
                latents.video_final =
                    Tensor(Shape{48, frames, item.size.height / 16, item.size.width / 16});
                fill_normal(NoiseStream(item.seed, "final"), 0, latents.video_final.span<float>());
            }
            latents.audio = Tensor(Shape{item.audio_latents, 64});
            fill_normal(NoiseStream(item.seed, "audio"), 0, latents.audio.span<float>());
            for (int step = 0; step <= steps; ++step) progress({"base", step, steps});
            return latents;
        },
        [](const Tensor& latent, const PictureDecode& how, const FrameSink& sink,
           const ProgressSink& progress) {
            const int frames = how.frames;
            const Index height = latent.size(2) * 16;
            const Index width = latent.size(3) * 16;
            for (int frame = 0; frame < frames; ++frame) {
                Tensor picture(Shape{1, height, width, 3}, DType::u8);
                const auto values = latent.span<float>();
                auto pixels = picture.span<std::uint8_t>();
                for (std::size_t i = 0; i < pixels.size(); ++i)
                    pixels[i] = static_cast<std::uint8_t>(128 + 16 * values[i % values.size()]);
                sink(picture);
                progress({"decode", frame + 1, frames});
            }
        },
        [](const Tensor& latent) {
            return ready(Tensor::zeros(Shape{2, latent.size(0) * 1764}));
        },
        [] {
            return StageSeconds{{{"base", 0.5}}};
        }};
}

}  // namespace gallop::test
