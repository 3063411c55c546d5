#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "farm/fields.hpp"
#include "farm/problems.hpp"
#include "pipeline/item.hpp"

namespace gallop {

/// Fields that belong together once all layers are read.
struct ResolvedItem {
    Item item;           ///< without seed and id; for driving sound, without its length
    Where where;         ///< of the item in the manifest, or of its row
    double seconds = 0;  ///< asked for, or the default; 0 when `frames` was
    bool seconds_given = false;
    int frames = 0;  ///< asked for; 0 when `seconds` was
};

/// Checks the fields against each other and makes an item of them. Paths come out absolute, taken
/// from `folder`. Mistakes go to `problems`, choices worth knowing to `notes`.
/// `negative_prompt`: what stands in for a missing one where an item is guided.
ResolvedItem resolve_fields(const ItemFields& fields, const std::string& variant,
                            const std::filesystem::path& folder, const Where& where,
                            const std::string& negative_prompt, Problems& problems,
                            Problems& notes);

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
/// Of driving sound of `samples` at 51,200 Hz: A = ⌊samples/2048⌋ up to 29 s, ⌈samples/2048⌉ above,
/// where it is read in windows; T and the pictures from A. Zero when it is too short for one latent.
Length length_of_sound(Index samples);
/// Samples at 51,200 Hz of a duration: ⌊51200·s⌋.
Index samples_of_seconds(double seconds);

}  // namespace gallop
