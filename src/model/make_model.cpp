#include "model/make_model.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/node.hpp"
#include "core/random.hpp"
#include "model/bundle.hpp"
#include "model/safetensors.hpp"
#include "model/tokenizer.hpp"
#include "model/torch_file.hpp"

namespace gallop {
namespace {

using Json = nlohmann::ordered_json;

constexpr Index piece = Index{1} << 20;               // elements made at once
constexpr std::uint64_t shard_bytes = 4'800'000'000;  // as the published folders are cut

// ---- values
// -----------------------------------------------------------------------------------------

// value = mean + deviation · normal
struct Law {
    float mean = 0.0F;
    float deviation = 1.0F;
};

Law law_of(const std::string& name, const Shape& shape) {
    constexpr Law small{0.0F, 0.02F};
    constexpr float jitter = 0.05F;
    const auto ends = [&](std::string_view ending) { return name.ends_with(ending); };
    if (ends(".bias")) return small;
    if (ends(".gamma")) return {1.0F, jitter};
    if (ends(".alpha") || ends(".beta")) return {0.0F, jitter};  // logarithms
    if (ends(".weight_v")) return {};                            // only its direction counts
    if (ends(".weight_g")) return {1.0F, jitter};
    if (shape.rank() == 1) return {0.0F, jitter};  // a norm's offset from 1
    const Index fan_in = std::max<Index>(shape.numel() / std::max<Index>(shape[0], 1), 1);
    return {0.0F, 1.0F / std::sqrt(static_cast<float>(fan_in))};
}

class Values {
public:
    Values(std::uint64_t seed, const std::string& folder, const SafetensorsWriter::Row& row)
        : row_(row), stream_(seed, folder + "/" + row.name), law_(law_of(row.name, row.shape)) {}

    // Hands the tensor on piece by piece, f32 converted to the row's dtype.
    void each_piece(const std::function<void(ConstTensorView)>& use) const {
        const Index count = row_.shape.numel();
        for (Index first = 0; first < count; first += piece) {
            Tensor made({std::min(piece, count - first)});
            fill(first, made.span<float>());
            Tensor stored(made.shape(), row_.dtype);
            convert(made, stored);
            use(stored);
        }
    }
    Tensor whole() const {
        Tensor made(row_.shape);
        fill(0, made.span<float>());
        return made;
    }

private:
    void fill(Index first, std::span<float> out) const {
        if (row_.name == "adapter.rope.bands") {
            for (std::size_t i = 0; i < out.size(); ++i)
                out[i] = static_cast<float>(std::pow(
                    10000.0, -static_cast<double>(i) / static_cast<double>(row_.shape.numel())));
            return;
        }
        fill_normal(stream_, static_cast<std::uint64_t>(first), out);
        for (float& value : out) value = law_.mean + law_.deviation * value;
    }

    const SafetensorsWriter::Row& row_;
    NoiseStream stream_;
    Law law_;
};

// ---- files
// ------------------------------------------------------------------------------------------

std::vector<SafetensorsWriter::Row> rows_of(const std::vector<TensorSpec>& specs,
                                            const std::string& prefix = {}) {
    std::vector<SafetensorsWriter::Row> rows;
    for (const TensorSpec& spec : specs)
        rows.push_back({prefix + spec.name, spec.dtype, spec.shape});
    return rows;
}

void write_file(const std::filesystem::path& path, std::span<const SafetensorsWriter::Row> rows,
                std::uint64_t seed) {
    const std::string folder = path.parent_path().filename().string();
    SafetensorsWriter writer(path, rows, {{"format", "pt"}});
    for (const auto& row : rows)
        Values(seed, folder, row).each_piece([&](ConstTensorView part) {
            writer.append({part.raw(), part.bytes()});
        });
    writer.commit();
}

// At least two shards, so that tiny models are read as large ones are.
void write_shards(const std::filesystem::path& folder,
                  const std::vector<SafetensorsWriter::Row>& rows, std::uint64_t seed) {
    const auto bytes_of = [](const SafetensorsWriter::Row& row) {
        return static_cast<std::uint64_t>(row.shape.numel()) * size_of(row.dtype);
    };
    std::uint64_t total = 0;
    for (const auto& row : rows) total += bytes_of(row);
    const std::uint64_t count = std::max<std::uint64_t>(2, (total + shard_bytes - 1) / shard_bytes);
    std::vector<std::vector<SafetensorsWriter::Row>> shards(count);
    std::uint64_t before = 0;
    for (const auto& row : rows) {
        shards[std::min(before * count / std::max<std::uint64_t>(total, 1), count - 1)].push_back(
            row);
        before += bytes_of(row);
    }
    Json map = Json::object();
    for (std::size_t i = 0; i < shards.size(); ++i) {
        const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
        write_file(folder / name, shards[i], seed);
        for (const auto& row : shards[i]) map[row.name] = name;
    }
    const Json index{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
    write_atomically(folder / "model.safetensors.index.json", index.dump(1));
}

void write_torch(const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
                 std::uint64_t seed, const std::string& under = {},
                 const std::string& prefix = {}) {
    std::vector<TorchWriter::Row> table;
    for (const TensorSpec& spec : specs) table.push_back({prefix + spec.name, spec.shape});
    TorchWriter writer(path, table, under);
    for (const TensorSpec& spec : specs) {
        const SafetensorsWriter::Row row{spec.name, DType::f32, spec.shape};
        writer.append(Values(seed, path.stem().string(), row).whole());
    }
    writer.commit();
}

// ---- configurations
// -----------------------------------------------------------------------------------

// Plain scalars of YAML that JSON spells the same way keep their type.
Json to_json(const Node& node) {
    switch (node.kind) {
        case Node::Kind::null: return nullptr;
        case Node::Kind::scalar: {
            if (node.quoted) return node.scalar;
            Json value = Json::parse(node.scalar, nullptr, false);
            return value.is_primitive() && !value.is_discarded() ? value : Json(node.scalar);
        }
        case Node::Kind::sequence: {
            Json list = Json::array();
            for (const Node& item : node.items) list.push_back(to_json(item));
            return list;
        }
        case Node::Kind::map: {
            Json map = Json::object();
            for (const auto& [key, value] : node.entries) map[key.scalar] = to_json(value);
            return map;
        }
    }
    return nullptr;
}

void write_json(const std::filesystem::path& path, const Json& content) {
    write_atomically(path, content.dump(1) + "\n");
}

// The section with every key whose absence means something else in the network's own file.
Json turbo_json(Json section, const TurboVaeConfig& c) {
    const Json all{{"decoder_block_out_channels", c.channels},
                   {"decoder_layers_per_block", c.layers},
                   {"decoder_spatio_temporal_scaling", c.scaling},
                   {"decoder_spatio_only", c.spatial_only},
                   {"use_unpatchify", c.unpatchify},
                   {"first_chunk_size", c.first_chunk},
                   {"step_size", c.step}};
    section.insert(all.begin(), all.end());  // what is there stays
    return section;
}

std::string tokenizer_of(const Node& root, const std::filesystem::path& architecture_file) {
    const Node* named = root.find("tokenizer");
    if (named == nullptr || named->kind != Node::Kind::scalar)
        throw_input_error("{}: no 'tokenizer' (a SentencePiece model, its path from here)",
                          architecture_file.string());
    return read_text(architecture_file.parent_path() / named->scalar);
}

void check_vocabulary(const std::string& tokenizer, const Architecture& architecture,
                      const std::filesystem::path& architecture_file) {
    const Index pieces = Tokenizer(tokenizer, {}, architecture_file.string()).size();
    if (pieces > architecture.text.vocabulary)
        throw_input_error("{}: a tokenizer of {} pieces for a vocab_size of {}",
                          architecture_file.string(), pieces, architecture.text.vocabulary);
}

}  // namespace

void make_model(const std::filesystem::path& architecture_file, const std::filesystem::path& out,
                std::uint64_t seed) {
    const Node root = read_yaml(architecture_file);
    Reader in(root);
    const Architecture architecture = read_architecture(in);
    in.finish();
    const std::string tokenizer = tokenizer_of(root, architecture_file);
    check_vocabulary(tokenizer, architecture, architecture_file);
    std::error_code ignored;
    if (std::filesystem::exists(out, ignored) && !std::filesystem::is_empty(out, ignored))
        throw_input_error("{}: is there already and not empty", out.string());

    for (const auto& [name, variant] : architecture.variants)
        write_shards(out / name, rows_of(transformer_specs(variant.network, variant.linears)),
                     seed);
    write_torch(out / bundle_names::wan_weights, specs(architecture.wan), seed);

    Json json = to_json(root);
    const auto section = [&](const char* key) { return json.value(key, Json::object()); };
    const auto turbo = out / bundle_names::turbo;
    write_torch(turbo / bundle_names::turbo_weights, specs(architecture.turbo), seed,
                "ema_state_dict", "module.");
    write_json(turbo / bundle_names::turbo_config,
               turbo_json(section("turbo"), architecture.turbo));

    const auto audio = out / bundle_names::audio;
    write_file(audio / "model.safetensors",
               rows_of(specs(architecture.audio), std::string(audio_vae_prefix)), seed);
    write_json(audio / bundle_names::audio_config, section("audio"));

    const auto text = out / bundle_names::text;
    write_shards(
        text, rows_of(text_encoder_specs(architecture.text, DType::bf16), "model.encoder."), seed);
    write_json(text / bundle_names::text_config, section("text"));
    write_atomically(text / "tokenizer.model", tokenizer);
    write_json(text / "tokenizer_config.json",
               {{"add_bos_token", false}, {"add_eos_token", false}});

    json["tokenizer"] = std::string(bundle_names::text) + "/tokenizer.model";
    write_json(out / bundle_names::architecture, json);
}

}  // namespace gallop
