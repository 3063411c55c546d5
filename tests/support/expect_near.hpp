#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "core/tensor.hpp"

namespace gallop::test {

/// Largest error over the largest expected magnitude.
inline double relative_error(std::span<const float> actual, std::span<const float> expected) {
    EXPECT_EQ(actual.size(), expected.size());
    double error = 0;
    double largest = 0;
    for (std::size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
        const double difference = std::fabs(static_cast<double>(actual[i]) - expected[i]);
        error = std::isnan(difference) ? INFINITY : std::max(error, difference);
        largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
    }
    return largest > 0 ? error / largest : error;
}

/// Fails when the largest error exceeds `tolerance` times the largest expected value.
inline void expect_near(std::span<const float> actual, std::span<const float> expected,
                        double tolerance) {
    EXPECT_LE(relative_error(actual, expected), tolerance);
}

/// What all random values of this process come from: drawn anew in every one, or GALLOP_TEST_SEED; printed
/// once.
inline unsigned test_seed() {
    static const unsigned seed = [] {
        const char* given = std::getenv("GALLOP_TEST_SEED");
        const unsigned long drawn =
            given != nullptr ? std::strtoul(given, nullptr, 10) : std::random_device{}();
        std::fprintf(stderr, "GALLOP_TEST_SEED=%lu\n", drawn);
        return static_cast<unsigned>(drawn);
    }();
    return seed;
}

/// Values from N(0, scale²), others in every run; each object draws the same ones again.
class RandomValues {
public:
    Tensor tensor(Shape shape, float scale = 1.0F) {
        Tensor made(shape);
        std::normal_distribution<float> normal(0.0F, scale);
        for (float& value : made.span<float>()) value = normal(engine_);
        return made;
    }

private:
    std::mt19937 engine_{test_seed()};
};

/// The same values as bf16.
inline Tensor as_bf16(const Tensor& x) {
    Tensor made(x.shape(), DType::bf16);
    convert(x, made);
    return made;
}

/// The values of a floating tensor as floats.
inline std::vector<float> floats(const Tensor& x) {
    Tensor wide(x.shape());
    convert(x, wide);
    const auto values = wide.span<float>();
    return {values.begin(), values.end()};
}

/// A host tensor from a list.
inline Tensor values(Shape shape, std::vector<float> list) {
    return Tensor::of<float>(shape, list);
}

}  // namespace gallop::test
