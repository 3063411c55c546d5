#pragma once

#include <filesystem>

#include "cli/options.hpp"
#include "farm/manifest.hpp"

namespace gallop::cli {

/// Adds --set and --param, which every command that reads a manifest knows.
void add_manifest_options(po::options_description& options);
ManifestOptions manifest_options(const Values& values);

/// Where this user's digests and calibrations are kept between runs; empty when there is no home.
std::filesystem::path user_cache();

/// Whether what stands in place of a manifest is a run directory. Throws InputError for a folder that
/// holds no plan.
bool is_planned(const std::filesystem::path& given);

/// Logs what is worth knowing about a manifest.
void print_notes(const Problems& notes);

}  // namespace gallop::cli
