#include "farm/parameters.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/reader.hpp"
#include "core/scalar.hpp"
#include "farm/setting.hpp"

namespace gallop {
namespace {

const std::vector<std::string> types = {"text", "path", "whole", "number", "flag", "choice"};

std::string trimmed(std::string_view text) {
    const std::size_t begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return "";
    return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

bool is_text(std::string_view type) { return type == "text" || type == "path" || type == "choice"; }

}  // namespace

bool Parameters::fits(const Parameter& parameter, const std::string& name, const std::string& value,
                      const Where& where, Problems& problems) const {
    const auto wrong = [&](const std::string& needed) {
        problems.add(where, fmt::format("param {} is {} ({})", name, shortened(value), needed));
        return false;
    };
    if (parameter.type == "whole" && !parse_whole(value)) return wrong("must be a whole number");
    if (parameter.type == "number" && !parse_number(value)) return wrong("must be a number");
    if (parameter.type == "flag" && value != "true" && value != "false")
        return wrong("must be true or false");
    if (parameter.type == "choice" &&
        std::find(parameter.words.begin(), parameter.words.end(), value) == parameter.words.end())
        return wrong(fmt::format("must be one of: {}", fmt::join(parameter.words, ", ")));
    return true;
}

void Parameters::declare(const Node& params, Problems& problems) {
    static const Field type_field{"type", {FieldType::Kind::choice, 0, 0, types}, ""};
    static const Field words_field{"values", {FieldType::Kind::texts}, ""};
    if (params.kind == Node::Kind::null) return;
    if (params.kind != Node::Kind::map) {
        problems.add(params.where, fmt::format("params is {} (must be a map)", in_words(params)));
        return;
    }
    for (const auto& [key, node] : params.entries) {
        Parameter made;
        made.where = node.where;
        const Node* fallback = nullptr;
        if (node.kind == Node::Kind::map) {
            for (const auto& [option, value] : node.entries) {
                if (option.scalar == "type") {
                    if (const auto read = read_value(type_field, value, problems))
                        made.type = std::get<std::string>(*read);
                } else if (option.scalar == "values") {
                    if (const auto read = read_value(words_field, value, problems))
                        made.words = std::get<std::vector<std::string>>(*read);
                } else if (option.scalar == "default") {
                    fallback = &value;
                } else if (option.scalar != "about") {
                    problems.add(option.where, unknown_key(option.scalar,
                                                           {"type", "default", "values", "about"}));
                }
            }
        } else {
            fallback = &node;
        }
        if (made.type == "choice" && made.words.empty())
            problems.add(node.where,
                         fmt::format("param {} is a choice without values", key.scalar));
        if (fallback != nullptr) {
            const auto text = as_text(*fallback);
            if (!text) {
                problems.add(fallback->where, fmt::format("param {} is {} (must be a plain value)",
                                                          key.scalar, in_words(*fallback)));
            } else if (fits(made, key.scalar, *text, fallback->where, problems)) {
                made.value = *text;
            }
            made.has_value = true;
        }
        known_.insert_or_assign(key.scalar, std::move(made));
    }
}

void Parameters::assign(const std::vector<std::string>& given, Problems& problems) {
    for (const std::string& text : given) {
        const std::size_t equals = text.find('=');
        const Where where{"--param " + text, 0, 0};
        if (equals == std::string::npos || equals == 0) {
            problems.add(where, "must be NAME=VALUE");
            continue;
        }
        const std::string name = text.substr(0, equals);
        const auto found = known_.find(name);
        if (found == known_.end()) {
            std::vector<std::string> names;
            for (const auto& [known, parameter] : known_) names.push_back(known);
            const std::string near = nearest(name, names);
            problems.add(
                where,
                names.empty()
                    ? fmt::format("the manifest declares no params")
                    : fmt::format("no param \"{}\" (declared: {}){}", name, fmt::join(names, ", "),
                                  near.empty() ? "" : fmt::format("; did you mean {}?", near)));
            continue;
        }
        const std::string value = text.substr(equals + 1);
        if (fits(found->second, name, value, where, problems)) found->second.value = value;
        found->second.has_value = true;
    }
    for (const auto& [name, parameter] : known_)
        if (!parameter.has_value)
            problems.add(
                parameter.where,
                fmt::format("param {} has no default (give it with --param {}=VALUE)", name, name));
}

void Parameters::set_name(std::string name) {
    Parameter made;
    made.value = std::move(name);
    made.has_value = true;
    known_.insert_or_assign("\nname", std::move(made));  // no key of a map can hold a line's end
}

const Parameters::Parameter* Parameters::find(const std::string& expression, const Where& where,
                                              Problems& problems) const {
    const bool parameter = expression.starts_with("param.");
    const auto found = known_.find(parameter              ? expression.substr(6)
                                   : expression == "name" ? "\nname"
                                                          : "\n");
    if (found != known_.end()) return &found->second;
    std::vector<std::string> names = {"name"};
    for (const auto& [known, value] : known_)
        if (!known.starts_with('\n')) names.push_back("param." + known);
    const std::string near = nearest(expression, names);
    problems.add(where, fmt::format("unknown template {{{{{}}}}} (known: {}){}", expression,
                                    fmt::join(names, ", "),
                                    near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    return nullptr;
}

void Parameters::fill(Node& tree, Problems& problems) const {
    for (Node& item : tree.items) fill(item, problems);
    for (auto& [key, value] : tree.entries) fill(value, problems);
    if (tree.kind != Node::Kind::scalar || tree.scalar.find("{{") == std::string::npos) return;
    std::string filled;
    std::size_t at = 0;
    bool all_known = true;
    for (std::size_t begin; (begin = tree.scalar.find("{{", at)) != std::string::npos;) {
        const std::size_t end = tree.scalar.find("}}", begin);
        if (end == std::string::npos) {
            problems.add(tree.where, fmt::format("\"{}\" opens a template that has no end",
                                                 shortened(tree.scalar)));
            return;
        }
        const std::string expression =
            trimmed(std::string_view(tree.scalar).substr(begin + 2, end - begin - 2));
        const Parameter* found = find(expression, tree.where, problems);
        if (found != nullptr) {
            if (begin == 0 && end + 2 == tree.scalar.size()) tree.quoted = is_text(found->type);
            filled += tree.scalar.substr(at, begin - at) + found->value;
        }
        all_known = all_known && found != nullptr;
        at = end + 2;
    }
    if (all_known) tree.scalar = filled + tree.scalar.substr(at);
}

std::map<std::string, std::string> Parameters::values() const {
    std::map<std::string, std::string> all;
    for (const auto& [name, parameter] : known_)
        if (!name.starts_with('\n')) all.emplace(name, parameter.value);
    return all;
}

}  // namespace gallop
