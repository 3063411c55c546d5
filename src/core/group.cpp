#include "core/group.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "core/check.hpp"

namespace gallop {
namespace {

class SoloGroup : public Group {
public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    void sum(TensorView /*x*/) override {}
};

/// What the threads of a group share.
class Meeting {
public:
    Meeting(int size, std::chrono::milliseconds patience)
        : arrays_(static_cast<std::size_t>(size)), patience_(patience) {}

    int size() const { return static_cast<int>(arrays_.size()); }

    std::chrono::milliseconds patience() const { return patience_; }

    /// Waits so long for the others to come; once they are there, as long as ever.
    void sum(int rank, std::span<float> x, std::chrono::milliseconds patience) {
        arrays_[static_cast<std::size_t>(rank)] = x;
        meet(patience);
        const bool same = std::all_of(arrays_.begin(), arrays_.end(),
                                      [&](const auto& y) { return y.size() == x.size(); });
        // Each member adds up its part of the array, in the order of the ranks, for everybody.
        const std::size_t n = arrays_.size();
        const std::size_t begin = x.size() * static_cast<std::size_t>(rank) / n;
        const std::size_t end = x.size() * static_cast<std::size_t>(rank + 1) / n;
        for (std::size_t i = begin; same && i < end; ++i) {
            float total = 0;
            for (const auto& y : arrays_) total += y[i];
            for (const auto& y : arrays_) y[i] = total;
        }
        meet(patience_);
        if (!same) throw GroupError("the members of a group sum arrays of different sizes");
    }

    void leave() {
        const std::lock_guard lock(mutex_);
        broken_ = true;
        changed_.notify_all();
    }

private:
    /// Returns when all have come.
    void meet(std::chrono::milliseconds patience) {
        std::unique_lock lock(mutex_);
        const std::uint64_t round = round_;
        if (!broken_ && ++here_ == arrays_.size()) {
            here_ = 0;
            ++round_;
            changed_.notify_all();
            return;
        }
        const bool told =
            changed_.wait_for(lock, patience, [&] { return broken_ || round_ != round; });
        if (round_ != round) return;
        broken_ = true;
        changed_.notify_all();
        throw GroupError(
            told ? "a member has left the group"
                 : fmt::format("a member of the group was silent for {} ms", patience.count()));
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::span<float>> arrays_;
    std::chrono::milliseconds patience_;
    std::size_t here_ = 0;
    std::uint64_t round_ = 0;
    bool broken_ = false;
};

class ThreadGroup : public Group {
public:
    ThreadGroup(int rank, std::shared_ptr<Meeting> meeting)
        : rank_(rank), meeting_(std::move(meeting)) {}
    ~ThreadGroup() override { meeting_->leave(); }

    int rank() const override { return rank_; }
    int size() const override { return meeting_->size(); }
    void sum(TensorView x) override {
        meeting_->sum(rank_, x.span<float>(), std::exchange(patience_, meeting_->patience()));
    }
    void allow_late(std::chrono::milliseconds patience) override { patience_ = patience; }

private:
    int rank_;
    std::shared_ptr<Meeting> meeting_;
    std::chrono::milliseconds patience_ = meeting_->patience();  ///< of the next sum
};

}  // namespace

std::vector<std::pair<std::string, std::string>> group_environment() {
    return {{"NCCL_ALGO", "Ring"}, {"NCCL_PROTO", "Simple"}, {"NCCL_NVLS_ENABLE", "0"}};
}

Group& solo_group() {
    static SoloGroup group;
    return group;
}

std::vector<std::unique_ptr<Group>> make_thread_group(int size,
                                                      std::chrono::milliseconds patience) {
    CHECK(size >= 1, "a group of {}", size);
    const auto meeting = std::make_shared<Meeting>(size, patience);
    std::vector<std::unique_ptr<Group>> members;
    for (int rank = 0; rank < size; ++rank)
        members.push_back(std::make_unique<ThreadGroup>(rank, meeting));
    return members;
}

}  // namespace gallop
