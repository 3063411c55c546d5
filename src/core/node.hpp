#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gallop {

/// A place in a text: 1-based line and column; 0 where it is not known.
struct Where {
    std::string file;
    int line = 0;
    int column = 0;
};

/// "file:line:column", shorter where the numbers are not known.
std::string to_string(const Where& where);

/// One value of a parsed YAML or JSON text, with the place where it stood.
struct Node {
    enum class Kind { null, scalar, sequence, map };

    Kind kind = Kind::null;
    std::string scalar;       ///< the text of a scalar, unquoted
    bool quoted = false;      ///< the scalar was written in quotes: always a string
    std::vector<Node> items;  ///< of a sequence
    struct Entry;
    std::vector<Entry> entries;  ///< of a map, in order; keys are scalars, all distinct
    Where where;

    /// The value of `key`, or nullptr. Maps only.
    const Node* find(std::string_view key) const;
};

/// A key and its value.
struct Node::Entry {
    Node first;
    Node second;
};

/// Takes a mistake and its place, so that reading goes on.
using NoteMistake = std::function<void(const Where&, const std::string&)>;

/// Parses one YAML document (JSON is YAML). At most 64 levels deep and 10^6 nodes; aliases are
/// expanded within these bounds. Tags other than !!str are refused, so a text can only ever be
/// data; an empty text is null. Throws InputError with file:line:column on a syntax error, bytes
/// that are not UTF-8, a control character, a duplicate key or a bound exceeded. In a build without
/// yaml-cpp only JSON is read. A null stands where its key does: it may have been left out (`key:`).
/// `duplicate`, where given, is told of each duplicate key instead, and the key's first value holds.
Node parse_yaml(std::string_view text, std::string_view file_name,
                const NoteMistake& duplicate = {});

/// The same for strict JSON, in every build.
Node parse_json(std::string_view text, std::string_view file_name,
                const NoteMistake& duplicate = {});

/// Reads and parses a file. Throws InputError when it cannot be read.
Node read_yaml(const std::filesystem::path& path);

}  // namespace gallop
