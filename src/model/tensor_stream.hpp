#pragma once

#include <vector>

#include "model/byte_source.hpp"
#include "model/checkpoint.hpp"

namespace gallop {

/// Whether a stored type can be converted to a floating dtype: f64, f32, f16, bf16, f8_e4m3.
bool is_weight_type(StoredType type);

/// One stored tensor on its way to memory, converted piece by piece through a staging buffer of a
/// few MiB. `scale`: nothing, one factor, or one a row.
class TensorStream {
public:
    TensorStream(ByteSource& source, const StoredTensor& tensor, std::vector<float> scale = {});

    /// Fills a host array of as many elements with the values in its floating dtype.
    void read(TensorView to);
    /// Fills an array on a backend.
    void read_onto(Backend& on, TensorView to);
    /// Fills the part of a matrix on a backend that a slice names, and leaves the rest alone.
    void read_slice_onto(Backend& on, const Slice& slice, TensorView to);

    /// The same in E4M3: q: [N, D] f8_e4m3, scales: [N] f32, both on the backend; rows and columns that
    /// the slice doesn't name are left alone, or zero where a row has others.
    void quantise_slice_onto(Backend& on, const Slice& slice, TensorView q, TensorView scales);

private:
    /// Calls `take(row, part)` for pieces of the kept part, in host memory in `dtype`, `width` columns
    /// with zeros after those kept; `row`: where they go.
    template <class Take>
    void cut(const Slice& slice, DType dtype, Index width, const Take& take);
    // Elements first … first + to.numel() − 1.
    void read_piece(Index first, TensorView to);

    ByteSource& source_;
    const StoredTensor& tensor_;
    std::vector<float> scale_;
    Tensor raw_;
    Tensor wide_;
};

}  // namespace gallop
