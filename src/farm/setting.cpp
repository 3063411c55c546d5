#include "farm/setting.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "core/reader.hpp"
#include "core/scalar.hpp"
#include "farm/canonical_json.hpp"

namespace gallop {
namespace {

using Kind = FieldType::Kind;

constexpr int largest_side = 8192;

/// A number and what follows it.
std::optional<std::pair<double, std::string_view>> number_and_unit(std::string_view text) {
    const std::size_t end = std::min(text.find_first_not_of("0123456789."), text.size());
    const auto value = parse_number(text.substr(0, end));
    if (!value) return {};
    std::string_view unit = text.substr(end);
    while (unit.starts_with(' ')) unit.remove_prefix(1);
    return std::pair{*value, unit};
}

/// Seconds of [D-]H:MM:SS or M:SS.
std::optional<double> parse_clock(std::string_view text) {
    double days = 0;
    if (const std::size_t dash = text.find('-'); dash != std::string_view::npos) {
        const auto value = parse_whole(text.substr(0, dash));
        if (!value || *value < 0 || *value > 365) return {};
        days = static_cast<double>(*value);
        text.remove_prefix(dash + 1);
    }
    double seconds = 0;
    int parts = 0;
    for (; parts < 3; ++parts) {
        int value = 0;
        const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
        const auto digits = static_cast<std::size_t>(end - text.data());
        if (failed != std::errc() || value < 0 || text[0] == '-' ||
            (parts > 0 && (digits != 2 || value > 59)) || value > 9999)
            return {};
        seconds = seconds * 60 + value;
        text.remove_prefix(digits);
        if (text.empty()) break;
        if (text[0] != ':') return {};
        text.remove_prefix(1);
        if (text.empty()) return {};
    }
    if (!text.empty() || parts == 0) return {};
    return days * 86400 + seconds;
}

std::string need(const FieldType& type) {
    switch (type.kind) {
        case Kind::text: return "must be text";
        case Kind::flag: return "must be true or false";
        case Kind::whole:
            return fmt::format("must be a whole number from {} to {}",
                               static_cast<std::int64_t>(type.least),
                               static_cast<std::int64_t>(type.most));
        case Kind::number:
            return fmt::format("must be a number from {} to {}", type.least, type.most);
        case Kind::choice: return fmt::format("must be one of: {}", fmt::join(type.words, ", "));
        case Kind::choices:
            return fmt::format("must be a list of: {}", fmt::join(type.words, ", "));
        case Kind::texts: return "must be a list of texts";
        case Kind::size:
            return fmt::format("must be {}, or WIDTHxHEIGHT", fmt::join(type.words, ", "));
        case Kind::duration:
            return fmt::format(
                "must be a time from {:g} to {:g} seconds, e.g. 90, 90s, 5m, 2h or "
                "01:30:00",
                type.least, type.most);
        case Kind::bytes: return "must be a number of bytes, e.g. 64MB, 500GB or 1.5TiB";
        case Kind::bitrate:
            return fmt::format("bits a second, from {:g}k to {:g}k", type.least / 1000,
                               type.most / 1000);
        case Kind::failures: return "must be a number of items, or a share of all such as 2%";
        case Kind::time: return "must be a time limit as Slurm writes it, e.g. \"04:00:00\"";
    }
    return "";
}

bool within(double value, const FieldType& type) {
    return value >= type.least && value <= type.most;
}

std::optional<double> parse_bitrate(std::string_view text) {
    const auto parsed = number_and_unit(text);
    if (!parsed || (parsed->second != "" && parsed->second != "k")) return {};
    return parsed->first * (parsed->second == "k" ? 1000 : 1);
}

/// The value of a scalar, if it is one that the type takes.
std::optional<Value> scalar_value(const FieldType& type, const Node& node) {
    switch (type.kind) {
        case Kind::text: return as_text(node);
        case Kind::flag: return as_flag(node);
        case Kind::whole: {
            const auto value = as_whole(node);
            if (value && within(static_cast<double>(*value), type)) return *value;
            return {};
        }
        case Kind::number: {
            const auto value = as_number(node);
            if (value && within(*value, type)) return *value;
            return {};
        }
        case Kind::choice: {
            const auto text = as_text(node);
            if (text && std::find(type.words.begin(), type.words.end(), *text) != type.words.end())
                return *text;
            return {};
        }
        case Kind::duration:
        case Kind::bytes:
        case Kind::bitrate: {
            const auto text = as_text(node);
            if (!text) return {};
            const auto value = type.kind == Kind::duration ? parse_duration(*text)
                               : type.kind == Kind::bytes  ? parse_bytes(*text)
                                                           : parse_bitrate(*text);
            if (!value || !within(*value, type)) return {};
            if (type.kind == Kind::duration) return *value;
            return static_cast<std::int64_t>(std::llround(*value));
        }
        case Kind::failures: {
            const auto text = as_text(node);
            if (!text) return {};
            const bool share = text->ends_with('%');
            const auto value =
                parse_number(std::string_view(*text).substr(0, text->size() - share));
            if (!value || *value < 0 || (share ? *value > 100 : *value != std::floor(*value)))
                return {};
            return *text;
        }
        case Kind::time: {
            const auto text = as_text(node);
            if (text && text->empty()) return *text;
            if (text && std::count(text->begin(), text->end(), ':') == 2 && parse_clock(*text))
                return *text;
            return {};
        }
        default: return {};
    }
}

std::optional<Value> read_list(const Field& field, const Node& node, Problems& problems) {
    const FieldType& type = field.type;
    std::vector<std::string> values;
    const auto take = [&](const Node& one) {
        const auto text = as_text(one);
        if (!text) {
            problems.add(one.where,
                         fmt::format("{} is {} ({})", field.path, in_words(one), need(type)));
            return false;
        }
        if (type.kind == Kind::choices &&
            std::find(type.words.begin(), type.words.end(), *text) == type.words.end()) {
            const std::string near = nearest(*text, type.words);
            problems.add(one.where,
                         fmt::format("{} names \"{}\" ({}){}", field.path, *text, need(type),
                                     near.empty() ? "" : fmt::format("; did you mean {}?", near)));
            return false;
        }
        values.push_back(*text);
        return true;
    };
    if (node.kind == Node::Kind::scalar) {
        if (!take(node)) return {};
        return values;
    }
    if (node.kind != Node::Kind::sequence) {
        problems.add(node.where,
                     fmt::format("{} is {} ({})", field.path, in_words(node), need(type)));
        return {};
    }
    bool whole = true;
    for (const Node& one : node.items) whole = take(one) && whole;
    if (!whole) return {};
    return values;
}

}  // namespace

int nearest_side(std::int64_t side) {
    return static_cast<int>(std::clamp<std::int64_t>((side + 16) / 32 * 32, 32, largest_side));
}

std::string read_size(std::string_view text, int& width, int& height) {
    std::int64_t side[2] = {0, 0};
    const char* at = text.data();
    const char* const end = at + text.size();
    for (int i = 0; i < 2; ++i) {
        const auto [stop, failed] = std::from_chars(at, end, side[i]);
        if (failed != std::errc() || stop == at || *at == '-' ||
            (i == 0 ? stop == end || *stop != 'x' : stop != end))
            return fmt::format("is \"{}\" (must be 256p, 540p, 1080p, or WIDTHxHEIGHT)",
                               shortened(text));
        at = stop + 1;
    }
    width = nearest_side(side[0]);
    height = nearest_side(side[1]);
    if (width != side[0] || height != side[1])
        return fmt::format(
            "is {} (width and height must be multiples of 32 from 32 to {}); the nearest is {}x{}",
            text, largest_side, width, height);
    return {};
}

std::optional<double> parse_duration(std::string_view text) {
    if (text.find(':') != std::string_view::npos) return parse_clock(text);
    const auto parsed = number_and_unit(text);
    if (!parsed) return {};
    const auto [value, unit] = *parsed;
    if (unit == "" || unit == "s") return value;
    if (unit == "m" || unit == "min") return value * 60;
    if (unit == "h") return value * 3600;
    if (unit == "d") return value * 86400;
    return {};
}

std::optional<double> parse_bytes(std::string_view text) {
    const auto parsed = number_and_unit(text);
    if (!parsed) return {};
    const auto [value, unit] = *parsed;
    if (unit == "" || unit == "B") return value;
    static constexpr std::string_view prefixes = "kMGTP";
    const std::size_t power = prefixes.find(unit[0] == 'K' ? 'k' : unit[0]);
    if (power == std::string_view::npos) return {};
    const std::string_view rest = unit.substr(1);
    if (rest == "B" || rest == "") return value * std::pow(1000.0, static_cast<double>(power + 1));
    if (rest == "iB") return value * std::pow(1024.0, static_cast<double>(power + 1));
    return {};
}

std::optional<Value> read_value(const Field& field, const Node& node, Problems& problems) {
    const FieldType& type = field.type;
    if (type.kind == Kind::choices || type.kind == Kind::texts)
        return read_list(field, node, problems);
    if (type.kind == Kind::size && node.kind == Node::Kind::scalar) {
        int width = 0;
        int height = 0;
        if (std::find(type.words.begin(), type.words.end(), node.scalar) != type.words.end())
            return node.scalar;
        const std::string wrong = read_size(node.scalar, width, height);
        if (wrong.empty()) return node.scalar;
        problems.add(node.where, field.path + " " + wrong);
        return {};
    }
    if (auto value = scalar_value(type, node)) return value;
    std::string near;
    if (type.kind == Kind::choice && node.kind == Node::Kind::scalar)
        near = nearest(node.scalar, type.words);
    problems.add(node.where,
                 fmt::format("{} is {} ({}){}", field.path, in_words(node), need(type),
                             near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    return {};
}

nlohmann::json to_json(const Value& value) {
    return std::visit(
        [](const auto& held) -> nlohmann::json {
            if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>)
                return nullptr;
            else
                return held;
        },
        value);
}

std::string to_text(const Value& value) {
    if (const auto* text = std::get_if<std::string>(&value)) return *text;
    if (const auto* list = std::get_if<std::vector<std::string>>(&value))
        return fmt::format("[{}]", fmt::join(*list, ", "));
    if (const auto* number = std::get_if<double>(&value)) return number_text(*number);
    if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
    if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
    return "";
}

std::string unknown_key(std::string_view key, const std::vector<std::string>& known) {
    const std::string near = nearest(key, known);
    return near.empty()
               ? fmt::format("unknown key \"{}\" (known here: {})", shortened(key),
                             fmt::join(known, ", "))
               : fmt::format("unknown key \"{}\"; did you mean \"{}\"?", shortened(key), near);
}

}  // namespace gallop
