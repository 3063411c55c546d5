#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>

#include "core/arena.hpp"
#include "core/tensor.hpp"

namespace gallop {

/// Bytes that arrays hold.
struct MemoryUse {
    std::size_t now = 0;
    std::size_t peak = 0;  ///< the most at once since `restart_peak`
    std::uint64_t asked =
        0;  ///< how often the device was asked for memory so far; arrays of a stage's
            ///< block don't ask
};

/// Memory that counts what it has lent, and lends from a block where a `MemoryStage` has opened one. What
/// libraries take behind its back is not in the count. May be used by several threads.
class CountedMemory : public Memory {
public:
    std::byte* allocate(std::size_t bytes) final;
    void release(std::byte* data, std::size_t bytes) noexcept final;
    MemoryUse use() const { return {now_, peak_, asked_}; }
    void restart_peak() { peak_ = now_.load(); }
    /// Bytes that could still be lent; nothing where nobody knows.
    virtual std::optional<std::size_t> left() const { return {}; }

private:
    friend class MemoryStage;
    struct Block {
        std::byte* data;
        std::size_t bytes;
        Arena arena;
        bool open = true;
    };

    virtual std::byte* lend(std::size_t bytes) = 0;
    virtual void take_back(std::byte* data, std::size_t bytes) noexcept = 0;
    std::byte* from_stage(std::size_t bytes);
    bool back_to_stage(std::byte* data, std::size_t bytes) noexcept;

    std::atomic<std::size_t> now_{0};
    std::atomic<std::size_t> peak_{0};
    std::atomic<std::uint64_t> asked_{0};
    std::mutex mutex_;         // guards what follows
    std::list<Block> blocks_;  ///< the newest first
};

/// A stage of work whose arrays come from one block, taken at once: its loops then ask the device for
/// nothing. What doesn't fit into the block comes from the memory as ever, and where there is no room for
/// the block, all does. Arrays may outlive the stage: the block goes when the last of them does.
class MemoryStage {
public:
    /// `memory` null: does nothing.
    MemoryStage(CountedMemory* memory, std::size_t bytes);
    ~MemoryStage();
    MemoryStage(const MemoryStage&) = delete;
    MemoryStage& operator=(const MemoryStage&) = delete;

    /// How many bytes of the block were ever needed.
    std::size_t extent() const;

private:
    CountedMemory* memory_;
    std::list<CountedMemory::Block>::iterator block_;
};

}  // namespace gallop
