#pragma once

#include <functional>
#include <string_view>

#include "model/transformer.hpp"
#include "pipeline/item.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// What a stage is conditioned on, on the backend.
struct StageInputs {
    ConstTensorView text;      ///< [L, D] f32, the prompt's features
    ConstTensorView negative;  ///< [L', D] f32; only read with two passes
    ConstTensorView image;     ///< [48, 1, h, w] f32, the clean first frame, or undefined
    bool audio_fixed = false;  ///< driving sound: the audio latent is given and stays as it is
};

/// Fills `out` with the fresh noise of one step; `modality` is "video" or "audio".
using StepNoise = std::function<void(std::string_view modality, int step, TensorView out)>;

/// The base stage, in place on [48, T, h, w] and [A, 64], which start as noise. Two passes: UniPC
/// with classifier-free guidance; one pass: re-noising with `noise`. The given frame 0 is put back
/// before every forward and after the last step. Driving sound stays fixed with either sampler (the
/// reference's distilled path loses it). Source: evaluate_with_latent in video_generate.py.
void denoise_base(Transformer& model, const BaseSampling& sampling, const StageInputs& inputs,
                  const StepNoise& noise, Backend& on, TensorView video, TensorView audio,
                  const ProgressSink& progress = {});

/// What the super-resolution stage begins with.
struct SrStart {
    Tensor upsampled;  ///< [48, T, h', w'] f32, before the noise
    Tensor video;      ///< the same with noise: the first sample
    Tensor audio;      ///< [A, 64] f32, the mix that the network is shown
};

/// Upsamples and re-noises base latents. `video_noise` has the final size. Source: `evaluate` in
/// video_generate.py.
SrStart start_sr(const SrSampling& sampling, ConstTensorView base_video, ConstTensorView base_audio,
                 ConstTensorView video_noise, ConstTensorView audio_noise, Backend& on);

/// The super-resolution stage: UniPC on the picture of `start`, in place; the sound is an input
/// only. With two passes the guidance has one scale per latent frame.
void denoise_sr(Transformer& model, const SrSampling& sampling, const StageInputs& inputs,
                Backend& on, SrStart& start, const ProgressSink& progress = {});

}  // namespace gallop
