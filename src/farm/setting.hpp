#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/node.hpp"
#include "farm/problems.hpp"

namespace gallop {

/// A value that a manifest gives to a field; monostate: as if nobody had set it.
using Value =
    std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<std::string>>;

/// What a field of the manifest language takes. The reader, the error texts and the JSON Schema
/// are all made from it.
struct FieldType {
    enum class Kind {
        text,      ///< any text
        flag,      ///< true or false
        whole,     ///< least … most
        number,    ///< least … most
        choice,    ///< one of `words`
        choices,   ///< a list of `words`; a single one may stand without brackets
        texts,     ///< a list of texts
        size,      ///< one of `words` or WIDTHxHEIGHT in multiples of 32
        duration,  ///< seconds: 90, 90s, 5m, 2h, 01:30:00; least … most
        bytes,     ///< 1000, 64MB, 1.5GiB; least … most
        bitrate,   ///< bits a second: 192000, 192k; least … most
        failures,  ///< a number of items, or a share of all as 2%
        time       ///< a time limit as Slurm writes it, [D-]HH:MM:SS
    };
    Kind kind = Kind::text;
    double least = 0;
    double most = 0;
    std::vector<std::string> words = {};
};

/// One field of the manifest language.
struct Field {
    std::string path;  ///< "steps.base"
    FieldType type;
    std::string about;  ///< one line for editors
};

/// Reads a value. Notes a problem at its place and returns nothing when it is not what the field
/// takes.
std::optional<Value> read_value(const Field& field, const Node& node, Problems& problems);

/// As it stands in JSON and as messages and names of sweep cells show it.
nlohmann::json to_json(const Value& value);
std::string to_text(const Value& value);

/// Width and height of WIDTHxHEIGHT. Returns an empty text, or what is wrong with it.
std::string read_size(std::string_view text, int& width, int& height);
/// The nearest side that a picture may have.
int nearest_side(std::int64_t side);

/// Seconds of a duration; nothing when it is none.
std::optional<double> parse_duration(std::string_view text);
/// Bytes; nothing when it is none. GB = 10⁹, GiB = 2³⁰.
std::optional<double> parse_bytes(std::string_view text);

/// "unknown key "sed"; did you mean "seed"?", or the known ones where none is near.
std::string unknown_key(std::string_view key, const std::vector<std::string>& known);

}  // namespace gallop
