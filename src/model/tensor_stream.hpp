#pragma once

#include <functional>
#include <vector>

#include "model/byte_source.hpp"
#include "model/checkpoint.hpp"

namespace gallop {

/// Whether a stored type can be converted to a floating dtype: f64, f32, f16, bf16, f8_e4m3.
bool is_weight_type(StoredType type);

/// Gives the host array that the next piece of a tensor is put into.
using PieceRoom = std::function<TensorView(const Shape&, DType)>;
/// The array that PieceRoom gave last is filled with what begins at this row (or element).
using PieceDone = std::function<void(Index row)>;

/// One stored tensor on its way to memory, read and converted in pieces of a few MiB. `scale`: nothing, one
/// factor, or one a row.
class TensorStream {
public:
    TensorStream(ByteSource& source, const StoredTensor& tensor, std::vector<float> scale = {});

    /// Fills a host array of as many elements with the values in its floating dtype.
    void read(TensorView to);
    /// All elements in the file's order; pieces are runs of elements, [n].
    void each_piece(DType dtype, const PieceRoom& room, const PieceDone& done);
    /// The part of a matrix that a slice names; pieces are rows of `width` columns, [n, width], with zeros
    /// after those kept; rows count as kept.
    void each_piece(const Slice& slice, DType dtype, Index width, const PieceRoom& room,
                    const PieceDone& done);
    /// The narrower of bf16 and f32 that holds all values exactly.
    DType exact_dtype() const;

private:
    // Elements first … first + to.numel() − 1.
    void read_piece(Index first, TensorView to);
    // `kept` columns from `column` on of the rows from `row` on, into the first columns of `to`, [n, width];
    // zeros behind them.
    void read_columns(Index row, Index column, Index kept, TensorView to);

    ByteSource& source_;
    const StoredTensor& tensor_;
    std::vector<float> scale_;
    Tensor rows_, raw_, wide_;  // scratch
};

}  // namespace gallop
