#include "farm/manifest_items.hpp"

#include <map>

#include <fmt/format.h>

#include "core/scalar.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> field_names() {
    std::vector<std::string> names;
    for (const Field& row : item_fields()) names.push_back(row.path);
    return names;
}

/// Reads the two lists of a manifest that concern its items.
struct ItemsReader {
    const fs::path& folder;
    Problems& problems;

    std::vector<Override> overrides(const Node& list) {
        std::vector<Override> all;
        if (list.kind != Node::Kind::sequence) {
            if (list.kind != Node::Kind::null)
                problems.add(list.where,
                             fmt::format("overrides is {} (must be a list)", in_words(list)));
            return all;
        }
        static const std::vector<std::string> known = {"match", "set"};
        for (const Node& entry : list.items) {
            if (entry.kind != Node::Kind::map) {
                problems.add(entry.where,
                             fmt::format("{} (must be a map with match and set)", in_words(entry)));
                continue;
            }
            Override made;
            made.where = entry.where;
            for (const auto& [key, value] : entry.entries) {
                if (key.scalar == "match")
                    conditions(value, "", made.match);
                else if (key.scalar == "set")
                    made.set = read_layer(value, Rank::overrides, folder, problems);
                else
                    problems.add(key.where, unknown_key(key.scalar, known));
            }
            if (entry.find("set") == nullptr)
                problems.add(entry.where, "an override without set changes nothing");
            for (const Assignment& one : made.set)
                if (one.field == ItemField::name)
                    problems.add(one.where, "name cannot be overridden (names must differ)");
            all.push_back(std::move(made));
        }
        return all;
    }

    void conditions(const Node& map, const std::string& prefix,
                    std::vector<Override::Condition>& match) {
        if (map.kind != Node::Kind::map) {
            problems.add(map.where,
                         fmt::format("match is {} (must be a map of FIELD: VALUE)", in_words(map)));
            return;
        }
        for (const auto& [key, value] : map.entries) {
            const std::string path = prefix + key.scalar;
            if (value.kind == Node::Kind::map) {
                conditions(value, path + ".", match);
                continue;
            }
            const ItemField field = find_item_field(path);
            if (field == ItemField::count) {
                problems.add(key.where, unknown_key(path, field_names()));
                continue;
            }
            // A field that stands for several is matched by each of them.
            std::map<ItemField, std::vector<Value>> wanted;
            const auto take = [&](const Node& one) {
                Layer layer;
                read_assignment(field, one, Rank::overrides, folder, problems, layer);
                for (Assignment& part : layer)
                    if (!std::holds_alternative<std::monostate>(part.value))
                        wanted[part.field].push_back(std::move(part.value));
            };
            if (value.kind == Node::Kind::sequence)
                for (const Node& one : value.items) take(one);
            else
                take(value);
            for (auto& [part, values] : wanted) match.push_back({part, std::move(values)});
        }
    }

    std::vector<ItemSource> sources(const Node& root) {
        std::vector<ItemSource> all;
        const Node* list = root.find("items");
        if (list != nullptr && list->kind != Node::Kind::sequence &&
            list->kind != Node::Kind::null) {
            problems.add(list->where, "items must be a list");
            return all;
        }
        if (list == nullptr || list->items.empty()) {
            problems.add(list == nullptr ? root.where : list->where,
                         "items is empty (at least one item is needed)");
            return all;
        }
        static const std::vector<std::string> keys = {"from", "fields", "limit"};
        std::size_t number = 0;
        for (const Node& entry : list->items) {
            ItemSource source;
            source.where = entry.where;
            source.name = fmt::format("item-{:04}", ++number);
            source.own = read_layer(entry, Rank::item, folder, problems, keys);
            if (entry.kind == Node::Kind::map) {
                if (entry.find("from") != nullptr) {
                    rows_of(entry, source);
                } else {
                    for (const char* key : {"fields", "limit"})
                        if (const Node* found = entry.find(key))
                            problems.add(found->where,
                                         fmt::format("{} needs from, the files to read", key));
                }
            }
            all.push_back(std::move(source));
        }
        return all;
    }

    void rows_of(const Node& entry, ItemSource& source) {
        source.rows = true;
        static const Field from{"from", {FieldType::Kind::texts}, ""};
        static const Field limit{"limit", {FieldType::Kind::whole, 1, 1e9}, ""};
        const Node& names = *entry.find("from");
        if (const auto read = read_value(from, names, problems))
            for (const std::string& pattern : std::get<std::vector<std::string>>(*read)) {
                const auto found = matching_files(pattern, folder);
                if (found.empty())
                    problems.add(names.where,
                                 fmt::format("from is \"{}\", but there is no such file ({})",
                                             pattern, (folder / pattern).string()));
                for (const fs::path& file : found) {
                    const std::string kind = file.extension().string();
                    if (kind == ".jsonl" || kind == ".ndjson" || kind == ".csv")
                        source.files.push_back(file);
                    else
                        problems.add(names.where,
                                     fmt::format("from is \"{}\" (rows come from .jsonl or .csv "
                                                 "files)",
                                                 file.string()));
                }
            }
        if (const Node* rows = entry.find("limit"))
            if (const auto read = read_value(limit, *rows, problems))
                source.limit = static_cast<std::uint64_t>(std::get<std::int64_t>(*read));
        if (const Node* map = entry.find("fields")) columns(*map, "", source.columns);
        for (const Assignment& one : source.own)
            if (one.field == ItemField::name)
                problems.add(one.where, "name beside from (rows must have names of their own)");
    }

    void columns(const Node& map, const std::string& prefix, Columns& made) {
        if (map.kind != Node::Kind::map) {
            problems.add(map.where, fmt::format("fields is {} (must be a map of FIELD: COLUMN)",
                                                in_words(map)));
            return;
        }
        for (const auto& [key, value] : map.entries) {
            const std::string path = prefix + key.scalar;
            if (value.kind == Node::Kind::map)
                columns(value, path + ".", made);
            else if (find_item_field(path) == ItemField::count)
                problems.add(key.where, unknown_key(path, field_names()));
            else if (const auto column = as_text(value); column && !column->empty())
                made.emplace_back(path, *column);
            else
                problems.add(value.where, fmt::format("{} is {} (must be a column's name)", path,
                                                      in_words(value)));
        }
    }
};

}  // namespace

std::vector<Override> read_overrides(const Node& list, const fs::path& folder, Problems& problems) {
    return ItemsReader{folder, problems}.overrides(list);
}

std::vector<ItemSource> read_sources(const Node& root, const fs::path& folder, Problems& problems) {
    return ItemsReader{folder, problems}.sources(root);
}

}  // namespace gallop
