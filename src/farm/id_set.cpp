#include "farm/id_set.hpp"

#include <cstring>

namespace gallop {
namespace {

constexpr Id128 free_slot{};

}  // namespace

std::size_t IdSet::place(const Id128& id) const {
    std::uint64_t start = 0;
    std::memcpy(&start, id.data(), sizeof start);
    std::size_t at = start & (slots_.size() - 1);
    while (slots_[at] != free_slot && slots_[at] != id) at = (at + 1) & (slots_.size() - 1);
    return at;
}

void IdSet::grow() {
    std::vector<Id128> old(slots_.empty() ? 64 : slots_.size() * 2);
    old.swap(slots_);
    for (const Id128& id : old)
        if (id != free_slot) slots_[place(id)] = id;
}

bool IdSet::insert(const Id128& id) {
    if (id == free_slot) {
        const bool fresh = !zero_;
        zero_ = true;
        return fresh;
    }
    if ((size_ + 1) * 6 > slots_.size() * 5) grow();
    Id128& slot = slots_[place(id)];
    if (slot == id) return false;
    slot = id;
    ++size_;
    return true;
}

std::size_t IdSet::find(const Id128& id) const {
    if (slots_.empty() || id == free_slot) return absent;
    const std::size_t at = place(id);
    return slots_[at] == id ? at : absent;
}

}  // namespace gallop
