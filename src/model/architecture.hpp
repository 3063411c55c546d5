#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/reader.hpp"
#include "model/audio_vae.hpp"
#include "model/text_encoder.hpp"
#include "model/transformer.hpp"
#include "model/turbo_vae.hpp"
#include "model/wan_vae.hpp"

namespace gallop {

/// One of a family's transformers: they differ in training, in coordinates, and in local attention.
struct DitVariant {
    TransformerConfig network;
    DType linears = DType::f32;  ///< as its folder stores the block linears: f32 or bf16
    bool super_resolution = false;
    int steps = 8;   ///< of the trials that judge it (fp8, bench); a render has its request's
    int passes = 1;  ///< of the same; 2: with guidance
};

/// The sizes of all networks of a model folder. The initial values are the published 15B, but for
/// the variants, of which there are none.
struct Architecture {
    std::string name;
    std::map<std::string, DitVariant> variants;  ///< by folder: base, distill, 540p_sr, 1080p_sr
    WanVaeConfig wan;
    TurboVaeConfig turbo;
    AudioVaeConfig audio;
    TextEncoderConfig text;
};

/// The published daVinci-MagiHuman: four variants of 15,299,419,152 elements each.
Architecture published_architecture();

/// Reads an architecture file: `name`, `dit` (what the variants share, keys as in DiTConfig),
/// `variants` (by folder, what differs, and `linears`, `super_resolution`, `steps`, `passes`),
/// `wan`, and `turbo`, `audio`, `text` as in the JSON files published with those networks. A key
/// that is not there has the published value. Problems are the reader's, also for networks that do
/// not fit together.
Architecture read_architecture(Reader& in);

/// The same from a file. Throws InputError.
Architecture read_architecture(const std::filesystem::path& path);

}  // namespace gallop
