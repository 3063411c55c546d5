#include "pipeline/fp8_search.hpp"

#include <algorithm>

namespace gallop {

Fp8Set choose_within(std::vector<Fp8Candidate> candidates, double within,
                     const Fp8Measure& measure) {
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Fp8Candidate& a, const Fp8Candidate& b) {
                         return a.error * a.error * b.work < b.error * b.error * a.work;
                     });
    const auto first = [&](std::size_t count) {
        std::vector<std::size_t> parts;
        for (std::size_t i = 0; i < count; ++i) parts.push_back(candidates[i].part);
        std::sort(parts.begin(), parts.end());
        return parts;
    };
    Fp8Set set{{}, measure({})};
    if (!(set.error <= within)) return set;
    std::size_t holds = 0;
    std::size_t fails = candidates.size() + 1;
    for (std::size_t count = candidates.size(); count > holds;
         count = holds + (fails - holds) / 2) {
        std::vector<std::size_t> parts = first(count);
        const double error = measure(parts);
        if (error <= within) {
            holds = count;
            set = {std::move(parts), error};
        } else {
            fails = count;
        }
    }
    for (std::size_t i = fails; i < candidates.size(); ++i) {  // the one before is known to fail
        const double own = candidates[i].error;
        if (set.error * set.error + own * own > within * within) continue;
        std::vector<std::size_t> parts = set.parts;
        parts.insert(std::lower_bound(parts.begin(), parts.end(), candidates[i].part),
                     candidates[i].part);
        const double error = measure(parts);
        if (error <= within) set = {std::move(parts), error};
    }
    return set;
}

}  // namespace gallop
