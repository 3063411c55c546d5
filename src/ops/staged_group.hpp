#pragma once

#include <memory>

#include "ops/backend.hpp"

namespace gallop {

/// A group over host arrays, for a backend whose arrays are elsewhere: each sum goes through host
/// memory. Slow; for members that share one GPU, which NCCL refuses. `on` must outlive it.
std::unique_ptr<Group> make_staged_group(std::unique_ptr<Group> host, Backend& on);

}  // namespace gallop
