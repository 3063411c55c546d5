#pragma once

// Only in builds with CUDA.

#include <memory>

#include <cuda_runtime_api.h>

#include "core/group.hpp"

namespace gallop {

/// Joins a group of processes with a GPU each, over arrays on the current device. Sums are queued
/// on `stream`, which must outlive the group; nothing waits for them here. The first member makes
/// the communicator's id and leaves it in the rendezvous folder. A thread of its own watches: a
/// member that is gone, or a sum that takes longer than the seat's patience, ends the communicator,
/// so that the stream goes on, and sum and check throw from then on. A member that goes waits a few
/// seconds at most for the sums it asked for and takes leave of the others. What NCCL needs of the GPU's memory
/// is taken here. Throws GroupError; OutOfMemoryError where NCCL's words say so, as sum and check do.
std::unique_ptr<Group> make_nccl_group(const GroupSeat& seat, cudaStream_t stream);

}  // namespace gallop
