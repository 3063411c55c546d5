#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/node.hpp"
#include "farm/problems.hpp"
#include "farm/run_config.hpp"
#include "farm/setting.hpp"

namespace gallop {

/// A field of the run, apart from its items: where the manifest's value goes, and where it is had
/// back from.
struct ConfigField : Field {
    std::function<void(RunRequest&, const Value&)> set;
    std::function<Value(const RunRequest&)> get;
};

/// Every field of the blocks `model`, `outputs`, `seeds`, `resources`, `schedule`, `retry`,
/// `limits` and `slurm`, and `name`.
const std::vector<ConfigField>& config_fields();

/// Who set a field of the run last.
struct Origin {
    Where where;
    std::string layer;  ///< "preset", "manifest", "--set"
};
using Origins = std::map<std::string, Origin, std::less<>>;

/// Reads every block of `map` that `config_fields` knows over `request`; `skip`: keys that belong
/// to somebody else. Notes who set what.
void read_config(const Node& map, const std::string& layer, const std::vector<std::string>& skip,
                 RunRequest& request, Origins& origins, Problems& problems);

/// All fields as nested maps, as a manifest would set them.
nlohmann::json config_json(const RunRequest& request);

/// Names of the blocks, and `name`.
const std::vector<std::string>& config_blocks();

}  // namespace gallop
