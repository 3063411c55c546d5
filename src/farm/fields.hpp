#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/node.hpp"
#include "farm/problems.hpp"
#include "farm/setting.hpp"

namespace gallop {

/// The fields of an item, in the order of the table behind `item_field`.
enum class ItemField : std::uint8_t {
    name,
    prompt,
    negative_prompt,
    negative_prompt_file,
    image,
    audio,
    task,
    resolution,
    base_resolution,
    seconds,
    frames,
    seed,
    steps_base,
    steps_sr,
    passes,
    shift,
    guidance,  ///< a number for picture and sound alike; stands for the four below
    guidance_video,
    guidance_late,
    guidance_until,
    guidance_audio,
    sr,  ///< the model alone; stands for sr_model
    sr_model,
    sr_passes,
    sr_shift,
    sr_guidance,
    sr_trick_frames,
    sr_trick_guidance,
    sr_noise_value,
    sr_audio_noise,
    decoder,
    decode_tiled,
    audio_posterior,
    count
};
inline constexpr std::size_t item_field_count = static_cast<std::size_t>(ItemField::count);

/// The row of the table.
const Field& item_field(ItemField field);
/// All of them, in order.
const std::vector<Field>& item_fields();

/// The layers that may set an item's field; later ones win.
enum class Rank : std::uint8_t { preset, defaults, cell, item, overrides, command_line };
/// "preset", "defaults", "sweep cell", "item", "overrides", "--set".
const char* name_of(Rank rank);

/// One field set by one layer.
struct Assignment {
    ItemField field;
    Value value;
    Where where;
    Rank rank;
};

/// What one layer sets, in the order in which it is to be applied. A field that stands for several
/// comes as those; one that excludes another (frames, seconds) unsets that first.
using Layer = std::vector<Assignment>;

/// Reads a map of fields, nested (`steps: {base: 8}`) or dotted (`steps.base: 8`). Paths of text
/// files are taken from `folder`. `skip`: keys of the map that are none of these fields; `also`:
/// further known keys, for the hint about an unknown one.
Layer read_layer(const Node& map, Rank rank, const std::filesystem::path& folder,
                 Problems& problems, const std::vector<std::string>& skip = {});

/// Adds what `field: value` sets to a layer. False after a problem.
bool read_assignment(ItemField field, const Node& value, Rank rank,
                     const std::filesystem::path& folder, Problems& problems, Layer& layer);

/// Finds the field of a dotted path; ItemField::count when there is none.
ItemField find_item_field(std::string_view path);

/// Who set each field last. Holds addresses: the layers must outlive it.
class ItemFields {
public:
    void apply(const Layer& layer);
    void apply(const Assignment& one) { set_[index(one.field)] = &one; }
    /// The winning assignment; nullptr when nobody set the field.
    const Assignment* at(ItemField field) const {
        const Assignment* found = set_[index(field)];
        return found == nullptr || std::holds_alternative<std::monostate>(found->value) ? nullptr
                                                                                        : found;
    }
    bool has(ItemField field) const { return at(field) != nullptr; }
    // The value that holds: set, or else the default. `variant` is the model's.
    Value value(ItemField field, std::string_view variant) const;
    const std::string& text(ItemField field) const;
    double number(ItemField field, double fallback) const;
    int whole(ItemField field, int fallback) const;

private:
    static std::size_t index(ItemField field) { return static_cast<std::size_t>(field); }
    std::array<const Assignment*, item_field_count> set_{};
};

}  // namespace gallop
