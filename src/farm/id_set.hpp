#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace gallop {

/// 128 bits of a digest.
using Id128 = std::array<std::uint8_t, 16>;

/// A set of digests in 16 bytes each and a fifth more: open addressing, no further memory. What is
/// put in must be evenly spread, as digests are.
class IdSet {
public:
    static constexpr std::size_t absent = static_cast<std::size_t>(-1);

    /// Adds an id; false when it was there.
    bool insert(const Id128& id);
    /// The slot of an id, below slots(), good until the next insert; or absent.
    std::size_t find(const Id128& id) const;
    std::size_t size() const { return size_; }
    std::size_t slots() const { return slots_.size(); }

private:
    std::size_t place(const Id128& id) const;
    void grow();

    std::vector<Id128> slots_;  ///< all zeros: free
    std::size_t size_ = 0;
    bool zero_ = false;  ///< the id of all zeros is in the set
};

}  // namespace gallop
