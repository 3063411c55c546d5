#include "model/architecture.hpp"

#include "core/check.hpp"
#include "core/node.hpp"

namespace gallop {
namespace {

// "Every fourth layer is global" stops at 31: 35 and 39 are local, too. Source: the SR2_1080 branch
// of dit_module.py of daVinci-MagiHuman.
std::vector<Index> local_layers_1080p() {
    std::vector<Index> layers;
    for (Index layer = 0; layer < 40; ++layer)
        if (layer % 4 != 3 || layer > 31) layers.push_back(layer);
    return layers;
}

DitVariant read_variant(Reader& in, const TransformerConfig& shared) {
    DitVariant variant;
    variant.network = read_transformer_config(in, shared);
    variant.linears =
        in.choice("linears", "f32", {"f32", "bf16"}) == "bf16" ? DType::bf16 : DType::f32;
    variant.super_resolution = in.get("super_resolution", variant.super_resolution);
    variant.steps = in.get("steps", variant.steps, Range{1, 1000});
    variant.passes = in.get("passes", variant.passes, Range{1, 2});
    return variant;
}

void check_fit(Reader& in, const Architecture& architecture) {
    constexpr Index patch = 4;  // 2×2 pixels of the latent
    for (const auto& [name, variant] : architecture.variants) {
        const auto differ = [&](std::string_view section, std::string_view what, Index have,
                                Index want) {
            if (have != want)
                in.problem(section,
                           fmt::format("{} of variant '{}' is {} (the {} network gives {})", what,
                                       name, have, section, want));
        };
        const TransformerConfig& network = variant.network;
        differ("text", "text_in_channels", network.text_in_channels, architecture.text.width);
        differ("audio", "audio_in_channels", network.audio_in_channels,
               architecture.audio.decoder.latent_dim);
        differ("wan", "video_in_channels", network.video_in_channels,
               patch * architecture.wan.z_dim);
        differ("turbo", "video_in_channels", network.video_in_channels,
               patch * architecture.turbo.latent_channels);
    }
}

}  // namespace

Architecture published_architecture() {
    Architecture made;
    made.name = "magihuman-15b";
    DitVariant& base = made.variants["base"];
    base.linears = DType::bf16;
    base.steps = 32;
    base.passes = 2;
    made.variants["distill"].steps = 8;
    for (const char* name : {"540p_sr", "1080p_sr"}) {
        DitVariant& sr = made.variants[name];
        sr.network.coords_style = CoordsStyle::v1;
        sr.super_resolution = true;
        sr.steps = 5;
    }
    made.variants["1080p_sr"].network.local_attn_layers = local_layers_1080p();
    return made;
}

Architecture read_architecture(Reader& in) {
    Architecture made;
    in.require("name");
    made.name = in.get("name", "");
    Reader dit = in.child("dit");
    const TransformerConfig shared = read_transformer_config(dit);
    in.require("variants");
    Reader variants = in.child("variants");
    if (const Node* map = in.node("variants"); map != nullptr && map->kind == Node::Kind::map)
        for (const auto& [key, value] : map->entries) {
            const std::string& name = key.scalar;
            if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos)
                variants.problem(name, fmt::format("'{}' cannot name a folder", name));
            Reader variant = variants.child(name);
            made.variants[name] = read_variant(variant, shared);
        }
    Reader wan = in.child("wan");
    made.wan = read_wan_vae(wan);
    Reader turbo = in.child("turbo");
    made.turbo = read_turbo_vae(turbo);
    if (in.has("audio")) {  // it and the next have keys that must be there
        Reader audio = in.child("audio");
        made.audio = read_audio_vae(audio);
    }
    if (in.has("text")) {
        Reader text = in.child("text");
        made.text = read_text_encoder_config(text);
    }
    in.get("tokenizer", "");  // a file; make_model looks at it
    check_fit(in, made);
    return made;
}

Architecture read_architecture(const std::filesystem::path& path) {
    const Node root = read_yaml(path);
    Reader in(root);
    Architecture made = read_architecture(in);
    in.finish();
    return made;
}

}  // namespace gallop
