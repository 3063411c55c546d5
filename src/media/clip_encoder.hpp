#pragma once

#include <filesystem>
#include <future>

#include "core/ring.hpp"
#include "media/mp4.hpp"

namespace gallop {

/// An Mp4Writer on a thread of its own: whoever decodes the pictures need not wait for their encoding, but
/// when it is ahead by more than five seconds of them.
class ClipEncoder {
public:
    /// As of Mp4Writer. audio: waited for on the thread, before the first picture; not valid for silence.
    ClipEncoder(const std::filesystem::path& path, const Mp4Options& options,
                std::future<Tensor> audio);

    /// Copies pictures for the encoder, as Mp4Writer takes them. Throws what the encoder threw before.
    void add(ConstTensorView pictures);
    /// Waits for the file, whole and verified. Nothing may be added afterwards. Throws as Mp4Writer.
    Mp4Facts finish();

private:
    Mp4Writer writer_;
    std::future<Tensor> audio_;
    Ring<Tensor> ring_;
    RingThread<Tensor> thread_;  // last: it uses all of the above
};

}  // namespace gallop
