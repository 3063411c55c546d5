#pragma once

#include <string>

#include "core/tensor.hpp"
#include "model/fp8.hpp"

namespace gallop {

/// fp32: fp32 throughout. bf16: the published casts. fp8: these, but for the linears that an Fp8Choice
/// names, which multiply in E4M3.
enum class Precision { fp32, bf16, fp8 };
/// Of weights and activations, but for what fp8 multiplies in E4M3.
inline DType compute_dtype(Precision precision) {
    return precision == Precision::fp32 ? DType::f32 : DType::bf16;
}

/// Where the models are and what they look like.
struct ModelChoice {
    std::string path;  ///< the model folder
    std::string arch;  ///< architecture file; empty: the folder's own `gallop.yaml`, else the 15B
    Precision precision = Precision::bf16;
    Fp8Choice fp8 = {};  ///< only for Precision::fp8
};

}  // namespace gallop
