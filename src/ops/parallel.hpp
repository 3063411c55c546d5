#pragma once

#include <algorithm>

#include "core/tensor.hpp"

namespace gallop {

/// Calls `body(i)` for i in [0, n) on the OpenMP threads. Each call must be independent and must
/// not throw; what it computes must not depend on the thread count.
template <class Body>
void parallel_for(Index n, const Body& body) {
#pragma omp parallel for schedule(dynamic) if (n > 1)
    for (Index i = 0; i < n; ++i) body(i);
}

/// Calls `body(begin, end)` for consecutive chunks of [0, n) of at most `chunk`.
template <class Body>
void parallel_chunks(Index n, Index chunk, const Body& body) {
    parallel_for((n + chunk - 1) / chunk,
                 [&](Index i) { body(i * chunk, std::min(n, (i + 1) * chunk)); });
}

}  // namespace gallop
