#pragma once

#include <vector>

#include "ops/backend.hpp"

namespace gallop {

/// Frame-local attention without a mask. Softmax does not care for the order of keys: where copies of the
/// rest (sound and text) stand between the video's frames, the keys of each frame lie in one piece, with
/// the rest in it once, and its queries attend to that piece densely.
struct KeySlices {
    /// A run of rows copied from the keys as they are to the keys as laid out.
    struct Copy {
        Index from, to, rows;
    };
    /// A run of queries and the keys that all of them see, each once.
    struct Slice {
        Index query, queries, key, keys;
        bool laid_out;  ///< whether `key` counts in the keys as laid out, or as they are
    };
    Index rows = 0;             ///< of the keys as laid out
    std::vector<Copy> copies;   ///< fill all of them; one copy from 0 to 0: nothing is moved
    std::vector<Slice> slices;  ///< cover all queries, in order
};

/// Plans the attention of a mask of kind `frames` over `keys` rows, with the fewest copies of the rest
/// that serve all frames (two for 32 frames of radius 11, three for 63).
KeySlices plan_key_slices(const AttentionMask& mask, Index keys);

}  // namespace gallop
