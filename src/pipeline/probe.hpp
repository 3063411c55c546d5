#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ops/backend.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// One component on one golden case. What the case's metadata says (coordinates, local layers,
/// steps, passes, …) wins over the architecture file.
struct ProbeRequest {
    std::string component;          ///< one of probe_components()
    std::filesystem::path weights;  ///< file or folder; not needed for the samplers
    /// Architecture file; empty: the one beside the weights, for a transformer `arch.json` or
    /// `gallop.yaml` in their folder or the one above it, else the published sizes.
    std::filesystem::path arch;
    std::filesystem::path input;   ///< the case, a safetensors file
    std::filesystem::path output;  ///< written when not empty
    Precision precision = Precision::fp32;
    Fp8Choice fp8 = {};  ///< only for Precision::fp8
    bool compare = false;
    Group* group = &solo_group();  ///< with whom the transformer is shared, as one member of it;
                                   ///< the first member writes
};

/// How far an output is from the case's expectation.
struct ProbeDifference {
    std::string name;          ///< of the output
    std::string expected;      ///< the case's tensor it was compared with
    double largest_error = 0;  ///< over the largest expected magnitude
    double relative_l2 = 0;    ///< ‖error‖₂ / ‖expected‖₂
};

/// "dit", "unipc", "renoise", "pipeline", "turbo-vae", "wan-vae-encode", …
const std::vector<std::string>& probe_components();

/// Runs the component, writes its outputs under the case's names and compares when asked. Throws
/// InputError for an unknown component or a case that lacks an input.
std::vector<ProbeDifference> run_probe(const ProbeRequest& request, Backend& on);

}  // namespace gallop
