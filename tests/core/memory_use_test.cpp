#include "core/memory_use.hpp"

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "core/check.hpp"

namespace gallop {
namespace {

/// Host memory full of 0xff that counts what is out, and has a limit.
class Device final : public CountedMemory {
public:
    explicit Device(std::size_t limit = std::size_t{1} << 30) : limit_(limit) {}
    gallop::Device device() const override { return gallop::Device::cpu; }
    std::size_t out() const { return out_; }

private:
    std::byte* lend(std::size_t bytes) override {
        if (out_ + bytes > limit_) throw OutOfMemoryError("the limit");
        out_ += bytes;
        std::byte* const data = host_memory().allocate(bytes);
        std::memset(data, 0xff, bytes);
        return data;
    }
    void take_back(std::byte* data, std::size_t bytes) noexcept override {
        out_ -= bytes;
        host_memory().release(data, bytes);
    }

    std::size_t limit_;
    std::atomic<std::size_t> out_{0};
};

TEST(MemoryStage, LendsFromOneBlock) {
    Device memory;
    {
        const MemoryStage stage(&memory, 4096);
        EXPECT_EQ(memory.use().asked, 1U);
        for (int i = 0; i < 100; ++i) {
            const Tensor a({100}, DType::f32, memory);
            const Tensor b({64}, DType::f32, memory);
            EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.view().raw()) % 64, 0U);
            EXPECT_EQ(memory.use().now, 656U);  // what arrays hold, not the block
        }
        EXPECT_EQ(memory.use().asked, 1U);
        EXPECT_EQ(memory.out(), 4096U);
        EXPECT_EQ(stage.extent(), 512U + 256U);
    }
    EXPECT_EQ(memory.out(), 0U);
    EXPECT_EQ(memory.use().now, 0U);
    EXPECT_EQ(memory.use().peak, 656U);
}

TEST(MemoryStage, WhatDoesNotFitComesFromTheDevice) {
    Device memory;
    const MemoryStage stage(&memory, 1024);
    const Tensor fits({256}, DType::f32, memory);
    const Tensor second({1}, DType::f32, memory);
    EXPECT_EQ(memory.use().asked, 2U);
    EXPECT_EQ(memory.out(), 1024U + 4U);
}

TEST(MemoryStage, ABlockStaysAsLongAsAnArrayOfIt) {
    Device memory;
    Tensor kept;
    {
        const MemoryStage stage(&memory, 4096);
        kept = Tensor({3}, DType::f32, memory);
    }
    EXPECT_EQ(memory.out(), 4096U);
    const Tensor later({5}, DType::f32, memory);  // but nothing else comes from it
    EXPECT_EQ(memory.out(), 4096U + 20U);
    kept = Tensor();
    EXPECT_EQ(memory.out(), 20U);
}

TEST(MemoryStage, TheInnerStageComesFirst) {
    Device memory;
    const MemoryStage outer(&memory, 1024);
    const MemoryStage inner(&memory, 512);
    const Tensor a({128}, DType::f32, memory);
    EXPECT_EQ(inner.extent(), 512U);
    EXPECT_EQ(outer.extent(), 0U);
    const Tensor b({128}, DType::f32, memory);
    EXPECT_EQ(outer.extent(), 512U);
}

TEST(MemoryStage, WithoutRoomForTheBlockArraysComeOneByOne) {
    Device memory(2048);
    const MemoryStage stage(&memory, 4096);
    const Tensor a({256}, DType::f32, memory);
    EXPECT_EQ(memory.out(), 1024U);
    EXPECT_EQ(stage.extent(), 0U);
    EXPECT_THROW(Tensor({512}, DType::f32, memory), OutOfMemoryError);
}

TEST(MemoryStage, WithoutAMemoryDoesNothing) { EXPECT_EQ(MemoryStage(nullptr, 1).extent(), 0U); }

TEST(MemoryStage, ServesSeveralThreads) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    Device memory;
    std::atomic<int> wrong{0};
    {
        const MemoryStage stage(&memory, 1 << 16);
        const auto work = [&](unsigned mark) {
            std::mt19937 engine(seed + mark);
            std::vector<Tensor> held;
            for (int i = 0; i < 500; ++i) {
                Tensor made({static_cast<Index>(1 + engine() % 3000)}, DType::u8, memory);
                std::memset(made.view().raw(), static_cast<int>(mark), made.bytes());
                held.push_back(std::move(made));
                if (held.size() < 12) continue;
                std::swap(held[engine() % held.size()], held.back());
                for (const std::uint8_t value : held.back().span<std::uint8_t>())
                    wrong += value != mark ? 1 : 0;
                held.pop_back();
            }
        };
        std::vector<std::thread> threads;
        for (unsigned mark = 1; mark <= 3; ++mark) threads.emplace_back(work, mark);
        for (std::thread& thread : threads) thread.join();
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(memory.out(), 0U);
    EXPECT_EQ(memory.use().now, 0U);
}

}  // namespace
}  // namespace gallop
