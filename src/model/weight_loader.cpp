#include "model/weight_loader.hpp"

#include <algorithm>
#include <string>

#include "core/check.hpp"
#include "core/ring.hpp"
#include "model/fp8.hpp"

namespace gallop {
namespace {

/// One is being read into, one is full, one is being copied; one more evens out.
constexpr std::size_t slots = 4;

struct Slot {
    std::size_t job = 0;
    Index row = 0;     ///< where the piece goes: its first row, or element
    TensorView piece;  ///< of `room`
    Tensor room;       ///< bytes, in transfer memory
    Tensor kernel;     ///< instead of a piece: all of a convolution's kernel
};

/// The caller of `load_weights` has given up: it knows why.
struct Abandoned {};

/// The reading side.
class Reader {
public:
    Reader(Ring<Slot>& ring, Memory& memory) : ring_(ring), memory_(memory) {}

    void run(const std::vector<LoadJob>& jobs, const std::vector<std::filesystem::path>& files,
             const OpenStream& open) {
        std::unique_ptr<ByteSource> source;
        for (std::size_t job = 0; job < jobs.size(); ++job) {
            const auto& [spec, stored] = jobs[job];
            if (job == 0 || jobs[job - 1].stored->file != stored->file)
                source = open_source(files[stored->file]);
            TensorStream stream = open(*source, *stored);
            read(job, *spec, *stored, stream);
        }
        ring_.finish();
    }

private:
    void read(std::size_t job, const TensorSpec& spec, const StoredTensor& stored,
              TensorStream& stream) {
        if (spec.conv) {
            Slot& slot = next(job);
            slot.kernel = Tensor(stored.shape);
            stream.read(slot.kernel);
            ring_.filled();
            return;
        }
        Slot* slot = nullptr;
        const PieceRoom room = [&](const Shape& shape, DType dtype) {
            slot = &next(job);
            const Index bytes = shape.numel() * static_cast<Index>(size_of(dtype));
            if (slot->room.numel() < bytes) {
                slot->room = Tensor();
                slot->room = Tensor({std::max(bytes, least_room)}, DType::u8, memory_);
            }
            slot->piece = {slot->room.view().raw(), shape, dtype, Device::cpu};
            return slot->piece;
        };
        const PieceDone done = [&](Index row) {
            slot->row = row;
            ring_.filled();
        };
        if (spec.dtype == DType::f8_e4m3)
            stream.each_piece(spec.slice.value_or(Slice{stored.shape, {{0, stored.shape[0], 0}}}),
                              stream.exact_dtype(), spec.shape[1], room, done);
        else if (spec.slice)
            stream.each_piece(*spec.slice, spec.dtype, spec.shape[1], room, done);
        else
            stream.each_piece(spec.dtype, room, done);
    }

    Slot& next(std::size_t job) {
        Slot* const slot = ring_.to_fill();
        if (slot == nullptr) throw Abandoned();
        slot->job = job;
        return *slot;
    }

    static constexpr Index least_room = Index{1} << 20;

    Ring<Slot>& ring_;
    Memory& memory_;
};

/// The side that fills the tensors.
class Placer {
public:
    Placer(const std::vector<LoadJob>& jobs, Backend& on) : jobs_(jobs), on_(on) {}

    /// Starts to put a piece in its place.
    Copy put(Slot& slot) {
        begin_up_to(slot.job + 1);
        const TensorSpec& spec = *jobs_[slot.job].spec;
        if (spec.conv) {
            weights_.put(spec.name, on_.prepare_conv(slot.kernel, spec.dtype));
            slot.kernel = Tensor();
            return {};
        }
        const ConstTensorView piece = slot.piece;
        const Index end = slot.row + piece.size(0);
        if (spec.dtype != DType::f8_e4m3) return on_.start_upload(piece, to_.rows(slot.row, end));
        if (on_.device() == Device::cpu) {
            on_.quantise(piece, to_.rows(slot.row, end), scales_.rows(slot.row, end));
            return {};
        }
        Tensor there = on_.empty(piece.shape(), piece.dtype());
        Copy copy = on_.start_upload(piece, there);
        on_.quantise(there, to_.rows(slot.row, end), scales_.rows(slot.row, end));
        return copy;
    }

    /// All tensors, also those without elements.
    Weights take() {
        begin_up_to(jobs_.size());
        return std::move(weights_);
    }

private:
    void begin_up_to(std::size_t end) {
        for (; begun_ < end; ++begun_) begin(*jobs_[begun_].spec, *jobs_[begun_].stored);
    }

    /// Makes the tensors of a job, with zeros where its pieces may not reach.
    void begin(const TensorSpec& spec, const StoredTensor& stored) {
        if (spec.conv) return;
        const bool fp8 = spec.dtype == DType::f8_e4m3;
        const bool in_parts = fp8 || spec.slice;
        Tensor made =
            in_parts ? on_.zeros(spec.shape, spec.dtype) : on_.empty(stored.shape, spec.dtype);
        to_ = in_parts ? made.view() : made.view().reshape({made.numel()});
        weights_.put(spec.name, std::move(made));
        if (!fp8) return;
        Tensor scales = on_.zeros({spec.shape[0]});
        scales_ = scales;
        weights_.put(spec.name + std::string(fp8_scale_suffix), std::move(scales));
    }

    const std::vector<LoadJob>& jobs_;
    Backend& on_;
    Weights weights_;
    std::size_t begun_ = 0;
    TensorView to_, scales_;  ///< of the job begun last
};

}  // namespace

Weights load_weights(const std::vector<LoadJob>& jobs,
                     const std::vector<std::filesystem::path>& files, const OpenStream& open,
                     Backend& on) {
    Ring<Slot> ring{std::vector<Slot>(slots)};
    Placer placer(jobs, on);
    Copy before;
    bool held = false;  // a slot, by `before`
    RingThread<Slot> reader(ring,
                            [&] { Reader(ring, on.transfer_memory()).run(jobs, files, open); });
    while (Slot* const slot = ring.to_empty()) {
        Copy copy = placer.put(*slot);
        before.wait();
        if (held) ring.emptied();
        before = std::move(copy);
        held = true;
    }
    before.wait();
    reader.join();
    return placer.take();
}

}  // namespace gallop
