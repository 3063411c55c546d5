#include "farm/schema.hpp"

#include <filesystem>
#include <regex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/node.hpp"
#include "core/scalar.hpp"
#include "farm/fields.hpp"
#include "farm/manifest.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

/// YAML as an editor sees it.
Json json_of(const Node& node) {
    switch (node.kind) {
        case Node::Kind::null: return nullptr;
        case Node::Kind::sequence: {
            Json list = Json::array();
            for (const Node& item : node.items) list.push_back(json_of(item));
            return list;
        }
        case Node::Kind::map: {
            Json map = Json::object();
            for (const auto& [key, value] : node.entries) map[key.scalar] = json_of(value);
            return map;
        }
        case Node::Kind::scalar: break;
    }
    if (const auto flag = as_flag(node)) return *flag;
    if (const auto whole = as_whole(node)) return *whole;
    if (const auto number = as_number(node)) return *number;
    return node.scalar;
}

bool is_type(const Json& value, const std::string& type) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_boolean();
    if (type == "integer") return value.is_number_integer();
    return type == "number" && value.is_number();
}

/// The part of JSON Schema that ours uses. Returns the path of the first value that is wrong, or "".
std::string fault(const Json& schema, const Json& value, const std::string& path = "$") {
    static const Json whole = manifest_schema();
    if (schema.contains("$ref")) {
        const std::string name = schema["$ref"].get<std::string>().substr(8);  // "#/$defs/"
        return fault(whole["$defs"].at(name), value, path);
    }
    if (schema.contains("anyOf")) {
        for (const Json& way : schema["anyOf"])
            if (fault(way, value, path).empty()) return "";
        return path;
    }
    if (schema.contains("const") && schema["const"] != value) return path;
    if (schema.contains("enum")) {
        const Json& words = schema["enum"];
        if (std::find(words.begin(), words.end(), value) == words.end()) return path;
    }
    if (schema.contains("type")) {
        const Json& types = schema["type"];
        bool one = false;
        for (const Json& type : types.is_array() ? types : Json::array({types}))
            one = one || is_type(value, type.get<std::string>());
        if (!one) return path;
    }
    if (schema.contains("minimum") && value < schema["minimum"]) return path;
    if (schema.contains("maximum") && value > schema["maximum"]) return path;
    if (schema.contains("pattern") &&
        !std::regex_search(value.get<std::string>(),
                           std::regex(schema["pattern"].get<std::string>())))
        return path;
    if (value.is_array() && schema.contains("items"))
        for (std::size_t i = 0; i < value.size(); ++i)
            if (std::string at = fault(schema["items"], value[i], path + "." + std::to_string(i));
                !at.empty())
                return at;
    if (!value.is_object()) return "";
    for (const auto& [key, member] : value.items()) {
        const Json known = schema.value("properties", Json::object());
        const std::string at = path + "." + key;
        if (known.contains(key)) {
            if (std::string wrong = fault(known[key], member, at); !wrong.empty()) return wrong;
        } else if (schema.contains("additionalProperties")) {
            const Json& others = schema["additionalProperties"];
            if (others == false) return at;
            if (others.is_object())
                if (std::string wrong = fault(others, member, at); !wrong.empty()) return wrong;
        }
    }
    for (const Json& key : schema.value("required", Json::array()))
        if (!value.contains(key.get<std::string>())) return path + "." + key.get<std::string>();
    return "";
}

std::string fault_of(const std::string& yaml) {
    return fault(manifest_schema(), json_of(parse_yaml(yaml, "m.yaml")));
}

TEST(Schema, IsTheOneThatIsShipped) {
    EXPECT_TRUE(manifest_schema().dump(1) + "\n" ==
                read_text(std::string(GALLOP_ROOT) + "/configs/manifest.schema.json"))
        << "gallop schema >configs/manifest.schema.json";
}

TEST(Schema, KnowsEveryFieldAndBlock) {
    const Json schema = manifest_schema();
    for (const std::string& key : manifest_keys())
        EXPECT_TRUE(schema["properties"].contains(key)) << key;
    const Json& item = schema["properties"]["items"]["items"]["properties"];
    for (const Field& field : item_fields()) {
        EXPECT_TRUE(item.contains(field.path)) << field.path;
        EXPECT_FALSE(field.about.empty()) << field.path;
    }
}

TEST(Schema, TakesWhatIsShippedWithTheProgram) {
    std::size_t files = 0;
    for (const char* folder : {"configs/presets", "jobs"})
        for (const auto& entry :
             std::filesystem::directory_iterator(std::string(GALLOP_ROOT) + "/" + folder)) {
            if (entry.path().extension() != ".yaml") continue;
            EXPECT_EQ(fault_of(read_text(entry.path())), "") << entry.path();
            ++files;
        }
    EXPECT_GE(files, 7U);
    EXPECT_EQ(
        fault_of(read_text(std::string(GALLOP_ROOT) + "/tests/fuzz/corpus/manifest/sweep.yaml")),
        "");
}

TEST(Schema, FindsWhatTheReaderWouldRefuse) {
    EXPECT_EQ(fault_of("defaults: {secnds: 1}"), "$.defaults.secnds");
    EXPECT_EQ(fault_of("defaults: {seconds: -1}"), "$.defaults.seconds");
    EXPECT_EQ(fault_of("items: [{prompt: p, steps: {base: 0}}]"), "$.items.0.steps.base");
    EXPECT_EQ(fault_of("items: [{prompt: p, guidance: x}]"), "$.items.0.guidance");
    EXPECT_EQ(fault_of("items: [{prompt: p, guidance: 3}, {prompt: p, guidance: {late: 1}}]"), "");
    EXPECT_EQ(fault_of("sweep: {matrix: {guidance: [3, 5], steps.base: [8]}}"), "");
    EXPECT_EQ(fault_of("sweep: {matrix: {guidance: 3}}"), "$.sweep.matrix.guidance");
    EXPECT_EQ(fault_of("overrides: [{match: {resolution: 540p}}]"), "$.overrides.0.set");
    EXPECT_EQ(fault_of("retry: {on_oom: [split, cry]}"), "$.retry.on_oom");
    EXPECT_EQ(fault_of("resources: {gpus_per_item: 4}"), "");
    EXPECT_EQ(fault_of("resources: {gpus_per_item: 3}"), "$.resources.gpus_per_item");
    EXPECT_EQ(fault_of("version: 2"), "$.version");
}

}  // namespace
}  // namespace gallop
