#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "farm/plan_index.hpp"
#include "farm/run_config.hpp"

namespace gallop {

/// In which order one of many processes, that do not talk to one another, tries to take the items
/// of a plan. Longest first: bucket by bucket, the longest items' first, and within a bucket from a
/// place that depends on the process, so that few of them meet; a renderer keeps its shape. In
/// other orders: the plan's.
class SharedQueue {
public:
    /// `who`: names the process; it decides where in a bucket it begins.
    SharedQueue(const PlanIndex& plan, Schedule::Order order, std::string_view who);

    /// The next item that is `wanted`, and not known to be held by somebody; each call goes on
    /// where the one before ended, and once around. `now`: seconds since any moment.
    std::optional<std::uint32_t> next(double now,
                                      const std::function<bool(std::uint32_t item)>& wanted);
    /// Somebody holds the item: it is passed over until then.
    void pass_over(std::uint32_t item, double until);

private:
    std::vector<std::uint32_t> order_;
    std::size_t at_ = 0;
    std::unordered_map<std::uint32_t, double> passed_;
};

}  // namespace gallop
