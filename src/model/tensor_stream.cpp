#include "model/tensor_stream.hpp"

#include <algorithm>
#include <cstring>

#include "core/check.hpp"

namespace gallop {
namespace {

constexpr Index piece = Index{1} << 19;  // elements: 0.5 to 4 MiB as stored

/// Of a row's columns so many bytes are worth a read of their own, which takes as long as copying some 8
/// KiB (measured); fewer come with their whole row.
constexpr std::size_t least_run = std::size_t{1} << 10;

TensorView flat(TensorView view) { return view.reshape({view.numel()}); }

void narrow(const Tensor& raw, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        double value = 0;
        std::memcpy(&value, raw.view().raw() + i * sizeof value, sizeof value);
        out[i] = static_cast<float>(value);
    }
}

}  // namespace

bool is_weight_type(StoredType type) {
    return type == StoredType::f64 || type == StoredType::f32 || type == StoredType::f16 ||
           type == StoredType::bf16 || type == StoredType::f8_e4m3;
}

TensorStream::TensorStream(ByteSource& source, const StoredTensor& tensor, std::vector<float> scale)
    : source_(source), tensor_(tensor), scale_(std::move(scale)) {
    CHECK(is_weight_type(tensor.type), "{} is {}", tensor.name, name_of(tensor.type));
}

void TensorStream::read(TensorView to) {
    CHECK(to.numel() == tensor_.shape.numel(), "{} of {} read into {}", tensor_.name,
          to_string(tensor_.shape), to_string(to.shape()));
    const TensorView all = flat(to);
    for (Index first = 0; first < all.numel(); first += piece)
        read_piece(first, all.rows(first, std::min(first + piece, all.numel())));
}

DType TensorStream::exact_dtype() const {
    return tensor_.type == StoredType::bf16 && scale_.empty() ? DType::bf16 : DType::f32;
}

void TensorStream::each_piece(DType dtype, const PieceRoom& room, const PieceDone& done) {
    const Index all = tensor_.shape.numel();
    for (Index first = 0; first < all; first += piece) {
        read_piece(first, room({std::min(piece, all - first)}, dtype));
        done(first);
    }
}

void TensorStream::each_piece(const Slice& slice, DType dtype, Index width, const PieceRoom& room,
                              const PieceDone& done) {
    CHECK(tensor_.shape == slice.stored && slice.stored.rank() == 2, "{} of {} cut from {}",
          tensor_.name, to_string(tensor_.shape), to_string(slice.stored));
    const Index stored = slice.stored[1];
    const Index kept = slice.columns < 0 ? stored : slice.columns;
    CHECK(slice.column + kept <= stored && kept <= width, "{}: columns {} to {} of {} into {}",
          tensor_.name, slice.column, slice.column + kept, stored, width);
    const bool whole_rows = stored == width && kept == width;
    const Index block = std::max<Index>(piece / std::max<Index>({stored, width, 1}), 1);
    for (const Slice::Rows& rows : slice.rows)
        for (Index begin = 0; begin < rows.count; begin += block) {
            const TensorView part = room({std::min(block, rows.count - begin), width}, dtype);
            if (whole_rows)
                read_piece((rows.from + begin) * stored, flat(part));
            else
                read_columns(rows.from + begin, slice.column, kept, part);
            done(rows.to + begin);
        }
}

void TensorStream::read_columns(Index row, Index column, Index kept, TensorView to) {
    const Index stored = tensor_.shape[1];
    const Index count = to.size(0);
    const std::size_t stored_size = size_of(tensor_.type);
    const bool alone = static_cast<std::size_t>(kept) * stored_size >= least_run;
    if (alone) {
        // Others of this machine read the columns between: storage need not seek for each row.
        source_.announce(tensor_.offset + static_cast<std::uint64_t>(row * stored) * stored_size,
                         static_cast<std::uint64_t>(count * stored) * stored_size);
    } else {
        if (!rows_.defined() || rows_.size(0) != count || rows_.dtype() != to.dtype())
            rows_ = Tensor({count, stored}, to.dtype());
        read_piece(row * stored, flat(rows_));
    }
    const std::size_t size = size_of(to.dtype());
    const std::size_t bytes = static_cast<std::size_t>(kept) * size;
    for (Index r = 0; r < count; ++r) {
        const TensorView into = flat(to.rows(r, r + 1));
        if (alone)
            read_piece((row + r) * stored + column, into.rows(0, kept));
        else
            std::memcpy(into.raw(),
                        rows_.view().raw() + static_cast<std::size_t>(r * stored + column) * size,
                        bytes);
        std::memset(into.raw() + bytes, 0, static_cast<std::size_t>(into.numel()) * size - bytes);
    }
}

void TensorStream::read_piece(Index first, TensorView to) {
    const Index count = to.numel();
    const std::size_t size = size_of(tensor_.type);
    const auto bytes = static_cast<std::size_t>(count) * size;
    const std::uint64_t offset = tensor_.offset + static_cast<std::uint64_t>(first) * size;
    const auto dtype = dtype_of(tensor_.type);
    if (dtype == to.dtype() && scale_.empty()) {
        source_.read(offset, {to.raw(), bytes});
        return;
    }
    if (raw_.numel() < static_cast<Index>(bytes) || !raw_.defined())
        raw_ = Tensor({static_cast<Index>(bytes)}, DType::u8);
    source_.read(offset, {raw_.view().raw(), bytes});
    const ConstTensorView stored(raw_.view().raw(), {count}, dtype.value_or(DType::f32),
                                 Device::cpu);
    if (dtype && scale_.empty()) return convert(stored, to);

    if (wide_.numel() < count || !wide_.defined()) wide_ = Tensor({count});
    const TensorView wide = wide_.rows(0, count);
    const std::span<float> values = wide.span<float>();
    if (dtype)
        convert(stored, wide);
    else
        narrow(raw_, values);
    if (!scale_.empty()) {
        const Index row =
            std::max<Index>(tensor_.shape.numel() / static_cast<Index>(scale_.size()), 1);
        for (Index i = 0; i < count; ++i)
            values[static_cast<std::size_t>(i)] *=
                scale_[static_cast<std::size_t>((first + i) / row)];
    }
    convert(wide, to);
}

}  // namespace gallop
