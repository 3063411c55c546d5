#pragma once

#include <optional>
#include <vector>

#include "core/clip.hpp"
#include "core/ring.hpp"
#include "core/yuv.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// Brings decoded pictures to a sink on the host while the device goes on decoding: a few at a time they
/// become bytes on the device, are copied into one of a few slots of transfer memory, and reach the sink on
/// a thread of its own, in order. A slow sink makes the decoder wait once all slots are full.
class PictureRelay {
public:
    /// Pictures of Y × X. `planes`: nothing for RGB. The sink gets arrays as FrameSink says. `on` and `sink`
    /// must outlive it.
    PictureRelay(Backend& on, Index y, Index x, const std::optional<YuvFormat>& planes,
                 const FrameSink& sink);

    /// Takes pictures, [n, Y, X, 3] float on the backend. Throws what the sink threw.
    void add(ConstTensorView pictures);
    /// Waits until the sink has had all. Throws what the sink threw.
    void finish();

private:
    struct Slot {
        Tensor device, host;
        Index pictures = 0;
        Copy copy;  // last: it is waited for before the arrays go
    };

    std::vector<Slot> make_slots(Index y, Index x) const;
    void feed_sink();

    Backend& on_;
    std::optional<YuvFormat> planes_;
    const FrameSink& sink_;
    Ring<Slot> ring_;
    RingThread<Slot> thread_;
};

}  // namespace gallop
