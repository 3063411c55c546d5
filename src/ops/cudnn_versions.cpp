#include "ops/cudnn_versions.hpp"

#include <fmt/format.h>

namespace gallop {

std::string cudnn_version_text(std::size_t version) {
    // Before 9 the major number stood at the thousands.
    return version < 10000
               ? fmt::format("{}.{}.{}", version / 1000, version / 100 % 10, version % 100)
               : fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

CudnnTrust trust_in_cudnn(std::size_t version) {
    const std::string text = cudnn_version_text(version);
    if (version < 90000)
        return {false, false, false, fmt::format("cuDNN {} is too old (at least 9.0)", text)};
    if (version >= 100000)
        return {false, false, false,
                fmt::format("cuDNN {} is of a series not known here (9)", text)};
    // Source: the support checks of cudnn-frontend's SDPA node name the same three.
    if (version == 91000 || version == 91001 || version == 91400)
        return {false, false, false,
                fmt::format("cuDNN {} has an attention that gives wrong results", text)};
    // Source: PyTorch's issue 163539 (9.10.2: wrong bf16 results of large 3-D convolutions).
    if (version < 91500)
        return {true, false, false,
                fmt::format("cuDNN {} has 3-D convolutions that are wrong or slow (9.15 and later "
                            "are used)",
                            text)};
    // Which shapes may share a kernel was looked at in 9.19 (tests/gpu/cudnn_offers_test.cpp), and a wrong
    // guess is a wrong result.
    const bool shared = version >= 91900 && version < 92000;
    return {true, true, shared, ""};
}

}  // namespace gallop
