#include "core/node.hpp"

#include <fmt/format.h>

#include "core/files.hpp"

namespace gallop {

std::string to_string(const Where& where) {
    if (where.line == 0) return where.file;
    if (where.column == 0) return fmt::format("{}:{}", where.file, where.line);
    return fmt::format("{}:{}:{}", where.file, where.line, where.column);
}

const Node* Node::find(std::string_view key) const {
    for (const auto& [name, value] : entries)
        if (name.scalar == key) return &value;
    return nullptr;
}

Node read_yaml(const std::filesystem::path& path) {
    return parse_yaml(read_text(path), path.string());
}

}  // namespace gallop
