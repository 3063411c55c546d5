#include "farm/shared_queue.hpp"

#include <algorithm>
#include <numeric>

#include "core/random.hpp"

namespace gallop {

SharedQueue::SharedQueue(const PlanIndex& plan, Schedule::Order order, std::string_view who) {
    order_.resize(plan.rows.size());
    std::iota(order_.begin(), order_.end(), 0U);
    if (order != Schedule::Order::longest_first) return;

    std::vector<float> longest(plan.buckets.size(), 0);
    for (const PlanRow& row : plan.rows)
        longest[row.bucket] = std::max(longest[row.bucket], row.seconds);
    std::vector<std::uint16_t> rank(plan.buckets.size());
    std::iota(rank.begin(), rank.end(), std::uint16_t{0});
    std::stable_sort(rank.begin(), rank.end(),
                     [&](std::uint16_t a, std::uint16_t b) { return longest[a] > longest[b]; });
    std::vector<std::uint16_t> place(rank.size());
    for (std::size_t i = 0; i < rank.size(); ++i) place[rank[i]] = static_cast<std::uint16_t>(i);
    std::stable_sort(order_.begin(), order_.end(), [&](std::uint32_t a, std::uint32_t b) {
        return place[plan.rows[a].bucket] < place[plan.rows[b].bucket];
    });
    const std::uint64_t start = fnv1a_64(who);
    for (auto first = order_.begin(); first != order_.end();) {
        const auto last = std::find_if(first, order_.end(), [&](std::uint32_t item) {
            return plan.rows[item].bucket != plan.rows[*first].bucket;
        });
        const auto size = static_cast<std::uint64_t>(last - first);
        std::rotate(first, first + static_cast<std::ptrdiff_t>(start % size), last);
        first = last;
    }
}

std::optional<std::uint32_t> SharedQueue::next(
    double now, const std::function<bool(std::uint32_t item)>& wanted) {
    for (std::size_t tried = 0; tried < order_.size(); ++tried) {
        const std::uint32_t item = order_[at_];
        at_ = at_ + 1 == order_.size() ? 0 : at_ + 1;
        if (!wanted(item)) continue;
        if (const auto passed = passed_.find(item); passed != passed_.end()) {
            if (passed->second > now) continue;
            passed_.erase(passed);
        }
        return item;
    }
    return {};
}

void SharedQueue::pass_over(std::uint32_t item, double until) { passed_[item] = until; }

}  // namespace gallop
