#include "cli/backend.hpp"

#include <cstdlib>

#include "cli/planning.hpp"
#include "core/check.hpp"
#include "ops/cuda_backend.hpp"

namespace gallop::cli {
namespace {

/// A switch of the environment: "on" or "off"; on when it isn't set.
bool switched_on(const char* name) {
    const char* set = std::getenv(name);
    const std::string value = set == nullptr ? "on" : set;
    if (value != "on" && value != "off") throw_input_error("{} is \"{}\" (on, off)", name, value);
    return value == "on";
}

}  // namespace

void add_backend_options(po::options_description& options) {
    options.add_options()("backend", po::value<std::string>()->default_value("cpu"))(
        "threads", po::value<int>()->default_value(0));
}

std::unique_ptr<Backend> make_backend(const Values& values) {
    return make_backend(text_of(values, "backend"), values["threads"].as<int>());
}

std::unique_ptr<Backend> make_backend(const std::string& name, int threads) {
    if (threads < 0 || threads > 4096)
        throw_input_error("--threads is {} (0 for all cores, at most 4096)", threads);
    if (name == "cpu") return make_cpu_backend(threads);
    if (name == "cuda")
        return make_cuda_backend(CudaOptions{.cache = user_cache(),
                                             .tune = switched_on("GALLOP_TUNE"),
                                             .cudnn = switched_on("GALLOP_CUDNN")});
    throw_input_error("the backend is \"{}\" (cpu, cuda)", name);
}

Precision precision_of(const std::string& text) {
    if (text == "fp32") return Precision::fp32;
    if (text == "bf16") return Precision::bf16;
    if (text == "fp8") return Precision::fp8;
    throw_input_error("--precision is \"{}\" (fp32, bf16, fp8)", text);
}

}  // namespace gallop::cli
