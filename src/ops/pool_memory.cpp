#include "ops/pool_memory.hpp"

namespace gallop {

std::byte* PoolMemory::lend(std::size_t bytes) {
    {
        const std::lock_guard lock(mutex_);
        if (const auto found = free_.find(bytes); found != free_.end()) {
            std::byte* data = found->second;
            free_.erase(found);
            held_ -= bytes;
            return data;
        }
    }
    try {
        return source_.allocate(bytes);
    } catch (const OutOfMemoryError&) {
        drain();
        return source_.allocate(bytes);
    }
}

void PoolMemory::take_back(std::byte* data, std::size_t bytes) noexcept {
    {
        const std::lock_guard lock(mutex_);
        if (held_ + bytes <= most_held_) {
            free_.emplace(bytes, data);
            held_ += bytes;
            return;
        }
    }
    source_.release(data, bytes);
}

void PoolMemory::drain() noexcept {
    const std::lock_guard lock(mutex_);
    for (const auto& [bytes, data] : free_) source_.release(data, bytes);
    free_.clear();
    held_ = 0;
}

}  // namespace gallop
