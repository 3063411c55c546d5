#include "farm/schema.hpp"

#include <string>

#include <nlohmann/json.hpp>

#include "core/scalar.hpp"
#include "farm/config_fields.hpp"
#include "farm/fields.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;
using Kind = FieldType::Kind;

/// Text that a template may stand in for, whatever the type.
const Json template_text = {{"type", "string"}, {"pattern", R"(\{\{.*\}\})"}};

Json number(const char* type, const FieldType& of) {
    return {{"type", type}, {"minimum", of.least}, {"maximum", of.most}};
}

Json any_of(std::initializer_list<Json> ways) { return {{"anyOf", Json(std::vector<Json>(ways))}}; }

/// Words, and the numbers and flags that they spell.
Json words_schema(const std::vector<std::string>& words) {
    Json all = Json::array();
    for (const std::string& word : words) {
        all.push_back(word);
        if (const auto whole = parse_whole(word)) all.push_back(*whole);
    }
    return {{"enum", all}};
}

Json schema_of(const FieldType& type) {
    switch (type.kind) {
        case Kind::text: return {{"type", Json::array({"string", "number", "boolean"})}};
        case Kind::flag: return any_of({{{"type", "boolean"}}, template_text});
        case Kind::whole: return any_of({number("integer", type), template_text});
        case Kind::number: return any_of({number("number", type), template_text});
        case Kind::choice: return any_of({words_schema(type.words), template_text});
        case Kind::choices: {
            const Json one = words_schema(type.words);
            return any_of({one, {{"type", "array"}, {"items", one}}, template_text});
        }
        case Kind::texts:
            return any_of(
                {{{"type", "string"}}, {{"type", "array"}, {"items", {{"type", "string"}}}}});
        case Kind::size:
            return any_of({words_schema(type.words),
                           {{"type", "string"}, {"pattern", "^[0-9]+x[0-9]+$"}},
                           template_text});
        case Kind::duration:
            return any_of(
                {number("number", type),
                 {{"type", "string"},
                  {"pattern", "^([0-9.]+ ?(s|m|min|h|d)?|([0-9]+-)?[0-9]+(:[0-9]{2})+)$"}},
                 template_text});
        case Kind::bytes:
            return any_of({number("number", type),
                           {{"type", "string"}, {"pattern", "^[0-9.]+ ?([kKMGTP]i?)?B?$"}},
                           template_text});
        case Kind::bitrate:
            return any_of({number("number", type),
                           {{"type", "string"}, {"pattern", "^[0-9.]+ ?k?$"}},
                           template_text});
        case Kind::failures:
            return any_of({{{"type", "integer"}, {"minimum", 0}},
                           {{"type", "string"}, {"pattern", "^[0-9.]+%?$"}},
                           template_text});
        case Kind::time:
            return any_of(
                {{{"type", "string"}, {"pattern", "^(([0-9]+-)?[0-9]+:[0-9]{2}:[0-9]{2})?$"}},
                 template_text});
    }
    return {};
}

Json described(Json schema, const Field& field) {
    if (!field.about.empty()) schema["description"] = field.about;
    return schema;
}

/// Puts a field's schema into an object's, under its own nested maps.
void put_nested(Json& object, const std::string& path, const Json& schema) {
    const std::size_t dot = path.find('.');
    Json& properties = object["properties"];
    if (dot == std::string::npos) {
        properties[path] = schema;
        return;
    }
    Json& group = properties[path.substr(0, dot)];
    // A name that is a field and a group, too (guidance), may be either.
    if (group.contains("anyOf")) {
        for (Json& way : group["anyOf"])
            if (way.contains("properties")) return put_nested(way, path.substr(dot + 1), schema);
        group["anyOf"].push_back({{"type", "object"}, {"additionalProperties", false}});
        return put_nested(group["anyOf"].back(), path.substr(dot + 1), schema);
    }
    if (!group.is_null() && !group.contains("properties")) {
        group = {{"anyOf", Json::array({group})}};
        return put_nested(object, path, schema);
    }
    group["type"] = "object";
    group["additionalProperties"] = false;
    put_nested(group, path.substr(dot + 1), schema);
}

/// A field's schema stands once, under its path in `$defs`.
Json reference(const std::string& name) { return {{"$ref", "#/$defs/" + name}}; }

/// A map of item fields, nested or dotted; `values` makes the schema of a field's value from the
/// field's own.
template <class Values>
Json map_of_fields(const Values& values) {
    Json object = {{"type", "object"}, {"additionalProperties", false}};
    for (const Field& field : item_fields()) {
        const Json schema = values(reference(field.path));
        put_nested(object, field.path, schema);
        if (field.path.find('.') != std::string::npos) object["properties"][field.path] = schema;
    }
    return object;
}

Json list_of(Json items) { return {{"type", "array"}, {"items", std::move(items)}}; }

Json one_or_list_of(const Json& one) { return {{"anyOf", Json::array({one, list_of(one)})}}; }

/// What several places of the schema refer to.
Json definitions() {
    Json defs = Json::object();
    for (const Field& field : item_fields())
        defs[field.path] = described(schema_of(field.type), field);
    const auto itself = [](Json one) { return one; };
    defs["cell"] = map_of_fields(itself);
    defs["defaults"] = defs["cell"];
    defs["defaults"]["properties"].erase("name");
    defs["axes"] = map_of_fields(list_of);
    defs["match"] = map_of_fields(one_or_list_of);
    Json& columns = defs["columns"] = map_of_fields([](const Json&) {
        return Json{{"type", "string"}};
    });
    columns["description"] = "Which column of the files gives which field";
    return defs;
}

Json params_schema() {
    const Json plain = {{"type", Json::array({"string", "number", "boolean"})}};
    const Json words = Json::array({"text", "path", "whole", "number", "flag", "choice"});
    return {{"type", "object"},
            {"description", "What --param NAME=VALUE sets and {{param.NAME}} stands for"},
            {"additionalProperties", any_of({plain,
                                             {{"type", "object"},
                                              {"additionalProperties", false},
                                              {"properties",
                                               {{"type", {{"enum", words}}},
                                                {"default", plain},
                                                {"values", list_of(plain)},
                                                {"about", {{"type", "string"}}}}}}})}};
}

Json sweep_schema() {
    const Json cells = list_of(reference("cell"));
    return {
        {"type", "object"},
        {"description", "Every item is rendered in every cell: matrix × zip − exclude + include"},
        {"additionalProperties", false},
        {"properties",
         {{"matrix", reference("axes")},
          {"zip", one_or_list_of(reference("axes"))},
          {"exclude", cells},
          {"include", cells}}}};
}

Json item_schema() {
    Json item = map_of_fields([](Json one) { return one; });
    item["properties"]["from"] = one_or_list_of({{"type", "string"}});
    item["properties"]["from"]["description"] =
        "Files (.jsonl, .csv; * and ? are patterns) whose rows are items";
    item["properties"]["fields"] = reference("columns");
    item["properties"]["limit"] = {
        {"type", "integer"}, {"minimum", 1}, {"description", "Most rows to take"}};
    return item;
}

}  // namespace

Json manifest_schema() {
    Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                   {"title", "Gallop manifest"},
                   {"type", "object"},
                   {"additionalProperties", false}};
    for (const ConfigField& field : config_fields())
        put_nested(schema, field.path, described(schema_of(field.type), field));
    Json& properties = schema["properties"];
    properties["version"] = {{"const", 1}, {"description", "Of the manifest language"}};
    properties["use"] = one_or_list_of({{"type", "string"}});
    properties["use"]["description"] = "Presets that lie under this manifest, left to right";
    properties["params"] = params_schema();
    properties["defaults"] = reference("defaults");
    properties["items"] = list_of(item_schema());
    properties["sweep"] = sweep_schema();
    properties["overrides"] =
        list_of({{"type", "object"},
                 {"additionalProperties", false},
                 {"required", Json::array({"set"})},
                 {"properties", {{"match", reference("match")}, {"set", reference("defaults")}}}});
    schema["$defs"] = definitions();
    return schema;
}

}  // namespace gallop
