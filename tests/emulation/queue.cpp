#include "emulation/queue.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "emulation/chance.hpp"
#include "emulation/device_memory.hpp"
#include "emulation/grid.hpp"
#include "emulation/runtime.hpp"

namespace gallop::emulation {
namespace {

std::vector<std::shared_ptr<Queue>>& queues() {
    static std::vector<std::shared_ptr<Queue>> all;
    return all;
}

/// Of a kernel's fault: the context is lost from then on.
cudaError_t lost = cudaSuccess;

thread_local cudaError_t last_error = cudaSuccess;

constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
std::uint64_t launched = 0;
std::uint64_t faulty = never;  ///< launches from this one on

std::map<const void*, int>& shared_limits() {
    static std::map<const void*, int> limits;
    return limits;
}

Queue& queue_of(cudaStream_t stream) { return *reinterpret_cast<Queue*>(stream); }

void do_first(Queue& queue) {
    const std::function<void()> work = std::move(queue.work.front());
    queue.work.pop_front();
    if (lost == cudaSuccess) {
        try {
            work();
        } catch (const std::exception& error) {
            std::fprintf(stderr, "emulated GPU: %s\n", error.what());
            lost = cudaErrorLaunchFailure;
        }
    }
    ++queue.done;
}

void do_until(Queue& queue, std::uint64_t number) {
    if (queue.done >= number) return;
    const OpenMemory open;
    while (queue.done < number) do_first(queue);
}

/// Now and then some of what waits is done early.
void do_some() {
    if (queues().empty() || chance()() % 4 != 0) return;
    Queue& queue = *queues()[chance()() % queues().size()];
    if (!queue.work.empty()) do_until(queue, queue.done + 1 + chance()() % queue.work.size());
}

}  // namespace

std::recursive_mutex& device_mutex() {
    static std::recursive_mutex only;
    return only;
}

std::shared_ptr<Queue> make_queue() {
    queues().push_back(std::make_shared<Queue>());
    return queues().back();
}

void drop_queue(const std::shared_ptr<Queue>& queue) {
    do_until(*queue, queue->asked());
    std::erase(queues(), queue);
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
    if (lost != cudaSuccess) return lost;
    queue_of(stream).work.push_back(std::move(work));
    do_some();
    return lost;
}

Place end_of(cudaStream_t stream) {
    for (const std::shared_ptr<Queue>& queue : queues())
        if (queue.get() == &queue_of(stream)) return {queue, queue->asked()};
    return {};
}

void wait_for(cudaStream_t stream, const Place& place) {
    static_cast<void>(enqueue(stream, [place] {
        if (place.queue) do_until(*place.queue, place.number);
    }));
}

cudaError_t reach(const Place& place) {
    if (place.queue) do_until(*place.queue, place.number);
    return lost;
}

cudaError_t reach_all() {
    for (const std::shared_ptr<Queue>& queue : queues()) do_until(*queue, queue->asked());
    return lost;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> body) {
    const std::lock_guard lock(device_mutex());
    constexpr std::size_t always = 48 << 10;
    const dim3 grid = config.gridDim;
    const dim3 block = config.blockDim;
    const auto limit = shared_limits().find(kernel);
    const std::size_t most =
        limit == shared_limits().end() ? always : static_cast<std::size_t>(limit->second);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
        grid.z > 65535 || block.x * block.y * block.z == 0 || block.x * block.y * block.z > 1024 ||
        config.dynamicSmemBytes > std::max(always, most))
        return remember(cudaErrorInvalidConfiguration);
    if (++launched >= faulty)
        return remember(
            enqueue(config.stream, [] { throw std::runtime_error("a fault that was asked for"); }));
    return remember(enqueue(
        config.stream, [grid, block, body = std::move(body)] { run_grid(grid, block, body); }));
}

cudaError_t context_state() { return lost; }

std::uint64_t launches() {
    const std::lock_guard lock(device_mutex());
    return launched;
}

Fault::Fault(std::uint64_t launch) {
    const std::lock_guard lock(device_mutex());
    faulty = launched + launch;
}
Fault::~Fault() {
    const std::lock_guard lock(device_mutex());
    static_cast<void>(reach_all());
    faulty = never;
    lost = cudaSuccess;
}

cudaError_t remember(cudaError_t status) {
    if (status != cudaSuccess) last_error = status;
    return status;
}

cudaError_t take_last_error() {
    const cudaError_t status = lost != cudaSuccess ? lost : last_error;
    last_error = cudaSuccess;
    return status;
}

}  // namespace gallop::emulation

extern "C" cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute which,
                                            int value) {
    const std::lock_guard lock(gallop::emulation::device_mutex());
    constexpr int most_shared = 227 << 10;
    if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || value > most_shared)
        return gallop::emulation::remember(cudaErrorInvalidValue);
    gallop::emulation::shared_limits()[kernel] = value;
    return cudaSuccess;
}
