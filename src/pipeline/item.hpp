#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/tensor.hpp"
#include "core/yuv.hpp"

namespace gallop {

/// Width and height in pixels, both multiples of 32.
struct Size {
    int width = 448;
    int height = 256;
    bool operator==(const Size&) const = default;
};

/// How the base stage samples. Source: reference/config of daVinci-MagiHuman.
struct BaseSampling {
    int steps = 8;
    int passes = 1;         ///< 2: classifier-free guidance with UniPC; 1: re-noising, no guidance
    double shift = 5.0;     ///< of the noise levels
    double guidance = 5.0;  ///< of the picture while the integer timestep exceeds `guidance_until`
    double guidance_late = 2.0;  ///< of the picture afterwards
    int guidance_until = 500;
    double audio_guidance = 5.0;
};

/// How the super-resolution stage samples.
struct SrSampling {
    int steps = 5;
    int passes = 1;
    double shift = 5.0;
    double guidance = 3.5;  ///< only with two passes
    int trick_frames = 13;  ///< the first so many latent frames get `trick_guidance`
    double trick_guidance = 2.0;
    int noise_value = 220;     ///< entry of the zero-terminal-SNR table
    double audio_noise = 0.7;  ///< share of noise in the sound that the network is shown
};

enum class VideoDecoder { turbo, wan };

/// How a picture latent is decoded.
struct PictureDecode {
    VideoDecoder decoder = VideoDecoder::turbo;
    int frames = 0;  ///< pictures wanted
    /// In as many strips as are worth it, for the least memory; otherwise in as few as fit. A
    /// colour value beside a step between two levels may fall on its other side.
    bool tiled = false;
    std::optional<YuvFormat> planes = {};  ///< as an encoder's planes; nothing: RGB
};

/// One clip to render, fully resolved: everything that changes a pixel or a sample.
struct Item {
    std::string name;  ///< the person's word for it; not part of the id
    std::string id;    ///< content hash, 32 hex digits
    std::string prompt;
    std::string negative_prompt;  ///< for two passes; empty otherwise
    std::string image;            ///< path of the conditioning image, or empty
    std::string audio;            ///< path of the driving sound, or empty
    std::uint64_t seed = 42;
    std::string variant = "distill";  ///< folder of the base DiT: "base" or "distill"
    std::string sr;    ///< folder of the super-resolution DiT ("540p_sr", "1080p_sr"), or empty
    Size base_size;    ///< of the base stage
    Size size;         ///< of the finished picture; base_size when `sr` is empty
    int frames = 125;  ///< pictures in the finished clip, ≥ 1
    int audio_latents = 126;  ///< A, 25 a second; the picture has (A − 1) div 4 + 1 latent frames
    Index audio_samples =
        0;  ///< of the driving sound at 51,200 Hz, all of them encoded; 0 without one
    BaseSampling base;
    SrSampling super;
    VideoDecoder decoder = VideoDecoder::turbo;
    bool audio_posterior_mean = false;  ///< encode driving sound by its mean; otherwise sample
    bool tiled_decode = false;          ///< asks for decoding in tiles, as PictureDecode::tiled
};

/// Pictures and sounds that condition an item, decoded.
struct Conditioning {
    Tensor image;  ///< [Y, X, 3] u8 RGB, upright, any size; undefined when there is none
    Tensor audio;  ///< [S] f32 mono at 51,200 Hz; undefined when there is none
};

/// Latents of a clip, on the host, f32.
struct Latents {
    Tensor video_base;   ///< [48, T, Y, X]
    Tensor video_final;  ///< after super-resolution; undefined without it
    Tensor audio;        ///< [A, 64]
    /// What is decoded: the final picture where there is one.
    const Tensor& video() const { return video_final.defined() ? video_final : video_base; }
};

}  // namespace gallop
