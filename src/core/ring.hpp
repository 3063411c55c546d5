#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace gallop {

/// A few slots that go round between two threads: one fills them in turn, the other empties them in the
/// same order. Either one waits for the other when it is ahead by all slots. What one of them throws
/// (`fail`) reaches the other at its next call.
template <class Slot>
class Ring {
public:
    /// At least one slot.
    explicit Ring(std::vector<Slot> slots) : slots_(std::move(slots)) {}

    /// The next slot to fill; waits for a free one. Null when the ring was stopped. Throws what the other
    /// side failed with.
    Slot* to_fill() {
        std::unique_lock lock(mutex_);
        moved_.wait(lock, [&] { return stopped_ || filled_ - emptied_ < slots_.size(); });
        if (failure_) std::rethrow_exception(failure_);
        return stopped_ ? nullptr : &slots_[filled_ % slots_.size()];
    }
    /// The slot that `to_fill` gave is full.
    void filled() {
        move([&] { ++filled_; });
    }
    /// No slot will be filled any more.
    void finish() {
        move([&] { finished_ = true; });
    }

    /// The next full slot; waits for one. Null after the last. Several may be held at a time.
    /// Throws what the other side failed with.
    Slot* to_empty() {
        std::unique_lock lock(mutex_);
        moved_.wait(lock, [&] { return stopped_ || finished_ || taken_ < filled_; });
        if (failure_) std::rethrow_exception(failure_);
        if (stopped_ || taken_ == filled_) return nullptr;
        return &slots_[taken_++ % slots_.size()];
    }
    /// The slot that was held for longest is free again.
    void emptied() {
        move([&] { ++emptied_; });
    }

    /// Ends both sides: nobody waits any more.
    void stop() {
        move([&] { stopped_ = true; });
    }
    /// Ends both sides; the other one gets `failure`, unless one came before.
    void fail(std::exception_ptr failure) {
        move([&] {
            if (!failure_ && !stopped_) failure_ = std::move(failure);
            stopped_ = true;
        });
    }
    /// Throws what a side failed with.
    void check() {
        const std::lock_guard lock(mutex_);
        if (failure_) std::rethrow_exception(failure_);
    }

private:
    template <class Change>
    void move(const Change& change) {
        {
            const std::lock_guard lock(mutex_);
            change();
        }
        moved_.notify_all();
    }

    std::vector<Slot> slots_;
    std::mutex mutex_;  // guards what follows
    std::condition_variable moved_;
    std::size_t filled_ = 0, taken_ = 0, emptied_ = 0;  ///< slots so far
    bool finished_ = false;
    bool stopped_ = false;
    std::exception_ptr failure_;
};

/// One side of a ring on a thread of its own. What it throws goes to the other side.
template <class Slot>
class RingThread {
public:
    RingThread(Ring<Slot>& ring, std::function<void()> work)
        : ring_(ring), thread_([&ring, work = std::move(work)] {
              try {
                  work();
              } catch (...) {
                  ring.fail(std::current_exception());
              }
          }) {}
    /// Stops the ring, unless `join` was called.
    ~RingThread() {
        ring_.stop();
        if (thread_.joinable()) thread_.join();
    }
    RingThread(const RingThread&) = delete;
    RingThread& operator=(const RingThread&) = delete;

    /// Waits for the work's end. Throws what it failed with.
    void join() {
        thread_.join();
        ring_.check();
    }

private:
    Ring<Slot>& ring_;
    std::thread thread_;
};

}  // namespace gallop
