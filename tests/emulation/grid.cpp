#include "emulation/grid.hpp"

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>

#include "emulation/chance.hpp"

namespace gallop::emulation {

Lane* running = nullptr;
uint3 running_thread{};
uint3 running_block{};
dim3 running_grid{};
dim3 running_threads{};

namespace {

namespace context = boost::context;

/// Bytes of the nth stack: of different lengths, or all their ends would lie in the same few lines of the cache.
std::size_t stack_of(std::size_t n) { return (std::size_t{128} << 10) + n % 61 * 320; }

struct Warp {
    unsigned here = 0;
    unsigned ended = 0;
    std::uint64_t slots[2][warp_size];
    std::vector<std::size_t> waiting;  ///< workers
};

/// A fiber, which takes one thread of the block after the other for as long as none has to wait.
struct Worker {
    context::fiber fiber;
    Lane* lane = nullptr;  ///< whose thread waits in it
};

class Block {
public:
    void run(unsigned threads, const std::function<void()>& kernel) {
        kernel_ = &kernel;
        lanes_.resize(threads);
        warps_.resize((threads + warp_size - 1) / warp_size);
        for (Warp& warp : warps_) warp.here = warp.ended = 0;
        order_.resize(threads);
        std::iota(order_.begin(), order_.end(), 0U);
        std::shuffle(order_.begin(), order_.end(), chance());
        next_ = 0;
        alive_ = threads;
        here_ = 0;
        while (failure_.empty()) {
            if (!ready_.empty()) {
                std::swap(ready_[chance()() % ready_.size()], ready_.back());
                const std::size_t worker = ready_.back();
                ready_.pop_back();
                resume(worker);
            } else if (next_ < threads) {
                resume(idle());
            } else {
                break;
            }
        }
        if (failure_.empty() && alive_ > 0)
            failure_ = std::to_string(alive_) + " threads wait for others that never come";
        if (failure_.empty()) return;
        const std::string what = "emulated kernel: " + failure_;
        forget();
        throw std::logic_error(what);
    }

    void meet_block() {
        if (here_ + 1 == alive_) return release_block();
        ++here_;
        wait(waiting_);
    }

    void meet_warp() {
        Warp& warp = warps_[running->warp];
        if (warp.ended > 0) fail("a warp's lanes meet after one has ended");
        if (++warp.here == std::min<std::size_t>(warp_size, lanes_.size())) {
            warp.here = 0;
            release(warp.waiting);
        } else {
            wait(warp.waiting);
        }
    }

    std::uint64_t* slots() {
        std::uint64_t* of_turn = warps_[running->warp].slots[running->exchange];
        running->exchange ^= 1U;
        return of_turn;
    }

private:
    const std::function<void()>* kernel_ = nullptr;
    std::vector<Lane> lanes_;
    std::vector<Warp> warps_;
    std::vector<unsigned> order_;  ///< of the threads' beginnings
    std::size_t next_ = 0;
    std::size_t alive_ = 0;
    std::size_t here_ = 0;  ///< at the block's barrier
    std::vector<std::size_t> waiting_, ready_, idle_;
    std::vector<Worker> workers_;
    std::size_t current_ = 0;
    context::fiber scheduler_;
    std::string failure_;

    std::size_t idle() {
        if (idle_.empty()) {
            idle_.push_back(workers_.size());
            workers_.push_back(
                {context::fiber(
                     std::allocator_arg, context::fixedsize_stack(stack_of(workers_.size())),
                     [this](context::fiber&& from) { return take_threads(std::move(from)); }),
                 nullptr});
        }
        const std::size_t worker = idle_.back();
        idle_.pop_back();
        return worker;
    }

    void resume(std::size_t worker) {
        current_ = worker;
        if (workers_[worker].lane != nullptr) run_as(*workers_[worker].lane);
        context::fiber back = std::move(workers_[worker].fiber).resume();
        workers_[worker].fiber = std::move(back);
    }

    /// In a worker's fiber: until the block has no more threads, then again for the next block.
    context::fiber take_threads(context::fiber&& from) {
        scheduler_ = std::move(from);
        for (;;) {
            while (failure_.empty() && next_ < order_.size()) {
                Lane& lane = lanes_[order_[next_]];
                const unsigned number = order_[next_++];
                const dim3 size = running_threads;
                lane = {{number % size.x, number / size.x % size.y, number / size.x / size.y},
                        number / warp_size,
                        number % warp_size,
                        0};
                run_as(lane);
                try {
                    (*kernel_)();
                    ended(lane);
                } catch (const std::logic_error& error) {
                    failure_ = error.what();
                }
            }
            idle_.push_back(current_);
            scheduler_ = std::move(scheduler_).resume();
        }
    }

    static void run_as(Lane& lane) {
        running = &lane;
        running_thread = lane.thread;
    }

    void ended(const Lane& lane) {
        Warp& warp = warps_[lane.warp];
        ++warp.ended;
        if (warp.here > 0) fail("a lane ends while its warp exchanges");
        --alive_;
        if (alive_ > 0 && here_ == alive_) release_block();
    }

    void release_block() {
        here_ = 0;
        release(waiting_);
    }
    void release(std::vector<std::size_t>& waiting) {
        ready_.insert(ready_.end(), waiting.begin(), waiting.end());
        waiting.clear();
    }
    void wait(std::vector<std::size_t>& among) {
        workers_[current_].lane = running;
        among.push_back(current_);
        scheduler_ = std::move(scheduler_).resume();
        workers_[current_].lane = nullptr;
    }

    [[noreturn]] static void fail(const char* what) { throw std::logic_error(what); }

    /// After a failure: the fibers that wait are unwound.
    void forget() {
        workers_.clear();
        waiting_.clear();
        ready_.clear();
        idle_.clear();
        warps_.clear();
        failure_.clear();
    }
};

Block& block() {
    static Block only;
    return only;
}

}  // namespace

void run_grid(dim3 grid, dim3 threads, const std::function<void()>& kernel) {
    running_grid = grid;
    running_threads = threads;
    std::vector<unsigned> order(std::size_t{grid.x} * grid.y * grid.z);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), chance());
    for (const unsigned number : order) {
        running_block = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
        block().run(threads.x * threads.y * threads.z, kernel);
    }
}

void meet_block() { block().meet_block(); }
void meet_warp() { block().meet_warp(); }
std::uint64_t* exchange_slots() { return block().slots(); }

}  // namespace gallop::emulation
