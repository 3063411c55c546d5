#pragma once

#include <cstdint>
#include <cstring>
#include <functional>

#include <vector_types.h>

// A kernel's grid on one thread of the host. The threads of a block are fibers that run until they meet one
// another, in an order drawn anew each time, and so do the blocks: a kernel that lacks a barrier gives
// other results. What is undefined on a GPU (a warp's exchange with lanes that have ended, a barrier that
// not all reach) is an error here.

namespace gallop::emulation {

constexpr unsigned warp_size = 32;

/// A thread of a kernel.
struct Lane {
    uint3 thread;  ///< in its block
    unsigned warp;
    unsigned number;    ///< in its warp
    unsigned exchange;  ///< which of its warp's two sets of slots the next exchange uses
};

/// Who runs now, and where. One grid runs at a time.
extern Lane* running;
extern uint3 running_thread;
extern uint3 running_block;
extern dim3 running_grid;
extern dim3 running_threads;

/// Runs `kernel` once for each thread of a grid. Throws std::logic_error for what is undefined on a GPU.
void run_grid(dim3 grid, dim3 block, const std::function<void()>& kernel);

/// For kernels: all threads of the block, or of the warp, have come here.
void meet_block();
void meet_warp();

/// Where each lane of a warp puts 8 bytes for the others.
std::uint64_t* exchange_slots();

/// x of the lane `source` of this warp, all of whose lanes take part.
template <class T>
T exchange(T x, unsigned source) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    // Two sets of slots in turn: nobody is more than one exchange ahead of who still reads.
    std::uint64_t* slots = exchange_slots();
    std::memcpy(&slots[running->number], &x, sizeof x);
    meet_warp();
    std::memcpy(&x, &slots[source], sizeof x);
    return x;
}

}  // namespace gallop::emulation
