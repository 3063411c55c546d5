#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "farm/config_fields.hpp"
#include "farm/fields.hpp"
#include "farm/problems.hpp"
#include "farm/rows.hpp"
#include "farm/run_config.hpp"
#include "farm/sweep.hpp"

namespace gallop {

/// One entry of `items`: an item, or files whose rows are items.
struct ItemSource {
    Where where;
    Layer own;          ///< what it sets, for all its rows
    std::string name;   ///< that an item without one gets: "item-0001"
    bool rows = false;  ///< its items are rows of files
    std::vector<std::filesystem::path> files;
    Columns columns;
    std::uint64_t limit = 0;  ///< rows to take, over all files; 0: all
};

/// One entry of `overrides`.
struct Override {
    /// A field, and the values of which it must have one; names may hold * and ?.
    struct Condition {
        ItemField field;
        std::vector<Value> values;
    };
    Where where;
    std::vector<Condition> match;
    Layer set;
};

/// What the command line adds to a manifest.
struct ManifestOptions {
    std::vector<std::string> set;     ///< `a.b=c`; wins over everything
    std::vector<std::string> params;  ///< `NAME=VALUE`
};

/// A manifest, read and checked as far as that goes without looking at its rows. Move-only: items
/// hold addresses of its layers.
struct Manifest : RunRequest {
    std::filesystem::path path;
    std::filesystem::path folder;  ///< that relative paths are taken from
    std::string digest;            ///< SHA-256 of its text and of what the command line adds
    std::map<std::string, std::string> params;
    std::vector<Layer> defaults;  ///< presets', the manifest's, in order
    Sweep sweep;
    std::vector<ItemSource> sources;
    std::vector<Override> overrides;
    Layer settings;  ///< item fields of --set
    Origins origins;
    Problems notes;  ///< choices worth knowing, e.g. a size that was derived

    /// Where a field of the run was set last; the manifest as a whole where nobody set it.
    Where place(std::string_view key) const;
};

/// Where shipped presets and architectures live: `configs` beside the program's sources.
std::filesystem::path shipped_configs();

/// Reads a manifest with its presets. Presets are looked for beside the manifest, then in
/// `shipped_configs()`; other paths are taken from the manifest's folder, `outputs.root` from the
/// working directory. Throws InputError that lists every mistake, one a line, with
/// file:line:column; mistakes of rows are met by `expand` only.
Manifest read_manifest(const std::filesystem::path& path, const ManifestOptions& options = {});
/// The same from a text; `path` names it in messages and places relative paths.
Manifest parse_manifest(std::string_view text, const std::filesystem::path& path,
                        const ManifestOptions& options = {});
/// The same, mistakes to `problems`; what comes back is then good for finding more of them only.
Manifest parse_manifest(std::string_view text, const std::filesystem::path& path,
                        const ManifestOptions& options, Problems& problems);

/// The top-level keys of a manifest.
const std::vector<std::string>& manifest_keys();

}  // namespace gallop
