#include "core/check.hpp"
#include "ops/cuda_backend.hpp"

namespace gallop {

std::unique_ptr<Backend> make_cuda_backend(int /*device*/) {
    return make_cuda_backend(CudaOptions{});
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& /*options*/) {
    throw InputError(
        "the CUDA backend is not compiled into this build (configure with GALLOP_CUDA=ON); use the "
        "CPU "
        "backend");
}

}  // namespace gallop
