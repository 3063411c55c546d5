#pragma once

#include <cmath>
#include <cstdlib>
#include <vector>

#include <gtest/gtest.h>

#include "pipeline/render.hpp"

// Clips small enough for a whole pipeline in a test, by the model of Judged::model().

namespace gallop::test {

/// Thirteen pictures of 96 × 64, distilled.
inline Item small() {
    Item item;
    item.name = "small";
    item.prompt = "A red ball bounces twice on wood.";
    item.seed = 7;
    item.base_size = item.size = {96, 64};
    item.frames = item.audio_latents = 13;
    item.base.steps = 4;
    return item;
}

inline Item guided() {
    Item item = small();
    item.variant = "base";
    item.negative_prompt = "blurred, silent";
    item.base.passes = 2;
    return item;
}

inline Item refined(const char* sr) {
    Item item = small();
    item.sr = sr;
    item.size = {192, 128};
    item.super.steps = 2;
    item.super.trick_frames = 2;
    return item;
}

/// The same in a third of the pixels.
inline Item lower(Item item) {
    item.base_size = {64, 32};
    item.size = item.sr.empty() ? item.base_size : Size{128, 64};
    return item;
}

inline Tensor picture() {
    Tensor image({50, 70, 3}, DType::u8);
    for (Index i = 0; i < image.numel(); ++i)
        image.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 7 % 251);
    return image;
}

inline Tensor sound() {
    Tensor made({13 * 2048 + 100});
    for (Index i = 0; i < made.numel(); ++i)
        made.data<float>()[i] = 0.3F * std::sin(0.05F * static_cast<float>(i));
    return made;
}

/// All pictures of a latent.
inline std::vector<std::uint8_t> pictures(Renderer& renderer, const Tensor& latent,
                                          VideoDecoder decoder, bool tiled = false) {
    std::vector<std::uint8_t> all;
    const int frames = 4 * static_cast<int>(latent.size(1) - 1) + 1;
    renderer.decode_video(latent, {decoder, frames, tiled}, [&](ConstTensorView made) {
        const auto pixels = made.span<std::uint8_t>();
        all.insert(all.end(), pixels.begin(), pixels.end());
    });
    return all;
}

/// A value beside a step between two levels may fall on its other side.
inline void expect_same_pictures(const std::vector<std::uint8_t>& a,
                                 const std::vector<std::uint8_t>& b) {
    ASSERT_EQ(a.size(), b.size());
    std::size_t other = 0;
    int most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        most = std::max(most, std::abs(a[i] - b[i]));
        other += a[i] != b[i] ? 1 : 0;
    }
    EXPECT_LE(most, 1);
    EXPECT_LE(other, a.size() / 500);
}

}  // namespace gallop::test
