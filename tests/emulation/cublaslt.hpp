#pragma once

#include <cstdint>

namespace gallop::emulation {

/// What cuBLASLt refuses though other versions may have it. A test sets it before it makes a backend.
struct Refusals {
    bool e4m3_sums =
        false;  ///< to add an E4M3 product to what is there; only the call itself says so
    bool e4m3_to_f32 = false;
    bool e4m3 = false;        ///< all products of E4M3 with a scale a row
    bool e4m3_calls = false;  ///< the same, but only the call itself says so
    /// The first algorithm, which is slow then, for rows that are no multiple of 16; for those the last one is
    /// suggested, which adds in another order.
    bool first_of_odd_rows = false;
    std::uint64_t more_elements = ~std::uint64_t{0};  ///< arrays with more
    int next_products = 0;  ///< so many, as when there is no memory for their kernel
};
Refusals& refusals();

}  // namespace gallop::emulation
