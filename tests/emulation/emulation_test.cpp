#include <array>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "emulation/device_memory.hpp"
#include "emulation/grid.hpp"
#include "emulation/queue.hpp"

// The emulated GPU finds what the tests on it are there to find.

namespace gallop::emulation {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Emulation, RunsEachThreadOnce) {
    std::vector<int> runs(3 * 2 * 70);
    run_grid({3, 2, 1}, {70, 1, 1},
             [&] { ++runs[(running_block.y * 3 + running_block.x) * 70 + running_thread.x]; });
    EXPECT_THAT(runs, ::testing::Each(1));
}

TEST(Emulation, SumsOverAWarpWithoutABarrierOfTheBlock) {
    std::vector<int> sums(64);
    run_grid({1, 1, 1}, {64, 1, 1}, [&] {
        int x = static_cast<int>(running_thread.x);
        for (unsigned step = 16; step > 0; step /= 2) x += exchange(x, running->number ^ step);
        sums[running_thread.x] = x;
    });
    for (int i = 0; i < 64; ++i) EXPECT_EQ(sums[static_cast<std::size_t>(i)], i < 32 ? 496 : 1520);
}

TEST(Emulation, ThreadsMeetAtTheBarrier) {
    std::array<int, 256> shared{};
    int wrong = 0;
    run_grid({4, 1, 1}, {256, 1, 1}, [&] {
        const unsigned i = running_thread.x;
        for (int round = 1; round <= 3; ++round) {
            shared[i] = round;
            meet_block();
            wrong += shared[255 - i] != round;
            meet_block();
        }
    });
    EXPECT_EQ(wrong, 0);
}

TEST(Emulation, AMissingBarrierShows) {
    std::array<int, 256> shared{};
    int wrong = 0;
    run_grid({8, 1, 1}, {256, 1, 1}, [&] {
        shared[running_thread.x] = static_cast<int>(running_block.x) + 1;
        wrong += shared[255 - running_thread.x] != static_cast<int>(running_block.x) + 1;
    });
    EXPECT_GT(wrong, 0);
}

TEST(Emulation, WhatIsUndefinedOnAGpuIsAnError) {
    const auto half_the_warp = [] {
        if (running->number < 16) meet_warp();
    };
    EXPECT_THAT(
        [&] {
            run_grid({1, 1, 1}, {32, 1, 1}, half_the_warp);
        },
        ThrowsMessage<std::logic_error>(HasSubstr("lane")));
    int runs = 0;  // and what comes afterwards works
    run_grid({1, 1, 1}, {32, 1, 1}, [&] { ++runs; });
    EXPECT_EQ(runs, 32);
}

TEST(Emulation, FindsWhatIsWrittenBesideAnArray) {
    for (const std::ptrdiff_t at : {-1, 100}) {
        auto* data = static_cast<std::byte*>(take_device_memory(100));
        {
            const OpenMemory open;
            data[at] = std::byte{1};
        }
        EXPECT_THAT([&] { return_device_memory(data); },
                    ThrowsMessage<std::logic_error>(HasSubstr("beside an array of 100 bytes")));
    }
}

/// Two streams, and memory that one writes and the other reads.
class Streams : public ::testing::Test {
protected:
    cudaStream_t first_ = nullptr, second_ = nullptr;
    void SetUp() override {
        cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking);
        cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking);
    }
    void TearDown() override {
        cudaStreamDestroy(first_);
        cudaStreamDestroy(second_);
    }

    /// How often of 100 times the second stream reads what the first one wrote.
    int in_order(bool waits) {
        int good = 0;
        void* host = nullptr;
        cudaHostAlloc(&host, 1, cudaHostAllocDefault);
        for (int i = 0; i < 100; ++i) {
            void* data = nullptr;
            cudaMallocAsync(&data, 1, first_);
            cudaMemsetAsync(data, 7, 1, first_);
            cudaEvent_t written = nullptr;
            cudaEventCreate(&written);
            cudaEventRecord(written, first_);
            if (waits) cudaStreamWaitEvent(second_, written, 0);
            cudaMemcpyAsync(host, data, 1, cudaMemcpyDefault, second_);
            cudaStreamSynchronize(second_);
            good += *static_cast<unsigned char*>(host) == 7;
            cudaFreeAsync(data, first_);
            cudaEventDestroy(written);
        }
        cudaFreeHost(host);
        return good;
    }
};

TEST_F(Streams, WorkIsDoneInOrder) { EXPECT_EQ(in_order(true), 100); }
TEST_F(Streams, AMissingWaitShows) { EXPECT_LT(in_order(false), 100); }

TEST_F(Streams, APinnedBufferIsReadLate) {
    void* host = nullptr;
    void* data = nullptr;
    cudaHostAlloc(&host, 1, cudaHostAllocDefault);
    int late = 0;
    for (int i = 0; i < 100; ++i) {
        cudaMallocAsync(&data, 1, first_);
        *static_cast<unsigned char*>(host) = 1;
        cudaMemcpyAsync(data, host, 1, cudaMemcpyDefault, first_);
        *static_cast<unsigned char*>(host) = 2;  // without waiting for the copy
        unsigned char copied = 0;
        cudaMemcpyAsync(&copied, data, 1, cudaMemcpyDefault, first_);
        late += copied == 2;
        cudaFreeAsync(data, first_);
    }
    cudaStreamSynchronize(first_);
    cudaFreeHost(host);
    EXPECT_GT(late, 0);
}

}  // namespace
}  // namespace gallop::emulation
