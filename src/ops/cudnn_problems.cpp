#include "ops/cudnn_problems.hpp"

#include <algorithm>
#include <array>

namespace gallop {

bool is_about_memory(std::string_view problem) {
    constexpr std::array<std::string_view, 4> signs{"ALLOCATION_FAILED", "ALLOC_FAILED",
                                                    "cudaErrorMemoryAllocation", "out of memory"};
    return std::any_of(signs.begin(), signs.end(), [&](std::string_view sign) {
        return problem.find(sign) != std::string_view::npos;
    });
}

std::string_view advice_on(std::string_view problem) {
    // Attention is compiled at run time.
    constexpr std::array<std::string_view, 5> signs{"COMPILATION_FAILED", "nvrtc", "NVRTC",
                                                    "INTERNAL_ERROR", "loadModule"};
    const bool broken = std::any_of(signs.begin(), signs.end(), [&](std::string_view sign) {
        return problem.find(sign) != std::string_view::npos;
    });
    return broken ? "are libnvrtc and libnvrtc-builtins of the same CUDA where cuDNN's loader "
                    "finds them?"
                  : "";
}

}  // namespace gallop
