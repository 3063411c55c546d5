#pragma once

#include <memory>
#include <string>

#include "cli/options.hpp"
#include "pipeline/render.hpp"

namespace gallop::cli {

/// Adds --backend and --threads.
void add_backend_options(po::options_description& options);
/// What they ask for. Throws InputError for another name, Error "not compiled" for CUDA without it.
std::unique_ptr<Backend> make_backend(const Values& values);
std::unique_ptr<Backend> make_backend(const std::string& name, int threads);

/// "fp32", "bf16" or "fp8". Throws InputError.
Precision precision_of(const std::string& text);

}  // namespace gallop::cli
