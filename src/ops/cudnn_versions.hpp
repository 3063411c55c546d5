#pragma once

#include <cstddef>
#include <string>

namespace gallop {

/// What a version of cuDNN is good for.
struct CudnnTrust {
    bool attention = false;
    bool convolution = false;
    bool shared_kernels = false;  ///< of attention, compiled once for many shapes
    std::string why;              ///< what speaks against the rest; "" for nothing
};

/// `version`: as cudnnGetVersion gives it, 91900 for 9.19.0.
CudnnTrust trust_in_cudnn(std::size_t version);

/// "9.19.0"
std::string cudnn_version_text(std::size_t version);

}  // namespace gallop
