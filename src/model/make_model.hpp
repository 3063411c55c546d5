#pragma once

#include <cstdint>
#include <filesystem>

namespace gallop {

/// Writes a complete model folder (see Bundle) with random weights: those of an architecture file,
/// whose `tokenizer` names the tokenizer.model to be copied. The same architecture and seed give
/// the same bytes. Every value is a normal of the stream "FOLDER/TENSOR", scaled by what the tensor
/// is: linear layers and kernels keep the variance of their input, norms are close to the identity,
/// biases are small. `out` must be absent or empty. Throws InputError, Error when it cannot be
/// written.
void make_model(const std::filesystem::path& architecture_file, const std::filesystem::path& out,
                std::uint64_t seed);

}  // namespace gallop
