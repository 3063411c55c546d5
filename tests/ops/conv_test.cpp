#include <cmath>
#include <ostream>
#include <random>
#include <vector>

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <omp.h>

#include "core/view.hpp"
#include "ops/cpu_conv.hpp"

namespace gallop {
namespace {

using testing::ElementsAre;

Index extent(Index in, Index kernel, const ConvSpec& spec, std::size_t axis) {
    const Index reach = (kernel - 1) * spec.dilation[axis];
    return (in + spec.pad_before[axis] + spec.pad_after[axis] - reach - 1) / spec.stride[axis] + 1;
}

Shape extents(const Tensor& x, const Tensor& kernel, const ConvSpec& spec) {
    return {extent(x.size(0), kernel.size(2), spec, 0), extent(x.size(1), kernel.size(3), spec, 1),
            extent(x.size(2), kernel.size(4), spec, 2), kernel.size(0)};
}

/// The definition, sums in double.
Tensor loops(const Tensor& x, const Tensor& kernel, const Tensor& bias, const ConvSpec& spec) {
    Tensor y(extents(x, kernel, spec));
    const auto in = as<const float, 4>(x.view());
    const auto k = as<const float, 5>(kernel.view());
    const auto out = as<float, 4>(y.view());
    for (Index t = 0; t < y.size(0); ++t)
        for (Index r = 0; r < y.size(1); ++r)
            for (Index c = 0; c < y.size(2); ++c)
                for (Index o = 0; o < y.size(3); ++o) {
                    double sum = bias.defined() ? bias.data<float>()[o] : 0.0;
                    for (Index a = 0; a < kernel.size(2); ++a)
                        for (Index b = 0; b < kernel.size(3); ++b)
                            for (Index d = 0; d < kernel.size(4); ++d) {
                                const Index ft =
                                    t * spec.stride[0] - spec.pad_before[0] + a * spec.dilation[0];
                                const Index fy =
                                    r * spec.stride[1] - spec.pad_before[1] + b * spec.dilation[1];
                                const Index fx =
                                    c * spec.stride[2] - spec.pad_before[2] + d * spec.dilation[2];
                                if (ft < 0 || ft >= x.size(0) || fy < 0 || fy >= x.size(1) ||
                                    fx < 0 || fx >= x.size(2))
                                    continue;
                                for (Index i = 0; i < x.size(3); ++i)
                                    sum += double{in(ft, fy, fx, i)} * k(o, i, a, b, d);
                            }
                    out(t, r, c, o) = static_cast<float>(sum);
                }
    return y;
}

/// The definition of the transposed one: every sample is scattered.
Tensor scatter(const Tensor& x, const Tensor& kernel, const Tensor& bias, Index stride, Index pad) {
    const Index out = kernel.size(1);
    Tensor y({(x.size(0) - 1) * stride - 2 * pad + kernel.size(2), out});
    std::vector<double> sum(static_cast<std::size_t>(y.numel()));
    for (Index s = 0; s < y.size(0); ++s)
        for (Index o = 0; o < out; ++o)
            sum[s * out + o] = bias.defined() ? bias.data<float>()[o] : 0.0;
    const auto in = as<const float, 2>(x.view());
    const auto k = as<const float, 3>(kernel.view());
    for (Index s = 0; s < x.size(0); ++s)
        for (Index j = 0; j < kernel.size(2); ++j) {
            const Index at = s * stride - pad + j;
            if (at < 0 || at >= y.size(0)) continue;
            for (Index i = 0; i < x.size(1); ++i)
                for (Index o = 0; o < out; ++o) sum[at * out + o] += double{in(s, i)} * k(i, o, j);
        }
    for (Index n = 0; n < y.numel(); ++n) y.data<float>()[n] = static_cast<float>(sum[n]);
    return y;
}

Tensor noise(Shape shape, unsigned seed) {
    std::mt19937 bits(seed);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    Tensor made(shape);
    for (float& value : made.span<float>()) value = uniform(bits);
    return made;
}

/// Largest difference over the largest value.
double error(const Tensor& got, const Tensor& want) {
    EXPECT_EQ(to_string(got.shape()), to_string(want.shape()));
    double worst = 0.0;
    double largest = 1e-30;
    for (Index i = 0; i < want.numel(); ++i) {
        const double w = want.data<float>()[i];
        worst = std::max(worst, std::fabs(got.data<float>()[i] - w));
        largest = std::max(largest, std::fabs(w));
    }
    return worst / largest;
}

// Sums of at most a few thousand products in float: some places of 6e-8.
constexpr double float_sums = 2e-6;

Tensor convolved(const Tensor& x, const Tensor& kernel, const Tensor& bias, const ConvSpec& spec) {
    Tensor y(extents(x, kernel, spec));
    cpu_conv(x, kernel, bias, spec, y);
    return y;
}

std::vector<float> values(const Tensor& tensor) {
    return {tensor.span<float>().begin(), tensor.span<float>().end()};
}

Tensor row(Shape shape, std::vector<float> of) {
    return Tensor::of<float>(shape, std::span<const float>(of));
}

TEST(Conv, SlidesTheKernelUnflippedAndPadsWithZeros) {
    ConvSpec spec;
    spec.pad_before[2] = 1;
    const Tensor x = row({1, 1, 4, 1}, {1, 2, 3, 4});
    const Tensor y = convolved(x, row({1, 1, 1, 1, 3}, {1, 10, 100}), row({1}, {0.5F}), spec);
    EXPECT_THAT(values(y), ElementsAre(210.5F, 321.5F, 432.5F));
}

TEST(Conv, SumsOverInputChannelsForEachOutputChannel) {
    const Tensor x = row({1, 1, 2, 2}, {1, 2, 3, 4});
    const Tensor y = convolved(x, row({3, 2, 1, 1, 1}, {1, 0, 0, 1, 1, 1}), {}, {});
    EXPECT_THAT(values(y), ElementsAre(1, 2, 3, 3, 4, 7));
}

TEST(Conv, StridesAndDilates) {
    ConvSpec spec;
    spec.stride[0] = 2;
    spec.dilation[0] = 2;
    const Tensor x = row({7, 1, 1, 1}, {1, 2, 3, 4, 5, 6, 7});
    const Tensor y = convolved(x, row({1, 1, 2, 1, 1}, {1, 10}), {}, spec);
    EXPECT_THAT(values(y), ElementsAre(31, 53, 75));
}

struct Case {
    Shape x;
    Shape kernel;
    ConvSpec spec;
};

/// What the list of tests calls a case; GoogleTest would print its bytes, padding and all.
void PrintTo(const Case& c, std::ostream* out) {
    *out << fmt::format("{} by {} stride {}", fmt::join(c.x, "x"), fmt::join(c.kernel, "x"),
                        fmt::join(c.spec.stride, "x"));
}

class ConvCase : public testing::TestWithParam<Case> {};

TEST_P(ConvCase, MatchesTheDefinition) {
    const auto& [x_shape, kernel_shape, spec] = GetParam();
    const Tensor x = noise(x_shape, 1);
    const Tensor kernel = noise(kernel_shape, 2);
    const Tensor bias = noise({kernel_shape[0]}, 3);
    EXPECT_LE(error(convolved(x, kernel, bias, spec), loops(x, kernel, bias, spec)), float_sums);
    EXPECT_LE(error(convolved(x, kernel, {}, spec), loops(x, kernel, {}, spec)), float_sums);
}

// The same clip whoever renders it: with one core or with many.
TEST_P(ConvCase, DoesNotDependOnTheNumberOfThreads) {
    const auto& [x_shape, kernel_shape, spec] = GetParam();
    const Tensor x = noise(x_shape, 1);
    const Tensor kernel = noise(kernel_shape, 2);
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const Tensor one = convolved(x, kernel, {}, spec);
    for (const int more : {2, 3, 5}) {
        omp_set_num_threads(more);
        EXPECT_EQ(values(convolved(x, kernel, {}, spec)), values(one)) << more << " threads";
    }
    omp_set_num_threads(threads);
}

constexpr ConvSpec spec_of(std::array<Index, 3> stride, std::array<Index, 3> before,
                           std::array<Index, 3> after, std::array<Index, 3> dilation = {1, 1, 1}) {
    return {stride, before, after, dilation};
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ConvCase,
    testing::Values(
        Case{{3, 5, 7, 3}, {4, 3, 1, 1, 1}, {}},
        Case{{3, 7, 9, 4}, {6, 4, 3, 3, 3}, spec_of({1, 1, 1}, {1, 1, 1}, {1, 1, 1})},
        Case{{1, 5, 6, 12}, {12, 12, 3, 3, 3}, spec_of({1, 1, 1}, {2, 1, 1}, {0, 1, 1})},
        Case{{2, 9, 11, 6}, {5, 6, 1, 3, 3}, spec_of({1, 2, 2}, {0, 0, 0}, {0, 1, 1})},
        Case{{6, 4, 3, 8}, {16, 8, 3, 1, 1}, spec_of({2, 1, 1}, {1, 0, 0}, {0, 0, 0})},
        Case{{4, 13, 15, 7}, {9, 7, 2, 3, 2}, spec_of({3, 2, 1}, {1, 2, 0}, {0, 0, 1}, {1, 2, 3})},
        Case{{2, 5, 5, 48}, {24, 48, 3, 3, 3}, spec_of({1, 1, 1}, {1, 1, 1}, {1, 1, 1})},
        Case{{1, 1, 1, 5}, {3, 5, 3, 3, 3}, spec_of({1, 1, 1}, {1, 1, 1}, {1, 1, 1})},
        Case{
            {1, 1, 300, 4}, {4, 4, 1, 1, 7}, spec_of({1, 1, 1}, {0, 0, 27}, {0, 0, 27}, {1, 1, 9})},
        Case{{1, 1, 301, 4}, {8, 4, 1, 1, 8}, spec_of({1, 1, 4}, {0, 0, 2}, {0, 0, 2})},
        // as the video decoders have them
        Case{{2, 16, 28, 64}, {64, 64, 3, 3, 3}, spec_of({1, 1, 1}, {1, 1, 1}, {1, 1, 1})},
        Case{{3, 32, 56, 16}, {12, 16, 3, 3, 3}, spec_of({1, 1, 1}, {2, 1, 1}, {0, 1, 1})},
        Case{{1, 1, 700, 64}, {128, 64, 1, 1, 7}, spec_of({1, 1, 1}, {0, 0, 3}, {0, 0, 3})},
        // long rows are cut into tiles
        Case{{1, 1, 40001, 2},
             {3, 2, 1, 1, 7},
             spec_of({1, 1, 1}, {0, 0, 27}, {0, 0, 27}, {1, 1, 9})},
        Case{{1, 1, 70003, 2}, {2, 2, 1, 1, 5}, spec_of({1, 1, 2}, {0, 0, 4}, {0, 0, 1})},
        Case{{1, 1, 20000, 3}, {2, 3, 1, 1, 1}, spec_of({1, 1, 1}, {0, 0, 0}, {0, 0, 0})}));

TEST(Conv, GivesTheSameBitsAgain) {
    const Tensor x = noise({3, 17, 19, 6}, 4);
    const Tensor kernel = noise({11, 6, 3, 3, 3}, 5);
    EXPECT_EQ(values(convolved(x, kernel, {}, {})), values(convolved(x, kernel, {}, {})));
}

TEST(Conv, SaysSoWhenTheShapesDoNotFit) {
    Tensor y({1, 1, 5, 2});
    EXPECT_THROW(cpu_conv(noise({1, 1, 5, 3}, 1), noise({2, 3, 1, 1, 3}, 2), {}, {}, y), Error);
}

TEST(ConvTranspose, ScattersEverySampleOverStridedTaps) {
    const Tensor x = row({3, 1}, {1, 2, 3});
    Tensor y({5, 1});
    cpu_conv_transpose(x, row({1, 1, 3}, {1, 10, 100}), row({1}, {0.5F}), 2, 1, y);
    EXPECT_THAT(values(y), ElementsAre(10.5F, 102.5F, 20.5F, 203.5F, 30.5F));
}

struct TransposeCase {
    Index samples, in, out, width, stride, pad;
};

void PrintTo(const TransposeCase& c, std::ostream* out) {
    *out << fmt::format("{}x{} to {} width {} stride {} pad {}", c.samples, c.in, c.out, c.width,
                        c.stride, c.pad);
}

class ConvTransposeCase : public testing::TestWithParam<TransposeCase> {};

TEST_P(ConvTransposeCase, MatchesTheDefinition) {
    const auto [samples, in, out, width, stride, pad] = GetParam();
    const Tensor x = noise({samples, in}, 6);
    const Tensor kernel = noise({in, out, width}, 7);
    for (const Tensor& bias : {noise({out}, 8), Tensor()}) {
        const Tensor want = scatter(x, kernel, bias, stride, pad);
        Tensor y(want.shape());
        cpu_conv_transpose(x, kernel, bias, stride, pad, y);
        EXPECT_LE(error(y, want), float_sums);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ConvTransposeCase,
    testing::Values(TransposeCase{1, 4, 3, 4, 2, 1}, TransposeCase{37, 6, 4, 16, 8, 4},
                    TransposeCase{50, 3, 5, 7, 3, 2}, TransposeCase{50, 3, 5, 6, 3, 2},
                    TransposeCase{9, 2, 2, 2, 5, 0},  // gaps hold the bias alone
                    TransposeCase{9, 2, 1, 5, 1, 4}, TransposeCase{20001, 2, 2, 4, 2, 1}));

}  // namespace
}  // namespace gallop
