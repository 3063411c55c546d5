#include "model/fp8_choice.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "core/check.hpp"

namespace gallop {
namespace {

constexpr const char* layers_help =
    "\"inner\" for all but the first and the last, \"all\", or layers and ranges such as \"1-38\" "
    "or \"0,4-9\"";

struct Span {
    Index first, last;
};

std::optional<Index> number(std::string_view text) {
    Index value = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = failed == std::errc() && end == text.data() + text.size();
    return whole && value >= 0 ? std::optional(value) : std::nullopt;
}

/// "0,4-9"; nothing when it is no such list.
std::optional<std::vector<Span>> spans_of(std::string_view text) {
    std::vector<Span> spans;
    while (true) {
        const std::size_t comma = text.find(',');
        const std::string_view part = text.substr(0, comma);
        const std::size_t dash = part.find('-');
        const auto first = number(part.substr(0, dash));
        const auto last = dash == part.npos ? first : number(part.substr(dash + 1));
        if (!first || !last || *last < *first) return std::nullopt;
        spans.push_back({*first, *last});
        if (comma == text.npos) return spans;
        text.remove_prefix(comma + 1);
    }
}

bool contains(const std::vector<std::string>& list, std::string_view value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

/// The field for a linear's own layers.
template <class Choice>
auto& own_layers(Choice& choice, std::string_view linear) {
    if (linear == "qkv") return choice.qkv;
    if (linear == "proj") return choice.proj;
    if (linear == "up") return choice.up;
    return choice.down;
}

/// The layers in which a linear is chosen, as text, and the field that says so.
struct Said {
    std::string layers, field;
};
Said said_of(const Fp8Choice& choice, const std::string& linear) {
    if (const std::string& own = own_layers(choice, linear); !own.empty())
        return {own, "model.fp8." + linear};
    return {contains(choice.linears, linear) ? choice.layers : "none", "model.fp8.layers"};
}

/// Whether each layer is chosen.
std::vector<bool> chosen_layers(const Said& said, Index count, std::string_view network) {
    std::vector<bool> chosen(static_cast<std::size_t>(count), said.layers == "all");
    if (said.layers == "inner" && count > 2) std::fill(chosen.begin() + 1, chosen.end() - 1, true);
    if (said.layers == "all" || said.layers == "none") return chosen;
    if (said.layers != "inner") {
        const std::vector<Span> spans = spans_of(said.layers).value();
        for (const Span& span : spans) {
            if (span.last >= count)
                throw_input_error("{} is \"{}\", but '{}' has layers 0 to {}", said.field,
                                  said.layers, network, count - 1);
            std::fill(chosen.begin() + span.first, chosen.begin() + span.last + 1, true);
        }
    }
    if (std::find(chosen.begin(), chosen.end(), true) == chosen.end())
        throw_input_error(
            "{} is \"{}\", which is none of the {} layers of '{}' (choose \"all\", or layers 0 to "
            "{})",
            said.field, said.layers, count, network, count - 1);
    return chosen;
}

/// The shortest text for these layers.
std::string layers_text(const std::vector<bool>& chosen) {
    std::vector<std::string> spans;
    const std::size_t count = chosen.size();
    for (std::size_t first = 0; first < count; ++first) {
        if (!chosen[first]) continue;
        std::size_t end = first;
        while (end < count && chosen[end]) ++end;
        if (end - first == count) return "all";
        if (first == 1 && end + 1 == count) return "inner";
        spans.push_back(end - first == 1 ? std::to_string(first)
                                         : fmt::format("{}-{}", first, end - 1));
        first = end;
    }
    return spans.empty() ? "none" : fmt::format("{}", fmt::join(spans, ","));
}

}  // namespace

const std::vector<std::string>& fp8_linears() {
    static const std::vector<std::string> all{"qkv", "proj", "up", "down"};
    return all;
}

std::string weight_name(const Fp8Part& part) {
    const std::string_view rest = part.linear == "qkv"    ? "attention.linear_qkv"
                                  : part.linear == "proj" ? "attention.linear_proj"
                                  : part.linear == "up"   ? "mlp.up_gate_proj"
                                                          : "mlp.down_proj";
    return fmt::format("block.layers.{}.{}.weight", part.layer, rest);
}

std::string fp8_problem(const Fp8Choice& choice) {
    const auto valid = [](const std::string& layers) {
        return layers == "inner" || layers == "all" || spans_of(layers);
    };
    if (!valid(choice.layers))
        return fmt::format("model.fp8.layers is \"{}\" (must be {})", choice.layers, layers_help);
    for (const std::string& linear : fp8_linears())
        if (const std::string& own = own_layers(choice, linear);
            !own.empty() && own != "none" && !valid(own))
            return fmt::format("model.fp8.{} is \"{}\" (must be {}, or \"none\")", linear, own,
                               layers_help);
    return "";
}

std::string to_text(const Fp8Choice& choice) {
    std::vector<std::pair<std::string, std::string>> groups;  // of linears in the same layers
    for (const std::string& linear : fp8_linears()) {
        const std::string layers = said_of(choice, linear).layers;
        if (layers == "none") continue;
        const auto same = std::find_if(groups.begin(), groups.end(),
                                       [&](const auto& group) { return group.second == layers; });
        if (same == groups.end())
            groups.emplace_back(linear, layers);
        else
            same->first += "+" + linear;
    }
    std::vector<std::string> words;
    for (const auto& [linears, layers] : groups)
        words.push_back(fmt::format("{} in {}", linears, layers));
    if (choice.text_encoder) words.emplace_back("text");
    return fmt::format("{}", fmt::join(words, ", "));
}

std::vector<Fp8Part> fp8_parts(const Fp8Choice& choice, Index num_layers, std::string_view name) {
    for (const std::string& linear : choice.linears)
        if (!contains(fp8_linears(), linear))
            throw_input_error("model.fp8.linears names \"{}\" (may name {})", linear,
                              fmt::join(fp8_linears(), ", "));
    if (const std::string problem = fp8_problem(choice); !problem.empty())
        throw_input_error("{}", problem);
    std::vector<std::vector<bool>> chosen;
    for (const std::string& linear : fp8_linears())
        chosen.push_back(chosen_layers(said_of(choice, linear), num_layers, name));
    std::vector<Fp8Part> parts;
    for (Index layer = 0; layer < num_layers; ++layer)
        for (std::size_t i = 0; i < chosen.size(); ++i)
            if (chosen[i][static_cast<std::size_t>(layer)])
                parts.push_back({layer, fp8_linears()[i]});
    if (parts.empty() && !choice.text_encoder)
        throw_input_error(
            "precision fp8 with nothing in E4M3 (choose model.fp8.linears among {}, or "
            "model.fp8.text_encoder, or precision bf16)",
            fmt::join(fp8_linears(), ", "));
    return parts;
}

Fp8Choice fp8_choice_of(const std::vector<Fp8Part>& parts, Index num_layers) {
    std::vector<std::pair<std::string, std::string>> layers;
    std::set<std::string> texts;
    for (const std::string& linear : fp8_linears()) {
        std::vector<bool> chosen(static_cast<std::size_t>(num_layers));
        for (const Fp8Part& part : parts)
            if (part.linear == linear) chosen.at(static_cast<std::size_t>(part.layer)) = true;
        layers.emplace_back(linear, layers_text(chosen));
        if (layers.back().second != "none") texts.insert(layers.back().second);
    }
    Fp8Choice choice;
    if (texts.size() > 1) {
        for (const auto& [linear, text] : layers) own_layers(choice, linear) = text;
        return choice;
    }
    choice.linears.clear();
    for (const auto& [linear, text] : layers)
        if (text != "none") choice.linears.push_back(linear);
    if (!texts.empty()) choice.layers = *texts.begin();
    return choice;
}

void choose_fp8(std::vector<TensorSpec>& specs, Index num_layers, const Fp8Choice& choice,
                std::string_view name) {
    std::set<std::string> chosen;
    for (const Fp8Part& part : fp8_parts(choice, num_layers, name))
        chosen.insert(weight_name(part));
    for (TensorSpec& spec : specs)
        if (chosen.contains(spec.name)) spec.dtype = DType::f8_e4m3;
}

}  // namespace gallop
