#pragma once

#include <functional>
#include <vector>

#include "model/tensor_stream.hpp"

namespace gallop {

/// A tensor that a network needs and the one in a file that it is made of; they fit.
struct LoadJob {
    const TensorSpec* spec;
    const StoredTensor* stored;
};
/// Opens the stream of a stored tensor; `source` is that of its file.
using OpenStream = std::function<TensorStream(ByteSource& source, const StoredTensor&)>;

/// Loads tensors in the order of `jobs`. A thread of its own reads and converts them into the slots of a
/// ring in `on.transfer_memory()`, while the caller's has what is read copied and quantised: reading,
/// copying and the device's work go on side by side. Beside the result, the ring of some MiB is alive.
Weights load_weights(const std::vector<LoadJob>& jobs,
                     const std::vector<std::filesystem::path>& files, const OpenStream& open,
                     Backend& on);

}  // namespace gallop
