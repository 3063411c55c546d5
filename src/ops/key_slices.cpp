#include "ops/key_slices.hpp"

#include <algorithm>

#include "core/check.hpp"

namespace gallop {
namespace {

/// Frames first … end−1.
struct Window {
    Index first, end;
};

Window window_of(const AttentionMask& mask, Index frame) {
    return {std::max<Index>(0, frame - mask.radius),
            std::min(mask.frames, frame + std::min(mask.radius, mask.frames) + 1)};
}

/// Boundaries between frames (b: before frame b) where the rest is put: each window has one of them
/// inside or at an end. The first window that has none yet gets one at its own end, which is as far back
/// as can be, so none could be saved. No window has two strictly inside: one that reaches beyond the later
/// copy came after the window for which that was placed, and so begins after the earlier copy.
std::vector<Index> boundaries(const AttentionMask& mask) {
    std::vector<Index> chosen;
    for (Index frame = 0; frame < mask.frames; ++frame) {
        const Window window = window_of(mask, frame);
        if (chosen.empty() || chosen.back() < window.first) chosen.push_back(window.end);
    }
    return chosen;
}

/// Where rows of the laid out keys begin.
class Layout {
public:
    Layout(const AttentionMask& mask, Index rest, std::vector<Index> copies)
        : per_frame_(mask.per_frame), rest_(rest), copies_(std::move(copies)) {}

    /// The row of a boundary; `behind` a copy of the rest that stands there, or before it.
    Index row(Index boundary, bool behind) const {
        const auto before = std::count_if(copies_.begin(), copies_.end(), [&](Index b) {
            return b < boundary || (behind && b == boundary);
        });
        return boundary * per_frame_ + before * rest_;
    }

    /// The rows of a window and one copy of the rest.
    std::pair<Index, Index> piece(const Window& window) const {
        const bool inside = std::any_of(copies_.begin(), copies_.end(), [&](Index b) {
            return window.first < b && b < window.end;
        });
        const bool at_begin = !inside && stands(window.first);
        const bool at_end = !inside && !at_begin;
        return {row(window.first, !at_begin), row(window.end, at_end)};
    }

private:
    bool stands(Index b) const {
        return std::find(copies_.begin(), copies_.end(), b) != copies_.end();
    }

    Index per_frame_, rest_;
    std::vector<Index> copies_;
};

}  // namespace

KeySlices plan_key_slices(const AttentionMask& mask, Index keys) {
    CHECK(mask.kind == AttentionMask::Kind::frames, "slices are for masks by frame");
    const Index video = mask.frames * mask.per_frame;
    const Index rest = keys - video;
    CHECK(rest >= 0, "{} frames of {} in {} keys", mask.frames, mask.per_frame, keys);
    KeySlices plan;
    if (video == 0) {
        plan = {keys, {{0, 0, keys}}, {{0, keys, 0, keys, false}}};
        return plan;
    }
    const std::vector<Index> copies = rest == 0 ? std::vector<Index>{} : boundaries(mask);
    const Layout layout(mask, rest, copies);

    const auto copy = [&](Index from, Index rows) {
        if (rows == 0) return;
        if (!plan.copies.empty() && plan.copies.back().from + plan.copies.back().rows == from)
            plan.copies.back().rows += rows;
        else
            plan.copies.push_back({from, plan.rows, rows});
        plan.rows += rows;
    };
    Index done = 0;
    for (const Index boundary : copies) {
        copy(done * mask.per_frame, (boundary - done) * mask.per_frame);
        copy(video, rest);
        done = boundary;
    }
    copy(done * mask.per_frame, (mask.frames - done) * mask.per_frame);

    for (Index frame = 0; frame < mask.frames; ++frame) {
        const auto [begin, end] = layout.piece(window_of(mask, frame));
        if (!plan.slices.empty() && plan.slices.back().key == begin &&
            plan.slices.back().keys == end - begin)
            plan.slices.back().queries += mask.per_frame;
        else
            plan.slices.push_back(
                {frame * mask.per_frame, mask.per_frame, begin, end - begin, true});
    }
    if (rest > 0) plan.slices.push_back({video, rest, 0, keys, false});
    return plan;
}

}  // namespace gallop
