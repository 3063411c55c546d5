#include "farm/messages.hpp"

#include <cmath>
#include <limits>
#include <set>
#include <type_traits>

#include "core/check.hpp"

namespace gallop::message {
namespace {

using Json = nlohmann::json;

constexpr std::size_t most_text_bytes = 3500;
constexpr std::size_t most_list = 256;

// Writing.

struct Write {
    Json& into;
    template <class T>
    void operator()(const char* name, const T& value);
};

Json json_of(const std::string& value) { return value; }
Json json_of(bool value) { return value; }
Json json_of(double value) { return value; }
template <std::integral T>
Json json_of(T value) {
    return value;
}
Json json_of(FailureKind value) { return name_of(value); }
Json json_of(const OutputFile& value) { return gallop::to_json(value); }
Json json_of(const StageSeconds& value) {
    Json made = Json::array();  // no object: the stages have an order
    for (const auto& [stage, seconds] : value.stages) made.push_back({stage, seconds});
    return made;
}
template <class T>
Json json_of(const std::vector<T>& values);
template <class T>
requires std::is_aggregate_v<T> Json json_of(const T& value) {
    Json made = Json::object();
    Write write{made};
    T::fields(value, write);
    return made;
}
template <class T>
Json json_of(const std::vector<T>& values) {
    Json made = Json::array();
    for (const T& value : values) made.push_back(json_of(value));
    return made;
}

template <class T>
void Write::operator()(const char* name, const T& value) {
    if constexpr (requires { value.has_value(); }) {
        if (value) into[name] = json_of(*value);
    } else {
        into[name] = json_of(value);
    }
}

// Reading: each function throws Error unless the JSON is exactly what writing makes.

[[noreturn]] void refuse(std::string_view name, const Json& value, std::string_view needed) {
    throw Error(fmt::format(
        "message: {} is {} (must be {})", name,
        shortened(value.dump(-1, ' ', true, Json::error_handler_t::replace), 80), needed));
}

/// Reads the fields of one object, and sees that there are no others.
class Read {
public:
    Read(const char* what, const Json& from) : from_(from) {
        if (!from.is_object()) refuse(what, from, "an object");
    }
    template <class T>
    void operator()(const char* name, T& value);
    void known(std::string_view name) { known_.insert(name); }
    void finish() const {
        for (const auto& [name, value] : from_.items())
            if (!known_.contains(name)) refuse(name, value, "absent");
    }

private:
    const Json& from_;
    std::set<std::string_view> known_;
};

void read(const char* name, const Json& json, std::string& value) {
    if (!json.is_string() || json.get_ref<const std::string&>().size() > most_text_bytes)
        refuse(name, json, "a text");
    value = json.get<std::string>();
}
void read(const char* name, const Json& json, bool& value) {
    if (!json.is_boolean()) refuse(name, json, "true or false");
    value = json.get<bool>();
}
void read(const char* name, const Json& json, double& value) {
    if (!json.is_number() || !(json.get<double>() >= 0) || !std::isfinite(json.get<double>()))
        refuse(name, json, "a number from 0");
    value = json.get<double>();
}
template <std::integral T>
void read(const char* name, const Json& json, T& value) {
    if (!json.is_number_unsigned() ||
        json.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
        refuse(name, json, "a whole number from 0");
    value = json.get<T>();
}
void read(const char* name, const Json& json, FailureKind& value) {
    std::string text;
    read(name, json, text);
    const auto kind = failure_kind(text);
    if (!kind) refuse(name, json, "a kind of failure");
    value = *kind;
}
void read(const char* name, const Json& json, OutputFile& value) {
    Read fields(name, json);
    fields("path", value.path);
    fields("bytes", value.bytes);
    fields("sha256", value.sha256);
    fields.finish();
}
void read(const char* name, const Json& json, StageSeconds& value) {
    if (!json.is_array() || json.size() > most_list) refuse(name, json, "a list of stages");
    value.stages.clear();
    for (const Json& one : json) {
        if (!one.is_array() || one.size() != 2) refuse(name, one, "a stage and its seconds");
        auto& [stage, seconds] = value.stages.emplace_back();
        read(name, one[0], stage);
        read(name, one[1], seconds);
    }
}
template <class T>
void read(const char* name, const Json& json, std::vector<T>& values);
template <class T>
requires std::is_aggregate_v<T>
void read(const char* name, const Json& json, T& value) {
    Read fields(name, json);
    T::fields(value, fields);
    fields.finish();
}
template <class T>
void read(const char* name, const Json& json, std::vector<T>& values) {
    if (!json.is_array() || json.size() > most_list) refuse(name, json, "a list");
    values.clear();
    for (const Json& one : json) read(name, one, values.emplace_back());
}

template <class T>
void Read::operator()(const char* name, T& value) {
    known(name);
    const auto found = from_.find(name);
    if constexpr (requires { value.has_value(); }) {
        if (found != from_.end()) read(name, *found, value.emplace());
    } else {
        if (found == from_.end()) throw Error(fmt::format("message: {} is missing", name));
        read(name, *found, value);
    }
}

/// Reads the message whose kind has this name; false when it is another's.
template <class T>
bool read_as(const std::string& kind, const Json& json, Message& message) {
    if (kind != T::kind) return false;
    Read fields("message", json);
    fields.known("v");
    fields.known("kind");
    T::fields(message.emplace<T>(), fields);
    fields.finish();
    return true;
}

template <class... Kinds>
bool read_any(const std::string& kind, const Json& json, std::variant<Kinds...>& message) {
    return (read_as<Kinds>(kind, json, message) || ...);
}

}  // namespace

std::string to_text(const Message& message) {
    const std::string text = std::visit(
        [](const auto& one) {
            Json json = json_of(one);
            json["v"] = version;
            json["kind"] = one.kind;
            return json.dump(-1, ' ', false, Json::error_handler_t::replace);
        },
        message);
    CHECK(text.size() <= most_bytes, "a message of {} bytes (at most {})", text.size(), most_bytes);
    return text;
}

Message parse(std::string_view text) {
    if (text.size() > most_bytes)
        throw Error(fmt::format("message of {} bytes (at most {})", text.size(), most_bytes));
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) throw Error("message: not a JSON object");
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
