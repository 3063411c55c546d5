#include "pipeline/probe_files.hpp"

#include <string>
#include <vector>

#include "model/architecture.hpp"
#include "model/bundle.hpp"

namespace gallop {
namespace {

/// The transformer of an architecture file; where the file has variants, the one of that name.
TransformerConfig read_transformer(const std::filesystem::path& path, const std::string& variant) {
    const Node node = read_yaml(path);
    Reader in(node);
    in.ignore_unknown();
    const bool nested = in.has("dit") || in.has("variants");
    Reader dit = in.child("dit");
    TransformerConfig config = read_transformer_config(nested ? dit : in);
    Reader variants = in.child("variants");
    variants.ignore_unknown();
    if (variants.has(variant)) {
        Reader own = variants.child(variant);
        own.ignore_unknown();
        config = read_transformer_config(own, config);
    }
    in.finish();
    return config;
}

}  // namespace

std::filesystem::path folder_of(const ProbeRequest& request) {
    std::error_code ignored;
    const bool is_folder = std::filesystem::is_directory(request.weights, ignored);
    const auto whole = std::filesystem::absolute(request.weights).lexically_normal();
    // A folder may be written with a slash behind it.
    return is_folder && whole.has_filename() ? whole : whole.parent_path();
}

std::filesystem::path arch_of(const ProbeRequest& request,
                              std::initializer_list<const char*> names) {
    if (!request.arch.empty()) return request.arch;
    std::error_code ignored;
    const auto folder = folder_of(request);
    for (const char* name : names)
        if (std::filesystem::exists(folder / name, ignored)) return folder / name;
    throw_input_error("{}: no architecture file beside it ({}); give one with --arch",
                      request.weights.string(),
                      fmt::join(std::vector<std::string>(names.begin(), names.end()), ", "));
}

std::filesystem::path weights_of(const ProbeRequest& request,
                                 std::initializer_list<const char*> names) {
    std::error_code ignored;
    for (const char* name : names)
        if (std::filesystem::exists(request.weights / name, ignored)) return request.weights / name;
    return request.weights;
}

TransformerConfig asked_transformer(const ProbeRequest& request) {
    const auto folder = folder_of(request);
    const std::string variant = folder.filename().string();
    if (!request.arch.empty()) return read_transformer(request.arch, variant);
    std::error_code ignored;
    for (const auto& place : {folder, folder.parent_path()})
        for (const char* name : {"arch.json", bundle_names::architecture})
            if (std::filesystem::exists(place / name, ignored))
                return read_transformer(place / name, variant);
    const Architecture published = published_architecture();
    const auto found = published.variants.find(variant);
    return found == published.variants.end() ? TransformerConfig() : found->second.network;
}

}  // namespace gallop
