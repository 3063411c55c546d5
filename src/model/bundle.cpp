#include "model/bundle.hpp"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/node.hpp"
#include "model/presence.hpp"

namespace gallop {
namespace {

std::filesystem::path wanted(const std::filesystem::path& path, std::string_view what) {
    if (!there(path)) throw_input_error("{}: {} is not there", path.string(), what);
    return path;
}

// The file of that published name, or else the only one in the folder with one of the endings; ""
// when there is none. Throws InputError when there are several.
std::filesystem::path file_in(const std::filesystem::path& folder, const char* published,
                              std::initializer_list<std::string_view> endings) {
    if (there(folder / published)) return folder / published;
    std::vector<std::filesystem::path> found;
    if (!there(folder)) return {};
    std::error_code failed;
    for (std::filesystem::directory_iterator entry(folder, failed), end; !failed && entry != end;
         entry.increment(failed)) {
        const std::string ending = entry->path().extension().string();
        if (std::find(endings.begin(), endings.end(), ending) != endings.end())
            found.push_back(entry->path());
    }
    if (failed)
        throw_input_error("{}: cannot be read as a folder: {}", folder.string(), failed.message());
    if (found.size() > 1)
        throw_input_error("{}: several files could be meant, {} and {} (one, or {})",
                          folder.string(), found[0].filename().string(),
                          found[1].filename().string(), published);
    return found.empty() ? std::filesystem::path() : found[0];
}

// Reads a network's own JSON file, where there is one.
template <class Config>
void read_beside(const std::filesystem::path& path, Config (*read)(Reader&), Config& config) {
    if (path.empty() || !there(path)) return;
    const Node root = parse_json(read_text(path), path.string());
    Reader in(root);
    in.ignore_unknown();
    config = read(in);
    in.finish();
}

}  // namespace

const DitVariant& Bundle::variant(std::string_view name) const {
    const auto found = architecture.variants.find(std::string(name));
    if (found != architecture.variants.end()) return found->second;
    std::vector<std::string> names;
    for (const auto& [known, ignored] : architecture.variants) names.push_back(known);
    throw_input_error("{}: no variant '{}' (there are {})", folder.string(), name,
                      fmt::join(names, ", "));
}

std::filesystem::path Bundle::dit(std::string_view name) const {
    (void)variant(name);
    return wanted(folder / name, "the transformer's folder");
}

std::filesystem::path Bundle::wan_vae() const {
    const auto published = folder / bundle_names::wan_repository / bundle_names::wan_weights;
    return there(published) ? published
                            : wanted(folder / bundle_names::wan_weights, "the Wan2.2 VAE");
}

std::filesystem::path Bundle::turbo_vae() const {
    const auto at = folder / bundle_names::turbo;
    const auto found =
        file_in(at, bundle_names::turbo_weights, {".ckpt", ".pth", ".pt", ".safetensors"});
    return found.empty() ? wanted(at / bundle_names::turbo_weights, "the turbo decoder") : found;
}

std::filesystem::path Bundle::audio_vae() const {
    return wanted(folder / bundle_names::audio, "the sound VAE's folder");
}

std::filesystem::path Bundle::text_encoder() const {
    return wanted(folder / bundle_names::text, "the text encoder's folder");
}

Bundle open_bundle(const std::filesystem::path& folder,
                   const std::filesystem::path& architecture_file) {
    std::error_code ignored;
    if (!there(folder) || !std::filesystem::is_directory(folder, ignored))
        throw_input_error("{}: no such model folder", folder.string());
    Bundle bundle{folder, {}};
    const auto own = folder / bundle_names::architecture;
    if (!architecture_file.empty())
        bundle.architecture = read_architecture(architecture_file);
    else if (there(own))
        bundle.architecture = read_architecture(own);
    else
        bundle.architecture = published_architecture();

    Architecture& a = bundle.architecture;
    read_beside(file_in(folder / bundle_names::turbo, bundle_names::turbo_config, {".json"}),
                read_turbo_vae_json, a.turbo);
    read_beside(folder / bundle_names::audio / bundle_names::audio_config, read_audio_vae, a.audio);
    if (const auto text = folder / bundle_names::text / bundle_names::text_config; there(text))
        a.text = read_text_encoder_config(text);
    return bundle;
}

}  // namespace gallop
