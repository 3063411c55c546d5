#include "pipeline/picture_relay.hpp"

#include <algorithm>

namespace gallop {
namespace {

/// Pictures of a slot: a third of a second of 1080p is 25 MB in 8-bit planes.
constexpr Index batch = 8;
/// One is being filled, one copied, one in the sink's hands; one more evens out.
constexpr std::size_t slots = 4;

}  // namespace

PictureRelay::PictureRelay(Backend& on, Index y, Index x, const std::optional<YuvFormat>& planes,
                           const FrameSink& sink)
    : on_(on), planes_(planes), sink_(sink), ring_(make_slots(y, x)), thread_(ring_, [this] {
          feed_sink();
      }) {}

std::vector<PictureRelay::Slot> PictureRelay::make_slots(Index y, Index x) const {
    const Shape shape = planes_ ? Shape({batch, planes_->bytes(x, y)}) : Shape({batch, y, x, 3});
    std::vector<Slot> made(slots);
    for (Slot& slot : made) {
        slot.device = on_.empty(shape, DType::u8);
        slot.host = Tensor(shape, DType::u8, on_.transfer_memory());
    }
    return made;
}

void PictureRelay::add(ConstTensorView pictures) {
    for (Index first = 0; first < pictures.size(0); first += batch) {
        const Index count = std::min(batch, pictures.size(0) - first);
        Slot* const slot = ring_.to_fill();
        CHECK(slot != nullptr, "pictures after the last");
        slot->pictures = count;
        const TensorView device = slot->device.rows(0, count);
        const ConstTensorView from = pictures.rows(first, first + count);
        if (planes_) {
            Tensor rgb = on_.empty(from.shape(), DType::u8);
            on_.to_rgb8(from, rgb);
            on_.to_yuv(rgb, *planes_, device);
        } else {
            on_.to_rgb8(from, device);
        }
        slot->copy = on_.start_download(device, slot->host.rows(0, count));
        ring_.filled();
    }
}

void PictureRelay::finish() {
    ring_.finish();
    thread_.join();
}

void PictureRelay::feed_sink() {
    while (Slot* const slot = ring_.to_empty()) {
        slot->copy.wait();
        sink_(slot->host.rows(0, slot->pictures));
        ring_.emptied();
    }
}

}  // namespace gallop
