#include "farm/explain.hpp"

#include <optional>

#include <fmt/format.h>

#include "farm/expand.hpp"
#include "farm/inputs.hpp"

namespace gallop {
namespace {

using F = ItemField;

/// Fields that only stand for others.
bool is_shorthand(F field) {
    return field == F::guidance || field == F::sr || field == F::negative_prompt_file ||
           field == F::name;
}

/// How long a clip comes out, and which field says so.
Explained length_of(const Expansion& one, const Item& item) {
    const F by = !item.audio.empty()         ? F::audio
                 : one.fields.has(F::frames) ? F::frames
                                             : F::seconds;
    const Assignment* set = one.fields.at(by);
    std::string value =
        fmt::format("{} pictures, {} latents of sound", item.frames, item.audio_latents);
    if (by == F::audio) value += fmt::format(", from {} samples at 51,200 Hz", item.audio_samples);
    return {"length", value, "from " + item_field(by).path, set != nullptr ? set->where : Where{}};
}

std::vector<Explained> explain_item(const Manifest& manifest, const Expansion& one, int sample) {
    std::vector<Explained> rows;
    rows.push_back({"name", one.sample_name(manifest.seeds, sample), "item", one.resolved.where});
    for (std::size_t i = 0; i < item_field_count; ++i) {
        const F field = static_cast<F>(i);
        if (is_shorthand(field)) continue;
        const Assignment* set = one.fields.at(field);
        const std::string& path = item_field(field).path;
        if (field == F::seed) {
            const auto& origins = manifest.origins;
            const auto from = origins.find("seeds.base");
            rows.push_back({path, std::to_string(one.sample_seed(manifest.seeds, sample)),
                            set != nullptr          ? name_of(set->rank)
                            : from != origins.end() ? "drawn from seeds"
                                                    : "default",
                            set != nullptr          ? set->where
                            : from != origins.end() ? from->second.where
                                                    : Where{}});
            continue;
        }
        const std::string value = to_text(one.fields.value(field, manifest.model.variant));
        if (set != nullptr)
            rows.push_back({path, value, name_of(set->rank), set->where});
        else if (!value.empty())
            rows.push_back({path, value, "default", {}});
    }
    return rows;
}

}  // namespace

std::vector<Explained> explain(const Manifest& manifest, const std::string& name) {
    std::vector<Explained> rows;
    Problems problems;
    Problems notes;
    SoundLengths sounds;
    expand(manifest, problems, notes, [&](const Expansion& one) {
        if (!rows.empty()) return;
        for (int sample = 0; sample < manifest.seeds.samples; ++sample) {
            const bool item = one.name == name || one.fields.text(F::name) == name;
            if (!(sample == 0 && item) && one.sample_name(manifest.seeds, sample) != name) continue;
            rows = explain_item(manifest, one, sample);
            ResolvedItem resolved = one.resolved;
            if (resolved.item.audio.empty() || sounds.measure(resolved, one.name, problems, notes))
                rows.push_back(length_of(one, resolved.item));
            return;
        }
    });
    problems.raise();
    if (rows.empty()) return rows;
    for (const ConfigField& field : config_fields()) {
        const auto found = manifest.origins.find(field.path);
        const bool set = found != manifest.origins.end();
        rows.push_back({field.path == "name" ? "run.name" : field.path,
                        to_text(field.get(manifest)), set ? found->second.layer : "default",
                        set ? found->second.where : Where{}});
    }
    return rows;
}

}  // namespace gallop
