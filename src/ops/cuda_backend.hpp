#pragma once

#include <filesystem>
#include <memory>

#include "ops/backend.hpp"

namespace gallop {

/// How the CUDA engine runs. None of it but `cudnn` changes a result.
struct CudaOptions {
    int device = 0;  ///< of those visible
    /// Folder where the algorithms of matrix products are kept that were chosen by timing; "": they
    /// are chosen anew by each process.
    std::filesystem::path cache = {};
    bool tune = true;  ///< false: matrix products take what the library suggests first
    /// Attention and convolutions by cuDNN where it is there and can; false: by own kernels.
    bool cudnn = true;
};

/// As in backend.hpp.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

}  // namespace gallop
