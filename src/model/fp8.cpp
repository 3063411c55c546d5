#include "model/fp8.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/check.hpp"

namespace gallop {
namespace {

constexpr const char* layers_help =
    "\"inner\" for all but the first and the last, \"all\", or layers and ranges such as \"1-38\" "
    "or "
    "\"0,4-9\"";

/// The published name of a linear's weight within its layer.
std::string_view weight_of(std::string_view linear) {
    if (linear == "qkv") return "attention.linear_qkv.weight";
    if (linear == "proj") return "attention.linear_proj.weight";
    if (linear == "up") return "mlp.up_gate_proj.weight";
    return "mlp.down_proj.weight";
}

std::string scales_of(const std::string& name) { return name + std::string(fp8_scale_suffix); }

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

/// Whether each layer is chosen.
std::vector<bool> chosen_layers(std::string_view layers, Index count, std::string_view network) {
    if (const std::string problem = fp8_layers_problem(layers); !problem.empty())
        throw_input_error("{}", problem);
    std::vector<bool> chosen(static_cast<std::size_t>(count), layers == "all");
    if (layers == "inner" && count > 2) std::fill(chosen.begin() + 1, chosen.end() - 1, true);
    if (layers == "inner" || layers == "all") return chosen;
    const std::vector<Span> spans = spans_of(layers).value();
    for (const Span& span : spans) {
        if (span.last >= count)
            throw_input_error("model.fp8.layers is \"{}\", but '{}' has layers 0 to {}", layers,
                              network, count - 1);
        std::fill(chosen.begin() + span.first, chosen.begin() + span.last + 1, true);
    }
    return chosen;
}

}  // namespace

const std::vector<std::string>& fp8_linears() {
    static const std::vector<std::string> all = Fp8Choice{}.linears;
    return all;
}

std::string fp8_layers_problem(std::string_view layers) {
    if (layers == "inner" || layers == "all" || spans_of(layers)) return "";
    return fmt::format("model.fp8.layers is \"{}\" (must be {})", layers, layers_help);
}

std::string to_text(const Fp8Choice& choice) {
    std::vector<std::string> linears;
    for (const std::string& linear : fp8_linears())
        if (std::find(choice.linears.begin(), choice.linears.end(), linear) != choice.linears.end())
            linears.push_back(linear);
    std::string text = fmt::format("{} in {}", fmt::join(linears, "+"), choice.layers);
    if (linears.empty()) text.clear();
    if (choice.text_encoder) text += text.empty() ? "text" : ", text";
    return text;
}

void choose_fp8(std::vector<TensorSpec>& specs, Index num_layers, const Fp8Choice& choice,
                std::string_view name) {
    for (const std::string& linear : choice.linears)
        if (std::find(fp8_linears().begin(), fp8_linears().end(), linear) == fp8_linears().end())
            throw_input_error("model.fp8.linears names \"{}\" (may name {})", linear,
                              fmt::join(fp8_linears(), ", "));
    if (choice.linears.empty()) {
        if (!choice.text_encoder)
            throw_input_error(
                "precision fp8 with nothing in E4M3 (choose model.fp8.linears among {}, or "
                "model.fp8.text_encoder, or precision bf16)",
                fmt::join(fp8_linears(), ", "));
        return;
    }
    const std::vector<bool> layers = chosen_layers(choice.layers, num_layers, name);
    if (std::find(layers.begin(), layers.end(), true) == layers.end())
        throw_input_error(
            "model.fp8.layers is \"{}\", which is none of the {} layers of '{}' (choose \"all\", "
            "or "
            "layers "
            "0 to {})",
            choice.layers, num_layers, name, num_layers - 1);
    constexpr std::string_view start = "block.layers.";
    for (TensorSpec& spec : specs) {
        if (!spec.name.starts_with(start)) continue;
        const std::size_t dot = spec.name.find('.', start.size());
        const auto layer =
            number(std::string_view(spec.name).substr(start.size(), dot - start.size()));
        const std::string_view rest = std::string_view(spec.name).substr(dot + 1);
        if (!layers.at(static_cast<std::size_t>(layer.value()))) continue;
        for (const std::string& linear : choice.linears)
            if (rest == weight_of(linear)) spec.dtype = DType::f8_e4m3;
    }
}

void put_fp8(Weights& weights, const std::string& name, ConstTensorView values, Backend& on) {
    Tensor q = on.empty(values.shape(), DType::f8_e4m3);
    Tensor scales = on.empty({values.size(0)});
    on.quantise(values, q, scales);
    weights.put(name, std::move(q));
    weights.put(scales_of(name), std::move(scales));
}

namespace {

/// Rows on their way to an E4M3 weight, as wide as it is.
struct Quantised {
    Tensor values, scales;
    Quantised(Index rows, const Tensor& weight, Backend& on)
        : values(on.empty({rows, weight.size(1)}, DType::f8_e4m3)), scales(on.empty({rows})) {}
};

void multiply(const Quantised& x, const Weights& weights, const std::string& name,
              Segments segments, TensorView y, Backend& on) {
    on.linear_fp8(x.values, x.scales, weights[name], weights[scales_of(name)], segments, y);
}

}  // namespace

void multiply(ConstTensorView x, const Weights& weights, const std::string& name, Segments segments,
              TensorView y, Backend& on) {
    const Tensor& weight = weights[name];
    if (weight.dtype() != DType::f8_e4m3) return on.linear(x, weight, {}, segments, y);
    Quantised rows(x.size(0), weight, on);
    on.quantise(x, rows.values, rows.scales);
    multiply(rows, weights, name, segments, y, on);
}

void multiply_and_add(ConstTensorView x, const Weights& weights, const std::string& name,
                      Segments segments, TensorView y, Backend& on) {
    const Tensor& weight = weights[name];
    Quantised rows(x.size(0), weight, on);
    on.quantise(x, rows.values, rows.scales);
    on.add_linear_fp8(rows.values, rows.scales, weight, weights[scales_of(name)], segments, y);
}

void multiply_normed(ConstTensorView x, ConstTensorView gain, const Weights& weights,
                     const std::string& name, Segments segments, DType rounded, TensorView y,
                     Backend& on) {
    const Tensor& weight = weights[name];
    if (weight.dtype() == DType::f8_e4m3) {
        Quantised rows(x.size(0), weight, on);
        on.norm_quantised(x, gain, {}, segments, rows.values, rows.scales);
        return multiply(rows, weights, name, segments, y, on);
    }
    Tensor normed = on.empty(x.shape(), rounded);
    on.norm(x, gain, {}, segments, normed);
    on.linear(normed, weight, {}, segments, y);
}

}  // namespace gallop
