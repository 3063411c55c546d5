#pragma once

#include <string>
#include <vector>

#include "farm/survey.hpp"

namespace gallop {

/// Failures of either kind that a page shows.
inline constexpr std::size_t most_failures_shown = 20;

/// A survey as lines of at most `columns` columns. `rows`: at most so many lines (0: no bound);
/// what matters most comes first.
std::vector<std::string> status_page(const Survey& survey, std::size_t columns,
                                     std::size_t rows = 0);

}  // namespace gallop
