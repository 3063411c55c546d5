#include "farm/rows.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>

#include "core/check.hpp"
#include "core/reader.hpp"
#include "core/scalar.hpp"
#include "core/utf8.hpp"
#include "farm/fields.hpp"

namespace gallop {
namespace {

Node scalar_node(std::string text, Where where) {
    Node node;
    node.kind = Node::Kind::scalar;
    node.scalar = std::move(text);
    node.where = std::move(where);
    return node;
}

void set_line(Node& node, int line) {
    node.where.line = line;
    for (Node& item : node.items) set_line(item, line);
    for (auto& [key, value] : node.entries) {
        set_line(key, line);
        set_line(value, line);
    }
}

/// A value by its name, or by a path into nested maps.
Node* find_column(Node& row, std::string_view name) {
    for (auto& [key, value] : row.entries)
        if (key.scalar == name) return &value;
    const std::size_t dot = name.find('.');
    if (dot == std::string_view::npos) return nullptr;
    for (auto& [key, value] : row.entries)
        if (key.scalar == name.substr(0, dot) && value.kind == Node::Kind::map)
            return find_column(value, name.substr(dot + 1));
    return nullptr;
}

std::vector<std::string> names_of(const Node& row) {
    std::vector<std::string> names;
    for (const auto& [key, value] : row.entries) names.push_back(key.scalar);
    return names;
}

bool is_field_or_group(std::string_view name) {
    for (const Field& field : item_fields())
        if (field.path == name || (field.path.size() > name.size() &&
                                   field.path.starts_with(name) && field.path[name.size()] == '.'))
            return true;
    return false;
}

bool has_bad_character(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        const auto byte = static_cast<unsigned char>(text[at]);
        const std::size_t length = utf8_length(text.substr(at));
        if (length == 0 || (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r'))
            return true;
        at += length;
    }
    return false;
}

}  // namespace

std::vector<std::filesystem::path> matching_files(const std::string& pattern,
                                                  const std::filesystem::path& folder) {
    const std::string whole = (folder / pattern).lexically_normal().string();
    ::glob_t found{};
    std::vector<std::filesystem::path> files;
    if (::glob(whole.c_str(), GLOB_ERR, nullptr, &found) == 0)
        for (std::size_t i = 0; i < found.gl_pathc; ++i)
            if (std::filesystem::is_regular_file(found.gl_pathv[i]))
                files.emplace_back(found.gl_pathv[i]);
    ::globfree(&found);
    return files;
}

RowReader::RowReader(std::filesystem::path path, const Columns& columns)
    : path_(std::move(path)), columns_(columns), file_(path_, std::ios::binary) {
    const std::string kind = path_.extension().string();
    csv_ = kind == ".csv";
    if (!csv_ && kind != ".jsonl" && kind != ".ndjson")
        throw_input_error("{}: rows come from .jsonl or .csv files", path_.string());
    if (!file_) throw_input_error("{}: cannot be opened", path_.string());
}

bool RowReader::read_line() {
    text_.clear();
    if (!std::getline(file_, text_)) {
        if (file_.bad()) throw Error(fmt::format("{}: cannot be read", path_.string()));
        return false;
    }
    line_ = next_line_++;
    if (line_ == 1 && text_.starts_with("\xef\xbb\xbf")) text_.erase(0, 3);
    if (text_.size() > longest_row)
        throw_input_error("{}:{}: the row has {} bytes (at most {})", path_.string(), line_,
                          text_.size(), longest_row);
    return true;
}

bool RowReader::next(Node& row, Problems& problems) {
    if (!csv_) return next_json(row, problems);
    if (!header_read_) read_header(problems);
    std::vector<Node> cells;
    while (next_record(cells, problems)) {
        if (cells.size() != header_.size()) {
            problems.add(where(), fmt::format("the row has {} cells (the header has {})",
                                              cells.size(), header_.size()));
            continue;
        }
        Node from;
        from.kind = Node::Kind::map;
        from.where = where();
        for (std::size_t i = 0; i < cells.size(); ++i) {
            if (cells[i].scalar.empty()) cells[i].kind = Node::Kind::null;
            const Where at = cells[i].where;
            from.entries.push_back({scalar_node(header_[i], at), std::move(cells[i])});
        }
        row = map_row(std::move(from), problems);
        return true;
    }
    return false;
}

bool RowReader::next_json(Node& row, Problems& problems) {
    while (read_line()) {
        if (text_.find_first_not_of(" \t\r") == std::string::npos) continue;
        try {
            // The parser sees one line only and calls it the first.
            Node from =
                parse_json(text_, path_.string(), [&](const Where& key, const std::string& text) {
                    problems.add({key.file, line_, key.column}, text);
                });
            set_line(from, line_);
            if (from.kind != Node::Kind::map) {
                problems.add(where(),
                             fmt::format("the row is {} (must be an object)", in_words(from)));
                continue;
            }
            row = map_row(std::move(from), problems);
            return true;
        } catch (const InputError& wrong) {
            problems.add_parsed(wrong.what(), {path_.string(), line_, 1});
        }
    }
    return false;
}

Node RowReader::map_row(Node&& from, Problems& problems) {
    Node row;
    row.kind = Node::Kind::map;
    row.where = where();
    if (columns_.empty()) {
        for (auto& [key, value] : from.entries) {
            if (!is_field_or_group(key.scalar)) {
                if (!reported_.insert(key.scalar).second) continue;
                std::vector<std::string> names;
                for (const Field& field : item_fields()) names.push_back(field.path);
                const std::string near = nearest(key.scalar, names);
                problems.add(
                    key.where,
                    fmt::format("column \"{}\" is no field{}; `fields: {{FIELD: COLUMN}}` "
                                "says which columns are meant",
                                shortened(key.scalar),
                                near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near)));
            } else if (value.kind != Node::Kind::null) {
                row.entries.push_back({std::move(key), std::move(value)});
            }
        }
        return row;
    }
    for (const auto& [field, column] : columns_) {
        Node* found = find_column(from, column);
        if (found == nullptr) continue;
        seen_.insert(column);
        if (found->kind == Node::Kind::null) continue;
        const Where at = found->where;
        row.entries.push_back({scalar_node(field, at), std::move(*found)});
    }
    if (seen_.size() < columns_.size() && header_.empty()) header_ = names_of(from);
    return row;
}

void RowReader::read_header(Problems& problems) {
    header_read_ = true;
    std::vector<Node> cells;
    if (!next_record(cells, problems)) return;
    std::set<std::string> distinct;
    for (const Node& cell : cells) {
        header_.push_back(cell.scalar);
        if (!distinct.insert(cell.scalar).second)
            problems.add(cell.where,
                         fmt::format("the header has column \"{}\" twice", cell.scalar));
    }
}

/// Reads one record, which quotes may stretch over several lines.
bool RowReader::next_record(std::vector<Node>& cells, Problems& problems) {
    cells.clear();
    do {
        if (!read_line()) return false;
    } while (text_.empty() || text_ == "\r");
    const int first = line_;
    std::size_t bytes = 0;
    std::string cell;
    bool quoted = false;
    bool inside = false;
    Where start{path_.string(), line_, 1};
    const auto end_cell = [&] {
        if (has_bad_character(cell)) {
            problems.add(start, "the cell is not UTF-8 text");
            cell.clear();
        }
        cells.push_back(scalar_node(std::move(cell), start));
        cell.clear();
        quoted = false;
    };
    for (;;) {
        const bool carriage = text_.ends_with('\r');
        if (carriage) text_.pop_back();
        bytes += text_.size();
        if (bytes > longest_row)
            throw_input_error("{}:{}: the row is longer than {} bytes; a quote that stays open?",
                              path_.string(), first, longest_row);
        for (std::size_t i = 0; i < text_.size(); ++i) {
            const char c = text_[i];
            if (inside) {
                if (c != '"') {
                    cell += c;
                } else if (i + 1 < text_.size() && text_[i + 1] == '"') {
                    cell += c;
                    ++i;
                } else {
                    inside = false;
                }
            } else if (c == '"' && cell.empty() && !quoted) {
                inside = quoted = true;
            } else if (c == ',') {
                end_cell();
                start = {path_.string(), line_, static_cast<int>(i) + 2};
            } else {
                if (quoted || c == '"')
                    problems.add({path_.string(), line_, static_cast<int>(i) + 1},
                                 "a quote in the middle of a cell (the whole cell must be in "
                                 "quotes, and quotes in it doubled)");
                cell += c;
            }
        }
        if (!inside) break;
        cell += carriage ? "\r\n" : "\n";
        if (!read_line()) {
            problems.add(start, "the quote stays open");
            line_ = first;
            return false;
        }
    }
    end_cell();
    line_ = first;
    return true;
}

void RowReader::finish(Problems& problems) const {
    for (const auto& [field, column] : columns_) {
        if (seen_.contains(column) || line_ == 0) continue;
        const std::string near = nearest(column, header_);
        problems.add(
            {path_.string(), 0, 0},
            fmt::format(
                "no row has a column \"{}\" (for {}){}{}", column, field,
                header_.empty() ? "" : fmt::format("; there are: {}", fmt::join(header_, ", ")),
                near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
    }
}

}  // namespace gallop
