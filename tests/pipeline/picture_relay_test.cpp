#include "pipeline/picture_relay.hpp"

#include <chrono>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_near.hpp"

namespace gallop {
using namespace test;
namespace {

class Relay : public ::testing::Test {
protected:
    /// What a sink gets of `pictures`, given in two parts.
    std::vector<std::uint8_t> relayed(const Tensor& pictures,
                                      const std::optional<YuvFormat>& planes, bool slow = false) {
        std::vector<std::uint8_t> got;
        const FrameSink sink = [&](ConstTensorView frames) {
            if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(5));
            const auto values = frames.span<std::uint8_t>();
            got.insert(got.end(), values.begin(), values.end());
        };
        PictureRelay relay(*on_, pictures.size(1), pictures.size(2), planes, sink);
        relay.add(pictures.rows(0, 9));
        relay.add(pictures.rows(9, pictures.size(0)));
        relay.finish();
        return got;
    }

    std::unique_ptr<Backend> on_ = make_cpu_backend();
    RandomValues random_;
};

TEST_F(Relay, BringsAllPicturesInOrder) {
    const Tensor pictures = random_.tensor({70, 16, 20, 3});  // more than all slots hold
    Tensor rgb(pictures.shape(), DType::u8);
    on_->to_rgb8(pictures, rgb);
    const auto expected = rgb.span<std::uint8_t>();
    for (const bool slow : {false, true})
        EXPECT_EQ(relayed(pictures, {}, slow),
                  std::vector<std::uint8_t>(expected.begin(), expected.end()));

    const YuvFormat format = *yuv_format("yuv422p10le");
    Tensor planes({70, format.bytes(20, 16)}, DType::u8);
    on_->to_yuv(rgb, format, planes);
    const auto samples = planes.span<std::uint8_t>();
    EXPECT_EQ(relayed(pictures, format), std::vector<std::uint8_t>(samples.begin(), samples.end()));
}

TEST_F(Relay, TakesPicturesWhileTheSinkStillHasEarlierOnes) {
    const Tensor pictures = random_.tensor({8, 16, 16, 3});
    std::promise<void> later;
    std::future<void> added = later.get_future();
    int calls = 0;
    const FrameSink sink = [&](ConstTensorView) {
        if (++calls > 1) return;
        EXPECT_EQ(added.wait_for(std::chrono::seconds(30)), std::future_status::ready);
    };
    PictureRelay relay(*on_, 16, 16, {}, sink);
    relay.add(pictures);
    relay.add(pictures);
    later.set_value();
    relay.finish();
    EXPECT_EQ(calls, 2);
}

TEST_F(Relay, WhatTheSinkThrowsReachesTheDecoder) {
    const Tensor pictures = random_.tensor({8, 16, 16, 3});
    int calls = 0;
    const FrameSink full = [&](ConstTensorView) {
        if (++calls == 2) throw OutOfMemoryError("no room");
    };
    PictureRelay relay(*on_, 16, 16, {}, full);
    EXPECT_THROW(
        {
            for (int i = 0; i < 100; ++i) relay.add(pictures);
        },
        OutOfMemoryError);
    EXPECT_EQ(calls, 2);

    const FrameSink last = [](ConstTensorView) { throw OutOfMemoryError("no room"); };
    PictureRelay short_clip(*on_, 16, 16, {}, last);
    EXPECT_THROW(
        {
            short_clip.add(pictures);
            short_clip.finish();
        },
        OutOfMemoryError);
}

TEST_F(Relay, ADecoderThatGivesUpLeavesTheRestOut) {
    const Tensor pictures = random_.tensor({8, 16, 16, 3});
    const FrameSink sink = [](ConstTensorView) {};
    PictureRelay relay(*on_, 16, 16, {}, sink);
    relay.add(pictures);  // and no `finish`
}

}  // namespace
}  // namespace gallop
