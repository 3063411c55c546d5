#pragma once

#include <nlohmann/json_fwd.hpp>

namespace gallop {

/// The JSON Schema (draft 2020-12) of manifests and presets, made from the tables that the reader
/// uses. What only the reader can tell (files, names that differ, sizes in steps of 32 pixels) is
/// left to it.
nlohmann::json manifest_schema();

}  // namespace gallop
