#pragma once

#include <nlohmann/json.hpp>

#include "farm/run_config.hpp"

namespace gallop {

/// A frozen run as `run.json` holds it, without who made it, where and when.
nlohmann::json run_json(const RunConfig& config);

/// The reverse. Throws nlohmann's exceptions and std::out_of_range for what is no such thing.
RunConfig run_config_of(const nlohmann::json& json);

}  // namespace gallop
