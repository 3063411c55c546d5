#include "farm/fields.hpp"

#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/files.hpp"
#include "core/reader.hpp"
#include "core/scalar.hpp"
#include "farm/canonical_json.hpp"
#include "pipeline/item.hpp"

namespace gallop {
namespace {

using F = ItemField;
using Kind = FieldType::Kind;

constexpr double most_seconds = 600;
constexpr double largest_seed = 9007199254740991;  // 2⁵³ − 1: exact in canonical JSON

const FieldType text = {Kind::text};
const FieldType picture_size = {Kind::size, 0, 0, {"256p", "540p", "1080p"}};
const FieldType guidance_scale = {Kind::number, 0, 100};
const FieldType sr_models = {Kind::choice, 0, 0, {"auto", "none", "540p_sr", "1080p_sr"}};

std::vector<Field> make_table() {
    std::vector<std::pair<F, Field>> rows = {
        {F::name, {"name", text, "The item's name; names must differ"}},
        {F::prompt, {"prompt", text, "What is to be seen and heard"}},
        {F::negative_prompt,
         {"negative_prompt", text,
          "What is not to be seen and heard; used with two passes, where a shipped text stands "
          "in"}},
        {F::negative_prompt_file,
         {"negative_prompt_file", text, "A text file that holds the negative prompt"}},
        {F::image, {"image", text, "Path of the first picture"}},
        {F::audio, {"audio", text, "Path of the driving sound"}},
        {F::task,
         {"task",
          {Kind::choice, 0, 0, {"t2av", "ti2av", "a2v"}},
          "t2av: text only; ti2av: with an image; a2v: with driving sound. Follows from the "
          "inputs"}},
        {F::resolution, {"resolution", picture_size, "Size of the finished picture"}},
        {F::base_resolution,
         {"base_resolution", picture_size, "Size of the base stage's picture, before sr"}},
        {F::seconds, {"seconds", {Kind::number, 0.001, most_seconds}, "How long the clip lasts"}},
        {F::frames,
         {"frames", {Kind::whole, 1, most_seconds * 25}, "How many pictures, in place of seconds"}},
        {F::seed, {"seed", {Kind::whole, 0, largest_seed}, "Seed of this item's noise"}},
        {F::steps_base, {"steps.base", {Kind::whole, 1, 1000}, "Steps of the base stage"}},
        {F::steps_sr, {"steps.sr", {Kind::whole, 1, 1000}, "Steps of super-resolution"}},
        {F::passes,
         {"passes", {Kind::whole, 1, 2}, "2: guided by a negative prompt; 1: without guidance"}},
        {F::shift, {"shift", {Kind::number, 0.1, 100}, "Shift of the base stage's noise levels"}},
        {F::guidance,
         {"guidance", guidance_scale, "Guidance of picture and sound; only with two passes"}},
        {F::guidance_video, {"guidance.video", guidance_scale, "Guidance of the picture"}},
        {F::guidance_late,
         {"guidance.late", guidance_scale, "Guidance of the picture in the late steps"}},
        {F::guidance_until,
         {"guidance.until", {Kind::whole, 0, 1000}, "Timestep at which the late steps begin"}},
        {F::guidance_audio, {"guidance.audio", guidance_scale, "Guidance of the sound"}},
        {F::sr, {"sr", sr_models, "Super-resolution model; auto goes by the resolution"}},
        {F::sr_model,
         {"sr.model", sr_models, "Super-resolution model; auto goes by the resolution"}},
        {F::sr_passes, {"sr.passes", {Kind::whole, 1, 2}, "2: super-resolution with guidance"}},
        {F::sr_shift, {"sr.shift", {Kind::number, 0.1, 100}, "Shift of its noise levels"}},
        {F::sr_guidance, {"sr.guidance", guidance_scale, "Its guidance; only with two passes"}},
        {F::sr_trick_frames,
         {"sr.trick_frames",
          {Kind::whole, 0, 100000},
          "The first so many latent frames are guided by trick_guidance"}},
        {F::sr_trick_guidance,
         {"sr.trick_guidance", guidance_scale, "Guidance of the first latent frames"}},
        {F::sr_noise_value,
         {"sr.noise_value", {Kind::whole, 0, 999}, "How much noise it starts from"}},
        {F::sr_audio_noise,
         {"sr.audio_noise", {Kind::number, 0, 1}, "Share of noise in the sound it is shown"}},
        {F::decoder,
         {"decoder", {Kind::choice, 0, 0, {"turbo", "wan"}}, "Which network decodes the picture"}},
        {F::decode_tiled,
         {"decode.tiled",
          {Kind::flag},
          "Always decode the picture in tiles, for the least memory; otherwise only where it does "
          "not fit"}},
        {F::audio_posterior,
         {"audio_posterior",
          {Kind::choice, 0, 0, {"sample", "mean"}},
          "How driving sound is encoded"}},
    };
    std::vector<Field> table(item_field_count);
    for (auto& [field, row] : rows) table[static_cast<std::size_t>(field)] = std::move(row);
    return table;
}

/// The text of a file that a manifest names. Nothing after a problem.
std::optional<std::string> read_prompt_file(const std::string& name, const Where& where,
                                            const std::filesystem::path& folder,
                                            Problems& problems) {
    try {
        std::string content = read_text(folder / name, 1U << 16);
        while (content.ends_with('\n') || content.ends_with('\r')) content.pop_back();
        if (is_utf8(content) && content.find('\0') == std::string::npos) return content;
        problems.add(where, fmt::format("negative_prompt_file: {} is not UTF-8 text", name));
    } catch (const Error& failed) {
        problems.add(where, fmt::format("negative_prompt_file: {}", failed.what()));
    }
    return {};
}

bool is_group(std::string_view prefix) {
    for (const Field& row : item_fields())
        if (row.path.size() > prefix.size() && row.path.starts_with(prefix) &&
            row.path[prefix.size()] == '.')
            return true;
    return false;
}

/// The names that may stand in a map whose fields begin with `prefix`.
std::vector<std::string> names_below(std::string_view prefix) {
    std::vector<std::string> names;
    for (const Field& row : item_fields()) {
        if (!row.path.starts_with(prefix)) continue;
        std::string name = row.path.substr(prefix.size());
        if (!prefix.empty() || name.find('.') == std::string::npos) names.push_back(name);
        name.resize(std::min(name.find('.'), name.size()));
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    return names;
}

/// One walk over a layer's map.
struct LayerReader {
    Rank rank;
    const std::filesystem::path& folder;
    const std::vector<std::string>& skip;
    Problems& problems;
    Layer layer;
    std::vector<ItemField> seen;

    void read(const Node& map, const std::string& prefix) {
        if (map.kind == Node::Kind::null) return;
        if (map.kind != Node::Kind::map) {
            std::string group = prefix.substr(0, prefix.empty() ? 0 : prefix.size() - 1);
            problems.add(map.where,
                         fmt::format("{}{} (must be a map)", group.empty() ? "" : group + " is ",
                                     in_words(map)));
            return;
        }
        for (const auto& [key, value] : map.entries) entry(key, value, prefix);
    }

    void entry(const Node& key, const Node& value, const std::string& prefix) {
        if (prefix.empty() && std::find(skip.begin(), skip.end(), key.scalar) != skip.end()) return;
        const std::string path = prefix + key.scalar;
        const ItemField field = find_item_field(path);
        if (value.kind == Node::Kind::map && is_group(path)) return read(value, path + ".");
        if (field == F::count) {
            if (is_group(path)) {
                problems.add(value.where,
                             fmt::format("{} is {} (must be a map with {})", path, in_words(value),
                                         fmt::join(names_below(path + "."), ", ")));
                return;
            }
            std::vector<std::string> known = names_below(prefix);
            if (prefix.empty()) known.insert(known.end(), skip.begin(), skip.end());
            problems.add(key.where, unknown_key(key.scalar, known));
            return;
        }
        if (std::find(seen.begin(), seen.end(), field) != seen.end())
            problems.add(key.where, fmt::format("{} is set twice in one place", path));
        seen.push_back(field);
        const auto beside = [&](F other, const char* remark) {
            if (std::find(seen.begin(), seen.end(), other) != seen.end())
                problems.add(value.where, remark);
        };
        if (field == F::frames) beside(F::seconds, "frames stands beside seconds (one of the two)");
        if (field == F::seconds) beside(F::frames, "seconds stands beside frames (one of the two)");
        if (field == F::negative_prompt_file)
            beside(F::negative_prompt,
                   "negative_prompt_file stands beside negative_prompt (one of the two)");
        if (field == F::negative_prompt)
            beside(F::negative_prompt_file,
                   "negative_prompt stands beside negative_prompt_file (one of the two)");
        read_assignment(field, value, rank, folder, problems, layer);
    }
};

}  // namespace

const std::vector<Field>& item_fields() {
    static const std::vector<Field> table = make_table();
    return table;
}

const Field& item_field(ItemField field) { return item_fields()[static_cast<std::size_t>(field)]; }

ItemField find_item_field(std::string_view path) {
    const std::vector<Field>& table = item_fields();
    for (std::size_t i = 0; i < table.size(); ++i)
        if (table[i].path == path) return static_cast<ItemField>(i);
    return F::count;
}

const char* name_of(Rank rank) {
    switch (rank) {
        case Rank::preset: return "preset";
        case Rank::defaults: return "defaults";
        case Rank::cell: return "sweep cell";
        case Rank::item: return "item";
        case Rank::overrides: return "overrides";
        case Rank::command_line: return "--set";
    }
    return "?";
}

bool read_assignment(ItemField field, const Node& node, Rank rank,
                     const std::filesystem::path& folder, Problems& problems, Layer& layer) {
    auto value = read_value(item_field(field), node, problems);
    const auto put = [&](F to, Value what) {
        layer.push_back({to, std::move(what), node.where, rank});
    };
    if (!value) {
        if (field == F::prompt) put(field, "?");  // it is wrong, and shall not be missed as well
        return false;
    }
    switch (field) {
        case F::negative_prompt_file: {
            auto content =
                read_prompt_file(std::get<std::string>(*value), node.where, folder, problems);
            if (!content) return false;
            put(F::negative_prompt, std::move(*content));
            return true;
        }
        case F::guidance: {
            const double scale = std::get<double>(*value);
            put(F::guidance_video, scale);
            put(F::guidance_audio, scale);
            put(F::guidance_late, std::min(scale, BaseSampling{}.guidance_late));
            put(F::guidance_until, {});
            return true;
        }
        case F::sr: field = F::sr_model; break;
        case F::seconds: put(F::frames, {}); break;
        case F::frames: put(F::seconds, {}); break;
        default: break;
    }
    put(field, std::move(*value));
    return true;
}

Layer read_layer(const Node& map, Rank rank, const std::filesystem::path& folder,
                 Problems& problems, const std::vector<std::string>& skip) {
    LayerReader reader{rank, folder, skip, problems, {}, {}};
    reader.read(map, "");
    return std::move(reader.layer);
}

void ItemFields::apply(const Layer& layer) {
    for (const Assignment& one : layer) apply(one);
}

const std::string& ItemFields::text(ItemField field) const {
    static const std::string none;
    const Assignment* found = at(field);
    return found == nullptr ? none : std::get<std::string>(found->value);
}

double ItemFields::number(ItemField field, double fallback) const {
    const Assignment* found = at(field);
    return found == nullptr ? fallback : std::get<double>(found->value);
}

int ItemFields::whole(ItemField field, int fallback) const {
    const Assignment* found = at(field);
    return found == nullptr ? fallback : static_cast<int>(std::get<std::int64_t>(found->value));
}

Value ItemFields::value(ItemField field, std::string_view variant) const {
    using namespace std::string_literals;
    if (const Assignment* found = at(field)) return found->value;
    const bool guided = variant == "base";
    const BaseSampling base;
    const SrSampling super;
    switch (field) {
        case F::task: {
            if (!text(F::audio).empty()) return "a2v"s;
            return text(F::image).empty() ? "t2av"s : "ti2av"s;
        }
        case F::resolution: return "256p"s;
        case F::seconds:
            if (has(F::frames)) return {};
            return 5.0;
        case F::steps_base: return std::int64_t{guided ? 32 : 8};
        case F::passes: return std::int64_t{guided ? 2 : 1};
        case F::shift: return base.shift;
        case F::guidance_video: return base.guidance;
        case F::guidance_late: return base.guidance_late;
        case F::guidance_until: return std::int64_t{base.guidance_until};
        case F::guidance_audio: return base.audio_guidance;
        case F::sr_model: return "auto"s;
        case F::steps_sr: return std::int64_t{super.steps};
        case F::sr_passes: return std::int64_t{super.passes};
        case F::sr_shift: return super.shift;
        case F::sr_guidance: return super.guidance;
        case F::sr_trick_frames: return std::int64_t{super.trick_frames};
        case F::sr_trick_guidance: return super.trick_guidance;
        case F::sr_noise_value: return std::int64_t{super.noise_value};
        case F::sr_audio_noise: return super.audio_noise;
        case F::decoder: return "turbo"s;
        case F::decode_tiled: return false;
        case F::audio_posterior: return "sample"s;
        default: return {};
    }
}

}  // namespace gallop
