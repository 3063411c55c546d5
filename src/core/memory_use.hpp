#pragma once

#include <atomic>
#include <optional>

#include "core/tensor.hpp"

namespace gallop {

/// Bytes that arrays hold.
struct MemoryUse {
    std::size_t now = 0;
    std::size_t peak = 0;  ///< the most at once since `restart_peak`
};

/// Memory that counts what it has lent. What libraries take behind its back is not in the count.
class CountedMemory : public Memory {
public:
    std::byte* allocate(std::size_t bytes) final {
        std::byte* const data = lend(bytes);
        const std::size_t now = now_.fetch_add(bytes) + bytes;
        for (std::size_t peak = peak_; peak < now && !peak_.compare_exchange_weak(peak, now);) {
        }
        return data;
    }
    void release(std::byte* data, std::size_t bytes) noexcept final {
        take_back(data, bytes);
        now_.fetch_sub(bytes);
    }
    MemoryUse use() const { return {now_, peak_}; }
    void restart_peak() { peak_ = now_.load(); }
    /// Bytes that could still be lent; nothing where nobody knows.
    virtual std::optional<std::size_t> left() const { return {}; }

private:
    virtual std::byte* lend(std::size_t bytes) = 0;
    virtual void take_back(std::byte* data, std::size_t bytes) noexcept = 0;

    std::atomic<std::size_t> now_{0};
    std::atomic<std::size_t> peak_{0};
};

}  // namespace gallop
