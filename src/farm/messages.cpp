#include "farm/messages.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>
#include <simdjson.h>

#include "core/check.hpp"
#include "farm/canonical_json.hpp"

namespace gallop::message {
namespace {

using Json = nlohmann::json;

constexpr std::size_t most_text_bytes = 3500;
constexpr std::size_t most_list = 256;

// Writing.

/// One object of a text that grows.
struct Write {
    std::string& out;
    bool empty = true;
    template <class T>
    void operator()(std::string_view name, const T& value);
};

void write(std::string& out, std::string_view value) {
    // A log's line may hold any bytes.
    if (is_utf8(value))
        append_json_text(value, out);
    else
        out += Json(value).dump(-1, ' ', false, Json::error_handler_t::replace);
}
void write(std::string& out, bool value) { out += value ? "true" : "false"; }
void write(std::string& out, double value) {
    out += std::isfinite(value) ? number_text(value) : "null";
}
template <std::integral T>
void write(std::string& out, T value) {
    out += std::to_string(value);
}
void write(std::string& out, FailureKind value) { write(out, name_of(value)); }
void write(std::string& out, const OutputFile& value) {
    Write fields{out};
    fields("path", value.path);
    fields("bytes", value.bytes);
    fields("sha256", value.sha256);
    out += '}';
}
/// A list, each element by a call.
template <class List, class Each>
void write_list(std::string& out, const List& values, const Each& each) {
    out += '[';
    for (bool first = true; const auto& value : values) {
        if (!std::exchange(first, false)) out += ',';
        each(value);
    }
    out += ']';
}
void write(std::string& out, const StageSeconds& value) {
    // No object: the stages have an order.
    write_list(out, value.stages, [&](const auto& one) {
        out += '[';
        write(out, one.first);
        out += ',';
        write(out, one.second);
        out += ']';
    });
}
template <class T>
void write(std::string& out, const std::vector<T>& values);
template <class T>
requires std::is_aggregate_v<T>
void write(std::string& out, const T& value) {
    Write fields{out};
    T::fields(value, fields);
    if (fields.empty) out += '{';
    out += '}';
}
template <class T>
void write(std::string& out, const std::vector<T>& values) {
    write_list(out, values, [&](const T& value) { write(out, value); });
}

template <class T>
void Write::operator()(std::string_view name, const T& value) {
    const auto member = [&](const auto& what) {
        out += std::exchange(empty, false) ? '{' : ',';
        append_json_text(name, out);
        out += ':';
        write(out, what);
    };
    if constexpr (requires { value.has_value(); }) {
        if (value) member(*value);
    } else {
        member(value);
    }
}

// Reading: each function throws Error unless the JSON is exactly what writing makes.

using Value = simdjson::dom::element;

[[noreturn]] void refuse(std::string_view name, Value value, std::string_view needed) {
    throw Error(fmt::format("message: {} is {} (must be {})", name,
                            shortened(simdjson::minify(value), 80), needed));
}

/// Reads the fields of one object, and sees that there are no others.
class Read {
public:
    Read(const char* what, Value from) {
        if (from.get(from_) != simdjson::SUCCESS) refuse(what, from, "an object");
    }
    template <class T>
    void operator()(const char* name, T& value);
    void known(std::string_view name) { known_.push_back(name); }
    void finish() const {
        for (const auto& [name, value] : from_)
            if (std::find(known_.begin(), known_.end(), name) == known_.end())
                refuse(name, value, "absent");
    }

private:
    simdjson::dom::object from_;
    std::vector<std::string_view> known_;
};

void read(const char* name, Value json, std::string& value) {
    std::string_view text;
    if (json.get(text) != simdjson::SUCCESS || text.size() > most_text_bytes)
        refuse(name, json, "a text");
    value = text;
}
void read(const char* name, Value json, bool& value) {
    if (json.get(value) != simdjson::SUCCESS) refuse(name, json, "true or false");
}
void read(const char* name, Value json, double& value) {
    if (json.get(value) != simdjson::SUCCESS || !(value >= 0) || !std::isfinite(value))
        refuse(name, json, "a number from 0");
}
template <std::integral T>
void read(const char* name, Value json, T& value) {
    std::uint64_t number = 0;
    if (json.get(number) != simdjson::SUCCESS ||
        number > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
        refuse(name, json, "a whole number from 0");
    value = static_cast<T>(number);
}
void read(const char* name, Value json, FailureKind& value) {
    std::string text;
    read(name, json, text);
    const auto kind = failure_kind(text);
    if (!kind) refuse(name, json, "a kind of failure");
    value = *kind;
}
void read(const char* name, Value json, OutputFile& value) {
    Read fields(name, json);
    fields("path", value.path);
    fields("bytes", value.bytes);
    fields("sha256", value.sha256);
    fields.finish();
}
void read(const char* name, Value json, StageSeconds& value) {
    simdjson::dom::array list;
    if (json.get(list) != simdjson::SUCCESS || list.size() > most_list)
        refuse(name, json, "a list of stages");
    value.stages.clear();
    for (const Value one : list) {
        simdjson::dom::array pair;
        if (one.get(pair) != simdjson::SUCCESS || pair.size() != 2)
            refuse(name, one, "a stage and its seconds");
        auto& [stage, seconds] = value.stages.emplace_back();
        read(name, pair.at(0).value_unsafe(), stage);
        read(name, pair.at(1).value_unsafe(), seconds);
    }
}
template <class T>
void read(const char* name, Value json, std::vector<T>& values);
template <class T>
requires std::is_aggregate_v<T>
void read(const char* name, Value json, T& value) {
    Read fields(name, json);
    T::fields(value, fields);
    fields.finish();
}
template <class T>
void read(const char* name, Value json, std::vector<T>& values) {
    simdjson::dom::array list;
    if (json.get(list) != simdjson::SUCCESS || list.size() > most_list)
        refuse(name, json, "a list");
    values.clear();
    for (const Value one : list) read(name, one, values.emplace_back());
}

template <class T>
void Read::operator()(const char* name, T& value) {
    known(name);
    Value found;
    const bool there = from_.at_key(name).get(found) == simdjson::SUCCESS;
    if constexpr (requires { value.has_value(); }) {
        if (there) read(name, found, value.emplace());
    } else {
        if (!there) throw Error(fmt::format("message: {} is missing", name));
        read(name, found, value);
    }
}

/// Reads the message whose kind has this name; false when it is another's.
template <class T>
bool read_as(const std::string& kind, Value json, Message& message) {
    if (kind != T::kind) return false;
    Read fields("message", json);
    fields.known("v");
    fields.known("kind");
    T::fields(message.emplace<T>(), fields);
    fields.finish();
    return true;
}

template <class... Kinds>
bool read_any(const std::string& kind, Value json, std::variant<Kinds...>& message) {
    return (read_as<Kinds>(kind, json, message) || ...);
}

}  // namespace

std::string to_text(const Message& message) {
    std::string text;
    std::visit(
        [&](const auto& one) {
            Write fields{text};
            fields("v", version);
            fields("kind", one.kind);
            one.fields(one, fields);
        },
        message);
    text += '}';
    CHECK(text.size() <= most_bytes, "a message of {} bytes (at most {})", text.size(), most_bytes);
    return text;
}

Message parse(std::string_view text) {
    if (text.size() > most_bytes)
        throw Error(fmt::format("message of {} bytes (at most {})", text.size(), most_bytes));
    thread_local simdjson::dom::parser parser;
    Value json;
    if (text.empty() || parser.parse(text.data(), text.size()).get(json) != simdjson::SUCCESS ||
        !json.is_object())
        throw Error("message: not a JSON object");
    int spoken = 0;
    std::string kind;
    Read head("message", json);
    head("v", spoken);
    head("kind", kind);
    if (spoken != version)
        throw Error(fmt::format("message of version {} (must be {})", spoken, version));
    Message message;
    if (!read_any(kind, json, message))
        throw Error(fmt::format("message of an unknown kind \"{}\"", shortened(kind, 80)));
    return message;
}

std::vector<Lease> leases(int slot, int round, const std::vector<Task>& items) {
    constexpr std::size_t most_items = 16;  // of at most 200 bytes each
    std::vector<Lease> made;
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (i % most_items == 0) made.push_back({slot, round, {}});
        made.back().items.push_back(items[i]);
    }
    return made;
}

}  // namespace gallop::message
