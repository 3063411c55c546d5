#include "farm/expand.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/random.hpp"
#include "core/scalar.hpp"
#include "core/utf8.hpp"
#include "farm/id_set.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using F = ItemField;

/// Whether a text is what a pattern with * and ? says.
bool matches(std::string_view pattern, std::string_view text) {
    std::size_t p = 0;
    std::size_t t = 0;
    std::size_t star = std::string_view::npos;  // the last * met, which takes up what is left
    std::size_t taken = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            taken = t;
        } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++taken;
        } else {
            return false;
        }
    }
    return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

Id128 id_of_name(std::string_view name) {
    Sha256 sha;
    sha.update(name);
    const auto digest = sha.finish();
    Id128 id{};
    std::copy_n(digest.begin(), id.size(), id.begin());
    return id;
}

/// One pass over a manifest's items.
class Expander {
public:
    Expander(const Manifest& manifest, Problems& problems, Problems& notes,
             const std::function<void(const Expansion&)>& visit)
        : manifest_(manifest),
          problems_(problems),
          notes_(notes),
          visit_(visit),
          negative_prompt_(shipped_negative_prompt()),
          hits_(manifest.overrides.size()) {
        for (const Layer& layer : manifest.defaults) base_.apply(layer);
    }

    void run() {
        for (const ItemSource& source : manifest_.sources) {
            if (source.rows)
                rows(source);
            else
                item(source, {}, source.where, source.name);
        }
        for (std::size_t i = 0; i < hits_.size(); ++i)
            if (hits_[i] == 0)
                notes_.add(manifest_.overrides[i].where, "this override matches no item");
        std::error_code failed;
        for (const auto& [network, where] : networks_)
            if (!manifest_.model.path.empty() && fs::is_directory(manifest_.model.path, failed) &&
                !fs::is_directory(fs::path(manifest_.model.path) / network, failed))
                problems_.add(where, fmt::format("model.path is \"{}\", but it has no folder {}",
                                                 manifest_.model.path, network));
    }

private:
    void rows(const ItemSource& source) {
        std::uint64_t left = source.limit;
        std::uint64_t taken = 0;
        for (const fs::path& file : source.files) {
            RowReader reader(file, source.columns);
            Node row;
            const std::string stem = file.stem().string();
            bool whole = true;
            while ((whole = source.limit == 0 || left > 0) && reader.next(row, problems_)) {
                --left;
                ++taken;
                const Where where{file.string(), reader.line(), 1};
                const Layer own = read_layer(row, Rank::item, manifest_.folder, problems_);
                item(source, own, where, fmt::format("{}-{}", stem, reader.line()));
            }
            if (whole) reader.finish(problems_);
        }
        if (taken == 0 && !source.files.empty())
            problems_.add(source.where, "from brings no rows (at least one item is needed)");
    }

    void item(const ItemSource& source, const Layer& row, const Where& where,
              const std::string& fallback_name) {
        ItemFields own;
        own.apply(source.own);
        own.apply(row);
        const Assignment* named = own.at(F::name);
        const std::string& name =
            named != nullptr && !own.text(F::name).empty() ? own.text(F::name) : fallback_name;
        if (const auto control = first_control(name)) {
            problems_.add(
                named == nullptr ? where : named->where,
                fmt::format("name is \"{}\" (must be one line without control characters, "
                            "but holds U+{:04X})",
                            shortened(name), static_cast<std::uint32_t>(*control)));
            return;
        }
        if (!names_.insert(id_of_name(name))) {
            problems_.add(
                named == nullptr ? where : named->where,
                fmt::format("name is \"{}\", as {} (names must differ)", name, first_place(name)));
            return;
        }
        if (!source.rows) places_.emplace(name, named == nullptr ? where : named->where);
        const std::vector<Cell> cells = manifest_.sweep.cells(own);
        if (cells.empty())
            problems_.add(where,
                          fmt::format("item \"{}\": exclude leaves no cell of the sweep", name));
        for (const Cell& cell : cells) {
            ItemFields fields = base_;
            for (const AxisValue* value : cell) fields.apply(value->layer);
            fields.apply(source.own);
            fields.apply(row);
            one_cell(fields, cell, where, name);
        }
    }

    std::string first_place(const std::string& name) const {
        const auto found = places_.find(name);
        return found == places_.end() ? "an item before it" : "at " + to_string(found->second);
    }

    void one_cell(ItemFields& fields, const Cell& cell, const Where& where,
                  const std::string& name) {
        const std::string label = label_of(cell);
        const std::string whole_name = label.empty() ? name : name + "-" + label;
        apply_overrides(fields, name);
        fields.apply(manifest_.settings);
        const Assignment naming{F::name, whole_name, where, Rank::item};
        const Assignment* written = fields.at(F::name);
        fields.apply(naming);
        const std::size_t before = problems_.count();
        const ResolvedItem resolved =
            resolve_fields(fields, manifest_.model.variant, manifest_.folder, where,
                           negative_prompt_, problems_, notes_);
        networks_.try_emplace(resolved.item.sr.empty() ? manifest_.model.variant : resolved.item.sr,
                              model_place());
        if (problems_.count() != before) return;
        if (written != nullptr) fields.apply(*written);
        const SeedRequest& seeds = manifest_.seeds;
        const Assignment* seed = fields.at(F::seed);
        std::string seed_name;
        if (seeds.given && seed == nullptr) {
            if (seeds.by_item) seed_name = name;
            if (seeds.by_cell && !label.empty()) seed_name += "-" + label;
        }
        visit_({fields, resolved, cell, whole_name,
                seed == nullptr ? seeds.base
                                : static_cast<std::uint64_t>(std::get<std::int64_t>(seed->value)),
                seed_name});
    }

    Where model_place() const {
        const auto found = manifest_.origins.find("model.path");
        return found == manifest_.origins.end() ? Where{manifest_.path.string(), 0, 0}
                                                : found->second.where;
    }

    void apply_overrides(ItemFields& fields, const std::string& name) {
        for (std::size_t i = 0; i < manifest_.overrides.size(); ++i) {
            const Override& one = manifest_.overrides[i];
            const bool match =
                std::all_of(one.match.begin(), one.match.end(),
                            [&](const auto& condition) { return holds(condition, fields, name); });
            if (!match) continue;
            ++hits_[i];
            fields.apply(one.set);
        }
    }

    bool holds(const Override::Condition& condition, const ItemFields& fields,
               const std::string& name) const {
        if (condition.field == F::name)
            return std::any_of(
                condition.values.begin(), condition.values.end(),
                [&](const Value& value) { return matches(std::get<std::string>(value), name); });
        const Value is = fields.value(condition.field, manifest_.model.variant);
        return std::find(condition.values.begin(), condition.values.end(), is) !=
               condition.values.end();
    }

    const Manifest& manifest_;
    Problems& problems_;
    Problems& notes_;
    const std::function<void(const Expansion&)>& visit_;
    std::string negative_prompt_;
    ItemFields base_;
    IdSet names_;
    std::map<std::string, Where> places_;  ///< of names that stand in the manifest itself
    std::map<std::string, Where> networks_;
    std::vector<std::uint64_t> hits_;
};

}  // namespace

std::string shipped_negative_prompt() {
    std::string text = read_text(shipped_configs() / "negative_prompt.txt", 1U << 16);
    while (text.ends_with('\n')) text.pop_back();
    return text;
}

std::uint64_t derive_seed(std::uint64_t base, std::string_view name, int sample) {
    if (name.empty() && sample == 0) return base;
    const std::uint64_t hash = name.empty() ? 0 : fnv1a_64(name);
    const auto words =
        philox4x32_10({static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32),
                       static_cast<std::uint32_t>(sample), 0x5eed},
                      {static_cast<std::uint32_t>(base), static_cast<std::uint32_t>(base >> 32)});
    return (static_cast<std::uint64_t>(words[1] & 0x1fffffU) << 32) | words[0];
}

std::string Expansion::sample_name(const SeedRequest& seeds, int sample) const {
    return seeds.samples > 1 ? fmt::format("{}-s{}", name, sample) : name;
}

std::uint64_t Expansion::sample_seed(const SeedRequest& seeds, int sample) const {
    return derive_seed(base_seed, seed_name, seeds.by_sample ? sample : 0);
}

void expand(const Manifest& manifest, Problems& problems, Problems& notes,
            const std::function<void(const Expansion&)>& visit) {
    Expander(manifest, problems, notes, visit).run();
}

}  // namespace gallop
