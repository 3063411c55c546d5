#include "farm/sweep.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/random.hpp"
#include "core/scalar.hpp"
#include "farm/canonical_json.hpp"

namespace gallop {
namespace {

using F = ItemField;
using Json = nlohmann::json;

/// As written, with its type.
Json json_of_node(const Node& node) {
    if (const auto flag = as_flag(node)) return *flag;
    if (const auto whole = as_whole(node)) return *whole;
    if (const auto number = as_number(node)) return *number;
    return node.scalar;
}

bool pins(const ItemFields& item, const AxisValue& value) {
    return std::all_of(value.layer.begin(), value.layer.end(), [&](const Assignment& one) {
        return std::holds_alternative<std::monostate>(one.value) || item.has(one.field) ||
               // frames and seconds say the same thing
               (one.field == F::seconds && item.has(F::frames)) ||
               (one.field == F::frames && item.has(F::seconds));
    });
}

std::string text_of(const Json& value) {
    return value.is_string() ? value.get<std::string>() : canonical_json(value);
}

bool fits_a_name(std::string_view text) {
    return !text.empty() && text.size() <= 24 &&
           text.find_first_not_of(
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
               "._+") == std::string_view::npos;
}

}  // namespace

std::string label_of(const Cell& cell) {
    std::string label;
    for (const AxisValue* one : cell) {
        std::string value = text_of(one->value);
        if (!fits_a_name(value)) value = fmt::format("{:08x}", fnv1a_64(value) & 0xffffffffU);
        label += fmt::format("{}{}={}", label.empty() ? "" : "-", one->axis, value);
    }
    return label;
}

Json json_of(const Cell& cell) {
    Json made;
    for (const AxisValue* one : cell) made[one->axis] = one->value;
    return made;
}

Sweep::Sweep(const Node& map, const std::filesystem::path& folder, Problems& problems) {
    if (map.kind == Node::Kind::null) return;
    if (map.kind != Node::Kind::map) {
        problems.add(map.where, fmt::format("sweep is {} (must be a map)", in_words(map)));
        return;
    }
    static const std::vector<std::string> known = {"matrix", "zip", "exclude", "include"};
    for (const auto& [key, value] : map.entries)
        if (std::find(known.begin(), known.end(), key.scalar) == known.end())
            problems.add(key.where, unknown_key(key.scalar, known));
    const std::size_t before = problems.count();
    if (const Node* matrix = map.find("matrix")) {
        Zip fields;
        read_map(*matrix, "matrix", folder, problems, fields);
        for (auto& field : fields) factors_.push_back({std::move(field)});
    }
    if (const Node* zips = map.find("zip")) {
        if (zips->kind == Node::Kind::sequence)
            for (const Node& zip : zips->items) read_zip(zip, folder, problems);
        else
            read_zip(*zips, folder, problems);
    }
    for (const Zip& zip : factors_)
        for (const auto& field : zip) {
            for (const auto& other : axes_)
                if (other.first == field.front().axis)
                    problems.add(field.front().layer.front().where,
                                 fmt::format("sweep varies {} twice", other.first));
            for (const AxisValue& value : field) note_axis(value);
        }
    if (problems.count() == before) multiply(problems, map.where);
    if (const Node* list = map.find("exclude")) {
        std::vector<std::vector<AxisValue>> patterns;
        read_cells(*list, "exclude", folder, problems, patterns);
        for (auto& pattern : patterns) {
            Pattern made;
            for (AxisValue& one : pattern) {
                const bool swept = std::any_of(axes_.begin(), axes_.end(), [&](const auto& axis) {
                    return axis.first == one.axis;
                });
                if (!swept)
                    problems.add(
                        one.layer.front().where,
                        fmt::format("exclude names {}, which the sweep does not vary", one.axis));
                made.axes.push_back(one.axis);
                for (Assignment& assignment : one.layer)
                    made.layer.push_back(std::move(assignment));
            }
            exclude_.push_back(std::move(made));
        }
    }
    if (const Node* list = map.find("include")) {
        read_cells(*list, "include", folder, problems, include_);
        for (const auto& cell : include_)
            for (const AxisValue& value : cell) note_axis(value);
    }
    whole_ = distinct_cells({});
}

void Sweep::note_axis(const AxisValue& value) {
    const auto found = std::find_if(axes_.begin(), axes_.end(),
                                    [&](const auto& axis) { return axis.first == value.axis; });
    auto& values = found == axes_.end() ? axes_.emplace_back(value.axis, std::vector<Json>{}).second
                                        : found->second;
    if (std::find(values.begin(), values.end(), value.value) == values.end())
        values.push_back(value.value);
}

bool Sweep::read_field(const Node& key, const Node& value, std::vector<AxisValue>& values,
                       Problems& problems, const std::filesystem::path& folder) {
    const ItemField field = find_item_field(key.scalar);
    if (field == F::count || field == F::name) {
        std::vector<std::string> names;
        for (const Field& row : item_fields())
            if (row.path != "name") names.push_back(row.path);
        problems.add(key.where, field == F::name
                                    ? "name cannot be swept (cells are named by themselves)"
                                    : unknown_key(key.scalar, names));
        return false;
    }
    AxisValue made{key.scalar, json_of_node(value), {}};
    if (!read_assignment(field, value, Rank::cell, folder, problems, made.layer)) return false;
    values.push_back(std::move(made));
    return true;
}

void Sweep::read_map(const Node& map, const char* what, const std::filesystem::path& folder,
                     Problems& problems, Zip& fields, const std::string& prefix) {
    if (map.kind != Node::Kind::map) {
        problems.add(map.where, fmt::format("{} is {} (must be a map of FIELD: [VALUES])", what,
                                            in_words(map)));
        return;
    }
    for (const auto& [key, values] : map.entries) {
        Node path = key;
        path.scalar = prefix + key.scalar;
        if (values.kind == Node::Kind::map) {  // steps: {base: [8, 32]}
            read_map(values, what, folder, problems, fields, path.scalar + ".");
            continue;
        }
        if (values.kind != Node::Kind::sequence || values.items.empty()) {
            problems.add(values.where,
                         fmt::format("{} of {} is {} (must be a list of values)", path.scalar, what,
                                     values.kind == Node::Kind::sequence ? "an empty list"
                                                                         : in_words(values)));
            continue;
        }
        std::vector<AxisValue> read;
        for (const Node& value : values.items) {
            if (!read_field(path, value, read, problems, folder) &&
                find_item_field(path.scalar) == F::count)
                break;  // one remark about an unknown field is enough
            for (std::size_t i = 0; i + 1 < read.size(); ++i)
                if (read[i].value == read.back().value) {
                    problems.add(value.where, fmt::format("{} of {} has {} twice", path.scalar,
                                                          what, in_words(value)));
                    read.pop_back();
                    break;
                }
        }
        if (!read.empty()) fields.push_back(std::move(read));
    }
}

void Sweep::read_zip(const Node& map, const std::filesystem::path& folder, Problems& problems) {
    Zip fields;
    const std::size_t before = problems.count();
    if (map.kind == Node::Kind::map)
        for (const auto& [key, values] : map.entries) {
            const Node& first = map.entries.front().second;
            if (values.kind == Node::Kind::sequence && first.kind == Node::Kind::sequence &&
                values.items.size() != first.items.size())
                problems.add(values.where,
                             fmt::format("zip has {} values of {}, but {} of {} (must be as many)",
                                         values.items.size(), key.scalar, first.items.size(),
                                         map.entries.front().first.scalar));
        }
    // In lock-step the same value may come again.
    if (map.kind != Node::Kind::map) {
        problems.add(map.where, fmt::format("zip is {} (must be a list of maps of FIELD: [VALUES])",
                                            in_words(map)));
        return;
    }
    for (const auto& [key, values] : map.entries) {
        if (values.kind != Node::Kind::sequence || values.items.empty()) {
            problems.add(values.where, fmt::format("{} of zip is {} (must be a list of values)",
                                                   key.scalar, in_words(values)));
            continue;
        }
        std::vector<AxisValue> read;
        for (const Node& value : values.items)
            if (!read_field(key, value, read, problems, folder)) break;
        if (read.size() == values.items.size()) fields.push_back(std::move(read));
    }
    if (problems.count() == before && !fields.empty()) factors_.push_back(std::move(fields));
}

void Sweep::read_cells(const Node& list, const char* what, const std::filesystem::path& folder,
                       Problems& problems, std::vector<std::vector<AxisValue>>& cells) {
    if (list.kind != Node::Kind::sequence) {
        problems.add(list.where, fmt::format("{} is {} (must be a list of maps of FIELD: VALUE)",
                                             what, in_words(list)));
        return;
    }
    for (const Node& cell : list.items) {
        if (cell.kind != Node::Kind::map || cell.entries.empty()) {
            problems.add(cell.where, fmt::format("{} has {} (must be maps of FIELD: VALUE)", what,
                                                 cell.kind == Node::Kind::map ? "an empty map"
                                                                              : in_words(cell)));
            continue;
        }
        std::vector<AxisValue> read;
        bool whole = true;
        for (const auto& [key, value] : cell.entries)
            whole = read_field(key, value, read, problems, folder) && whole;
        if (whole) cells.push_back(std::move(read));
    }
}

void Sweep::multiply(Problems& problems, const Where& where) {
    if (factors_.empty()) return;
    std::size_t cells = 1;
    for (const Zip& zip : factors_) {
        cells *= zip.front().size();
        if (cells > most_cells) {
            problems.add(where, fmt::format("sweep has more than {} cells", most_cells));
            return;
        }
    }
    grid_.push_back({});
    for (const Zip& zip : factors_) {  // the first axis varies slowest
        std::vector<Cell> grown;
        for (const Cell& cell : grid_)
            for (std::size_t i = 0; i < zip.front().size(); ++i) {
                grown.push_back(cell);
                for (const auto& field : zip) grown.back().push_back(&field[i]);
            }
        grid_ = std::move(grown);
    }
}

bool Sweep::excluded(const Cell& cell, const ItemFields& item) const {
    if (exclude_.empty()) return false;
    ItemFields all;
    for (const AxisValue* one : cell) all.apply(one->layer);
    for (const Pattern& pattern : exclude_) {
        bool same = true;
        bool swept = false;  // what an item pins altogether is its own wish
        for (const Assignment& wanted : pattern.layer) {
            if (std::holds_alternative<std::monostate>(wanted.value)) continue;
            const Assignment* own = item.at(wanted.field);
            const Assignment* here = own != nullptr ? own : all.at(wanted.field);
            if (here == nullptr || here->value != wanted.value) same = false;
            if (own == nullptr) swept = true;
        }
        if (same && swept) return true;
    }
    return false;
}

std::vector<Cell> Sweep::cells(const ItemFields& item) const {
    if (empty()) return {Cell{}};
    const auto sets = [&](const AxisValue& value) {
        return std::any_of(value.layer.begin(), value.layer.end(),
                           [&](const Assignment& one) { return item.has(one.field); });
    };
    for (const Zip& zip : factors_)
        for (const auto& field : zip)
            if (sets(field.front())) return distinct_cells(item);
    for (const auto& cell : include_)
        for (const AxisValue& value : cell)
            if (sets(value)) return distinct_cells(item);
    return whole_;
}

std::vector<Cell> Sweep::distinct_cells(const ItemFields& item) const {
    std::vector<Cell> found;
    std::set<std::vector<std::pair<std::string_view, std::string>>> seen;
    const auto add = [&](Cell cell, bool may_exclude) {
        std::erase_if(cell, [&](const AxisValue* one) { return pins(item, *one); });
        if (may_exclude && excluded(cell, item)) return;
        std::vector<std::pair<std::string_view, std::string>> key;
        for (const AxisValue* one : cell) key.emplace_back(one->axis, text_of(one->value));
        std::sort(key.begin(), key.end());
        if (seen.insert(std::move(key)).second) found.push_back(std::move(cell));
    };
    for (const Cell& cell : grid_) add(cell, true);
    for (const auto& values : include_) {
        Cell cell;
        for (const AxisValue& value : values) cell.push_back(&value);
        add(std::move(cell), false);
    }
    return found;
}

}  // namespace gallop
