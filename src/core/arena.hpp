#pragma once

#include <cstddef>
#include <map>
#include <optional>

namespace gallop {

/// Places in a block of memory that somebody else owns: which bytes of it are lent, and where the next
/// array goes: to the first gap that is wide enough, so the same requests in the same order get the same
/// places. (The decoders' arrays need up to a tenth more with the narrowest gap that is wide enough.)
class Arena {
public:
    /// Places are multiples of it: what cuBLASLt's and cuDNN's best algorithms ask for.
    static constexpr std::size_t alignment = 256;

    explicit Arena(std::size_t bytes);

    /// A place for so many bytes, counted from the block's begin; nothing when no gap is wide enough.
    std::optional<std::size_t> take(std::size_t bytes);
    /// Takes back what `take` gave for so many bytes.
    void give_back(std::size_t place, std::size_t bytes);

    bool empty() const { return lent_ == 0; }
    /// How far into the block arrays ever reached.
    std::size_t extent() const { return extent_; }

private:
    static std::size_t rounded(std::size_t bytes);

    std::map<std::size_t, std::size_t> gaps_;  ///< bytes by place; no two touch
    std::size_t lent_ = 0;                     ///< arrays
    std::size_t extent_ = 0;
};

}  // namespace gallop
