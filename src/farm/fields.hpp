#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/reader.hpp"
#include "pipeline/item.hpp"

namespace gallop {

/// A mistake or a remark, with the place that it is about.
struct Remark {
    Where where;
    std::string text;
};

/// The fields of one item as far as they have been set; read layer by layer, lowest first, each
/// layer over what the layers below set.
struct ItemFields {
    std::string name;
    std::string prompt;
    std::string negative_prompt;
    std::string image;  ///< as written; "" for none
    std::string audio;
    std::optional<std::string> task;
    std::string resolution = "256p";
    std::string sr = "auto";
    std::optional<std::string> base_resolution;
    double seconds = 5.0;
    std::optional<int> frames;  ///< instead of seconds
    std::optional<std::uint64_t> seed;
    std::optional<int> steps;  ///< of the base stage
    std::optional<int> passes;
    std::optional<double> shift;
    std::optional<double> guidance, guidance_late, audio_guidance;
    std::optional<int> guidance_until;
    SrSampling super;
    std::string decoder = "turbo";
    std::string posterior = "sample";  ///< of driving sound

    /// Where a field was set last, and by which layer.
    struct Setting {
        Where where;
        int layer;
    };
    std::map<std::string, Setting, std::less<>> set_at;
    int layers = 0;  ///< read so far
};

/// Names of all fields of an item.
const std::vector<std::string>& item_field_names();

/// Reads one layer of fields over `fields`. Relative paths of text files are tried against
/// `folder`.
void read_fields(Reader& in, const std::filesystem::path& folder, ItemFields& fields);

/// Fields that belong together once all layers are read.
struct ResolvedItem {
    Item item;    ///< without seed and id; for driving sound, without frames and audio_latents
    Where where;  ///< of the item in the manifest
    double seconds = 0;  ///< asked for; 0 when `frames` was
    int frames = 0;      ///< asked for; 0 when `seconds` was
};

/// Checks the fields against each other and makes an item of them. Paths come out absolute.
/// Mistakes go to `problems`, choices worth knowing to `notes`.
ResolvedItem resolve_fields(const ItemFields& fields, const std::string& variant,
                            const std::filesystem::path& folder, const Where& where,
                            std::vector<Remark>& problems, std::vector<Remark>& notes);

/// Pictures and sound latents of a clip. Source: the reference's evaluate step: 25 sound latents a
/// second and one more, four pictures a latent frame.
struct Length {
    int frames = 0;         ///< pictures
    int audio_latents = 0;  ///< A
};
/// Of a duration: A = floor(25·s) + 1, T = (A − 1) div 4 + 1, 4(T − 1) + 1 pictures.
Length length_of_seconds(double seconds);
/// Of a number of pictures: T = ceil((N − 1)/4) + 1, A = 4(T − 1) + 1, trimmed to N pictures.
Length length_of_frames(int frames);
/// Of driving sound of `samples` at 51,200 Hz: A = samples div 2048, T and the pictures from A.
/// Zero when it is too short for one latent.
Length length_of_sound(std::int64_t samples);

}  // namespace gallop
