#pragma once

#include <filesystem>
#include <initializer_list>
#include <string_view>

#include "core/reader.hpp"
#include "model/transformer.hpp"
#include "pipeline/probe.hpp"

namespace gallop {

/// The folder of the weights: the one given, or that of the file given.
std::filesystem::path folder_of(const ProbeRequest& request);

/// The architecture file: the one given, or the first of `names` beside the weights. Throws InputError
/// when there is none.
std::filesystem::path arch_of(const ProbeRequest& request,
                              std::initializer_list<const char*> names);

/// The weights: the file given, or the first of `names` in the folder given.
std::filesystem::path weights_of(const ProbeRequest& request,
                                 std::initializer_list<const char*> names);

/// The architecture given, or that in or above the folder of the weights, or the published one. Where a
/// file has variants, the one of the folder's name. Throws InputError for a file with mistakes.
TransformerConfig asked_transformer(const ProbeRequest& request);

/// Of an architecture file the section `section`, which may be missing, or of a network's own file
/// the whole. Throws InputError for a file with mistakes.
template <class Section, class Own>
auto read_section(const std::filesystem::path& path, std::string_view section, const Section& read,
                  const Own& read_own) {
    const Node node = read_yaml(path);
    Reader in(node);
    in.ignore_unknown();
    const bool nested = in.has(section) || in.has("variants");
    auto made = [&] {
        if (!nested) return read_own(in);
        Reader child = in.child(section);
        return read(child);
    }();
    in.finish();
    return made;
}
template <class Read>
auto read_section(const std::filesystem::path& path, std::string_view section, const Read& read) {
    return read_section(path, section, read, read);
}

}  // namespace gallop
