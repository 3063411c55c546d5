#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace gallop {

/// One part of a network that may be chosen.
struct Fp8Candidate {
    std::size_t part = 0;  ///< its number
    double work = 0;       ///< what choosing it gains, in any unit
    double error = 0;      ///< relative L2 of a forward with it alone
};

/// What was chosen.
struct Fp8Set {
    std::vector<std::size_t> parts;  ///< ascending
    double error = 0;                ///< of a forward with all of them, measured
};

/// The relative L2 of a forward with these parts, ascending.
using Fp8Measure = std::function<double(const std::vector<std::size_t>& parts)>;

/// Chooses parts of much work whose error together is `within`. Roundings of different parts know nothing of
/// each other, so errors add in squares, nearly: parts are taken in the order of error² over work. How many of them
/// hold is measured, everything first, then by halving; of those behind, what should still fit is tried one by
/// one. Empty when even the first part of that order does not hold, and no other fits.
Fp8Set choose_within(std::vector<Fp8Candidate> candidates, double within,
                     const Fp8Measure& measure);

}  // namespace gallop
