#include "media/clip_encoder.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/check.hpp"

namespace gallop {
namespace {

/// Decoders hand over eight pictures at a time: 400 MB of 1080p in 8-bit 4:2:0 planes.
constexpr std::size_t slots = 16;

}  // namespace

ClipEncoder::ClipEncoder(const std::filesystem::path& path, const Mp4Options& options,
                         std::future<Tensor> audio)
    : writer_(path, options, {}),
      audio_(std::move(audio)),
      ring_(std::vector<Tensor>(slots)),
      thread_(ring_, [this] {
          if (audio_.valid()) writer_.set_audio(audio_.get());
          while (const Tensor* const pictures = ring_.to_empty()) {
              writer_.add_frames(*pictures);
              ring_.emptied();
          }
      }) {}

void ClipEncoder::add(ConstTensorView pictures) {
    Tensor* const slot = ring_.to_fill();
    CHECK(slot != nullptr, "pictures after the last");
    if (!slot->defined() || slot->shape() != pictures.shape())
        *slot = Tensor(pictures.shape(), pictures.dtype());
    std::copy_n(pictures.data<std::uint8_t>(), pictures.numel(), slot->data<std::uint8_t>());
    ring_.filled();
}

Mp4Facts ClipEncoder::finish() {
    ring_.finish();
    thread_.join();
    return writer_.finish();
}

}  // namespace gallop
