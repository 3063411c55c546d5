#pragma once

#include <cstddef>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/node.hpp"

namespace gallop {

/// A mistake or a remark, with the place that it is about.
struct Remark {
    Where where;
    std::string text;
};

/// Mistakes met while reading a manifest. A mistake in a layer that many items share is kept once;
/// of a flood, the first thousand are kept and the others counted.
class Problems {
public:
    static constexpr std::size_t most = 1000;

    void add(Where where, std::string text);
    bool empty() const { return remarks_.empty(); }
    /// Met so far, repetitions not counted.
    std::size_t count() const { return remarks_.size() + dropped_; }
    const std::vector<Remark>& all() const { return remarks_; }
    /// Throws InputError with all of them, one a line, in the order of their places; does nothing
    /// when there are none.
    void raise() const;

private:
    std::vector<Remark> remarks_;
    std::unordered_set<std::string> seen_;
    std::size_t dropped_ = 0;
};

}  // namespace gallop
