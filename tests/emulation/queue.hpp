#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include <cuda_runtime_api.h>

// Streams and events. Work that is put on a stream is done when somebody waits for it, or at a moment drawn at
// random before: as late, and in as odd an order, as a GPU may do it. A wait between streams that is
// missing then gives other results.

namespace gallop::emulation {

/// Guards everything in here: calls come from several threads.
std::recursive_mutex& device_mutex();

struct Queue;

/// A place in a queue. The default is one that has been reached.
struct Place {
    std::shared_ptr<Queue> queue;
    std::uint64_t number = 0;  ///< that many pieces of work are done there
};

struct Queue {
    std::deque<std::function<void()>> work;
    std::uint64_t done = 0;
    std::uint64_t asked() const { return done + work.size(); }
};

std::shared_ptr<Queue> make_queue();
void drop_queue(const std::shared_ptr<Queue>& queue);

/// Puts work on a stream. Returns what an earlier kernel's fault left behind.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);
/// Where the stream's work ends now.
Place end_of(cudaStream_t stream);
/// Later work on the stream begins after that place.
void wait_for(cudaStream_t stream, const Place& place);
/// Does what is before a place.
cudaError_t reach(const Place& place);
/// Does everything.
cudaError_t reach_all();

/// Checks a launch as a driver does, and puts it on its stream.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> body);

/// What a kernel's fault left behind, if there was one.
cudaError_t context_state();

/// The last error of this thread's calls, as cudaGetLastError has it.
cudaError_t remember(cudaError_t status);
cudaError_t take_last_error();

}  // namespace gallop::emulation
