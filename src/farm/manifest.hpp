#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/reader.hpp"
#include "farm/fields.hpp"
#include "farm/run_config.hpp"
#include "pipeline/item.hpp"

namespace gallop {

/// A manifest, read, checked and resolved: everything of a run but ids and inputs' lengths.
struct Manifest {
    std::string name;
    std::filesystem::path path;
    ModelRequest model;
    OutputRequest outputs;
    std::vector<ResolvedItem> items;  ///< one for each sample of each item, seeds set
    std::vector<Remark> notes;        ///< choices worth knowing, e.g. a size that was derived
};

/// Where shipped presets and architectures live: `configs` beside the program's sources.
std::filesystem::path shipped_configs();

/// Reads a manifest with its presets. `set` holds `a.b=c` texts that win over everything. Presets
/// are looked for beside the manifest, then in `shipped_configs()`; other paths are taken from the
/// manifest's folder, `outputs.root` from the working directory. Throws InputError that lists every
/// mistake, one a line, with file:line:column.
Manifest read_manifest(const std::filesystem::path& path, const std::vector<std::string>& set = {});
/// The same from a text; `path` names it in messages and places relative paths.
Manifest parse_manifest(std::string_view text, const std::filesystem::path& path,
                        const std::vector<std::string>& set = {});

/// The seed of a sample: `base` itself, or drawn from it where the item's name or the number of the
/// sample is to make a difference (Philox4x32-10 keyed by base, counted by FNV-1a of the name and
/// the sample; 53 bits). `name` is empty where items share seeds.
std::uint64_t derive_seed(std::uint64_t base, std::string_view name, int sample);

}  // namespace gallop
