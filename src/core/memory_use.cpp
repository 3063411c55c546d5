#include "core/memory_use.hpp"

#include <algorithm>

#include "core/log.hpp"

namespace gallop {

std::byte* CountedMemory::allocate(std::size_t bytes) {
    std::byte* data = from_stage(bytes);
    if (data == nullptr) {
        ++asked_;
        data = lend(bytes);
    }
    const std::size_t now = now_.fetch_add(bytes) + bytes;
    for (std::size_t peak = peak_; peak < now && !peak_.compare_exchange_weak(peak, now);) {
    }
    return data;
}

void CountedMemory::release(std::byte* data, std::size_t bytes) noexcept {
    if (!back_to_stage(data, bytes)) take_back(data, bytes);
    now_.fetch_sub(bytes);
}

std::byte* CountedMemory::from_stage(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (Block& block : blocks_) {
        if (!block.open) continue;
        if (const auto place = block.arena.take(bytes)) return block.data + *place;
    }
    return nullptr;
}

bool CountedMemory::back_to_stage(std::byte* data, std::size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& block) {
        return block.data <= data && data < block.data + block.bytes;
    });
    if (found == blocks_.end()) return false;
    found->arena.give_back(static_cast<std::size_t>(data - found->data), bytes);
    if (!found->open && found->arena.empty()) {
        take_back(found->data, found->bytes);
        blocks_.erase(found);
    }
    return true;
}

MemoryStage::MemoryStage(CountedMemory* memory, std::size_t bytes) : memory_(memory) {
    if (memory_ == nullptr) return;
    std::byte* data = nullptr;
    try {
        data = memory_->lend(bytes);
    } catch (const OutOfMemoryError&) {
        memory_ = nullptr;  // piece by piece there may be enough
        log_info("no block of memory for a stage megabytes={}", bytes >> 20);
        return;
    }
    ++memory_->asked_;
    const std::lock_guard lock(memory_->mutex_);
    memory_->blocks_.push_front({data, bytes, Arena(bytes)});
    block_ = memory_->blocks_.begin();
}

MemoryStage::~MemoryStage() {
    if (memory_ == nullptr) return;
    const std::lock_guard lock(memory_->mutex_);
    block_->open = false;
    if (!block_->arena.empty()) return;
    memory_->take_back(block_->data, block_->bytes);
    memory_->blocks_.erase(block_);
}

std::size_t MemoryStage::extent() const {
    if (memory_ == nullptr) return 0;
    const std::lock_guard lock(memory_->mutex_);
    return block_->arena.extent();
}

}  // namespace gallop
