#include "core/arena.hpp"

#include <algorithm>
#include <iterator>

namespace gallop {

Arena::Arena(std::size_t bytes) {
    if (bytes >= alignment) gaps_.emplace(0, bytes / alignment * alignment);
}

std::size_t Arena::rounded(std::size_t bytes) {
    // An array without elements has an address of its own, too.
    return (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
}

std::optional<std::size_t> Arena::take(std::size_t bytes) {
    const std::size_t size = rounded(bytes);
    if (size < bytes) return {};
    const auto gap = std::find_if(gaps_.begin(), gaps_.end(),
                                  [&](const auto& entry) { return entry.second >= size; });
    if (gap == gaps_.end()) return {};
    const auto [place, room] = *gap;
    gaps_.erase(gap);
    if (room > size) gaps_.emplace(place + size, room - size);
    ++lent_;
    extent_ = std::max(extent_, place + size);
    return place;
}

void Arena::give_back(std::size_t place, std::size_t bytes) {
    auto gap = gaps_.emplace(place, rounded(bytes)).first;
    if (const auto next = std::next(gap);
        next != gaps_.end() && gap->first + gap->second == next->first) {
        gap->second += next->second;
        gaps_.erase(next);
    }
    if (gap != gaps_.begin()) {
        const auto before = std::prev(gap);
        if (before->first + before->second == gap->first) {
            before->second += gap->second;
            gaps_.erase(gap);
        }
    }
    --lent_;
}

}  // namespace gallop
