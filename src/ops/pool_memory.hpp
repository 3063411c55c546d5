#pragma once

#include <map>

#include "core/memory_use.hpp"

namespace gallop {

/// Memory that keeps what comes back, by size, up to a bound: a loop asks for the same sizes again and
/// again, and fresh pages cost more than the arithmetic of small ops.
class PoolMemory final : public CountedMemory {
public:
    static constexpr std::size_t usual_bound = std::size_t{512} << 20;

    /// `source` must outlive it.
    explicit PoolMemory(Memory& source = host_memory(), std::size_t most_held = usual_bound)
        : source_(source), most_held_(most_held) {}
    PoolMemory(const PoolMemory&) = delete;
    PoolMemory& operator=(const PoolMemory&) = delete;
    ~PoolMemory() override { drain(); }

    Device device() const override { return source_.device(); }

private:
    std::byte* lend(std::size_t bytes) override;
    void take_back(std::byte* data, std::size_t bytes) noexcept override;
    void drain() noexcept;

    Memory& source_;
    std::size_t most_held_;
    std::mutex mutex_;  // guards what follows
    std::multimap<std::size_t, std::byte*> free_;
    std::size_t held_ = 0;
};

}  // namespace gallop
