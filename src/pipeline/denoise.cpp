#include "pipeline/denoise.hpp"

#include <algorithm>
#include <cmath>

#include "pipeline/sampler.hpp"

namespace gallop {
namespace {

void report(const ProgressSink& progress, std::string_view stage, int step, int steps) {
    if (progress) progress({std::string(stage), step, steps});
}

/// The velocity of one step, guided when there are two passes. `video_scales`: one per latent
/// frame.
Velocity predict(Transformer& model, int passes, const StageInputs& inputs, ConstTensorView video,
                 ConstTensorView audio, std::span<const float> video_scales, float audio_scale,
                 Backend& on) {
    Velocity velocity = model.forward({video, audio, inputs.text});
    if (passes == 1) return velocity;
    const Velocity negative = model.forward({video, audio, inputs.negative});
    on.guide(negative.video, velocity.video, video_scales, velocity.video);
    const auto as_picture = [](auto view) {
        return view.reshape({1, 1, view.size(0), view.size(1)});
    };
    on.guide(as_picture(negative.audio.view()), as_picture(std::as_const(velocity.audio).view()),
             std::span(&audio_scale, 1), as_picture(velocity.audio.view()));
    return velocity;
}

void check_passes(int passes, const StageInputs& inputs) {
    CHECK(passes == 1 || passes == 2, "{} guidance passes (1 or 2)", passes);
    CHECK(passes == 1 || inputs.negative.defined(), "two guidance passes need a negative prompt");
}

}  // namespace

void denoise_base(Transformer& model, const BaseSampling& sampling, const StageInputs& inputs,
                  const StepNoise& noise, Backend& on, TensorView video, TensorView audio,
                  const ProgressSink& progress) {
    check_passes(sampling.passes, inputs);
    const NoiseLevels levels = noise_levels(sampling.steps, sampling.shift);
    UniPc video_solver(levels, on);
    UniPc audio_solver(levels, on);
    const auto restore_frame = [&] {
        if (inputs.image.defined()) on.set_first_frame(inputs.image, video);
    };
    for (int i = 0; i < sampling.steps; ++i) {
        report(progress, "base", i, sampling.steps);
        restore_frame();
        const auto step = static_cast<std::size_t>(i);
        const bool early = levels.timesteps[step] > sampling.guidance_until;
        const std::vector<float> scales(
            static_cast<std::size_t>(video.size(1)),
            static_cast<float>(early ? sampling.guidance : sampling.guidance_late));
        const Velocity velocity = predict(model, sampling.passes, inputs, video, audio, scales,
                                          static_cast<float>(sampling.audio_guidance), on);
        if (sampling.passes == 2) {
            video_solver.step(velocity.video, video);
            if (!inputs.audio_fixed) audio_solver.step(velocity.audio, audio);
        } else {
            const auto renoise = [&](std::string_view modality, const Tensor& v,
                                     TensorView sample) {
                Tensor fresh = on.empty(sample.shape());
                noise(modality, i, fresh);
                renoise_step(levels, step, v, fresh, on, sample);
            };
            renoise("video", velocity.video, video);
            if (!inputs.audio_fixed) renoise("audio", velocity.audio, audio);
        }
    }
    restore_frame();
    report(progress, "base", sampling.steps, sampling.steps);
}

SrStart start_sr(const SrSampling& sampling, ConstTensorView base_video, ConstTensorView base_audio,
                 ConstTensorView video_noise, ConstTensorView audio_noise, Backend& on) {
    const std::vector<float> table = zero_snr_table();
    CHECK(sampling.noise_value >= 0 && sampling.noise_value < static_cast<int>(table.size()),
          "noise_value {} (0 to {})", sampling.noise_value, table.size() - 1);
    SrStart start;
    start.upsampled = on.empty(video_noise.shape());
    on.upsample_bilinear(base_video, start.upsampled);
    start.video = on.empty(video_noise.shape());
    if (sampling.noise_value == 0) {  // the reference's word for "no noise"
        on.copy(start.upsampled, start.video);
    } else {
        const float signal = table[static_cast<std::size_t>(sampling.noise_value)];
        const std::array<Term, 2> mix{
            {{signal, start.upsampled}, {std::sqrt(1.0F - signal * signal), video_noise}}};
        on.combine(mix, start.video);
    }
    start.audio = on.empty(base_audio.shape());
    const std::array<Term, 2> mix{{{static_cast<float>(sampling.audio_noise), audio_noise},
                                   {static_cast<float>(1.0 - sampling.audio_noise), base_audio}}};
    on.combine(mix, start.audio);
    return start;
}

void denoise_sr(Transformer& model, const SrSampling& sampling, const StageInputs& inputs,
                Backend& on, SrStart& start, const ProgressSink& progress) {
    check_passes(sampling.passes, inputs);
    const NoiseLevels levels = noise_levels(sampling.steps, sampling.shift);
    UniPc solver(levels, on);
    const auto restore_frame = [&] {
        if (inputs.image.defined()) on.set_first_frame(inputs.image, start.video);
    };
    // Lower guidance on the first frames avoids over-exposure when an image is given; the reference
    // applies it without one as well.
    std::vector<float> scales(static_cast<std::size_t>(start.video.size(1)),
                              static_cast<float>(sampling.guidance));
    const auto trick = std::min(scales.size(), static_cast<std::size_t>(sampling.trick_frames));
    std::fill_n(scales.begin(), trick,
                static_cast<float>(std::min(sampling.trick_guidance, sampling.guidance)));
    for (int i = 0; i < sampling.steps; ++i) {
        report(progress, "sr", i, sampling.steps);
        restore_frame();
        const Velocity velocity =
            predict(model, sampling.passes, inputs, start.video, start.audio, scales, 1.0F, on);
        solver.step(velocity.video, start.video);
    }
    restore_frame();
    report(progress, "sr", sampling.steps, sampling.steps);
}

}  // namespace gallop
