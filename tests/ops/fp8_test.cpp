#include <gmock/gmock.h>

#include "ops/backend.hpp"
#include "support/expect_near.hpp"

namespace gallop {
using namespace test;
namespace {

using ::testing::ElementsAre;

class Fp8 : public ::testing::Test {
protected:
    struct Rows {
        Tensor q, scales;
    };
    Rows quantised(const Tensor& x, Index width) {
        Rows made{Tensor({x.size(0), width}, DType::f8_e4m3), Tensor({x.size(0)})};
        std::fill_n(made.q.view().raw(), made.q.bytes(), std::byte{0x7f});
        on_.quantise(x, made.q, made.scales);
        return made;
    }
    /// What the codes stand for.
    static std::vector<double> meant(const Rows& rows) {
        std::vector<double> made;
        const Index width = rows.q.size(1);
        for (Index i = 0; i < rows.q.numel(); ++i)
            made.push_back(static_cast<double>(to_float(rows.q.data<f8_e4m3>()[i])) *
                           rows.scales.data<float>()[i / width]);
        return made;
    }

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    Backend& on_ = *backend_;
    RandomValues random_;
};

TEST_F(Fp8, GivesARowTheScaleOfItsLargestValue) {
    // 896/448 = 2. In units of the scale: 448, 1.0625 and 1.1875 (ties between neighbours an eighth
    // apart: to even), 0.0009765625 = 2⁻¹⁰ (a tie between 0 and the least subnormal: to 0), −3.3.
    const Tensor x = values({1, 5}, {896, 2.125F, 2.375F, 0x1p-9F, -6.6F});
    const Rows rows = quantised(x, 7);
    EXPECT_EQ(rows.scales.data<float>()[0], 2);
    EXPECT_THAT(floats(rows.q), ElementsAre(448, 1, 1.25F, 0, -3.25F, 0, 0));
}

TEST_F(Fp8, ScalesEachRowAlone) {
    const Tensor x = values({3, 2}, {448, -224, 0, 0, 0.4375F, 0.21875F});
    const Rows rows = quantised(x, 2);
    EXPECT_THAT(floats(rows.scales), ElementsAre(1, 0x1p-126F, 0x1p-10F));
    EXPECT_THAT(floats(rows.q), ElementsAre(448, -224, 0, 0, 448, 224));
}

TEST_F(Fp8, QuantisesTheSmallestAndTheLargestFloats) {
    const float least = 0x1p-149F;
    const float most = 0x1.fffffep127F;
    const Rows rows = quantised(values({2, 3}, {least, 0, -least, most, 0, -most / 2}), 3);
    for (const float value : floats(rows.q)) EXPECT_FALSE(std::isnan(value));
    EXPECT_EQ(floats(rows.q)[3], 448);
    EXPECT_EQ(floats(rows.q)[5], -224);
}

TEST_F(Fp8, HidesNoNanAndNoInfinity) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    const Rows rows = quantised(values({3, 2}, {nan, 1, inf, 1, 1, 1}), 2);
    const Rows weight = quantised(values({1, 2}, {1, 1}), 2);
    Tensor y({3, 1});
    const std::array<Index, 1> all{3};
    on_.linear_fp8(rows.q, rows.scales, weight.q, weight.scales, all, y);
    EXPECT_TRUE(std::isnan(floats(y)[0]));
    EXPECT_TRUE(std::isnan(floats(y)[1]));
    EXPECT_FLOAT_EQ(floats(y)[2], 2);
}

// Half the distance of neighbours: 2⁻⁴ of a value, or 2⁻¹⁰ scales below 2⁻⁶ of them.
TEST_F(Fp8, IsNeverFurtherThanHalfAPlaceAway) {
    const Tensor x = random_.tensor({17, 203}, 3);
    const Rows rows = quantised(x, 208);
    const auto close = meant(rows);
    for (Index l = 0; l < 17; ++l)
        for (Index i = 0; i < 208; ++i) {
            const double exact = i < 203 ? x.data<float>()[l * 203 + i] : 0;
            const double scale = rows.scales.data<float>()[l];
            ASSERT_LE(std::fabs(close[static_cast<std::size_t>(l * 208 + i)] - exact),
                      std::max(std::fabs(exact) * 0x1p-4, scale * 0x1p-10) * (1 + 1e-6));
        }
}

TEST_F(Fp8, MultipliesRowsByTheirExpertsWeights) {
    // Scales are powers of two, so that everything is exact: row 0 → 1·(1·1 + 2·1), and so on.
    const Rows x = quantised(values({2, 2}, {448, 2, 896, -448}), 2);
    const Rows w = quantised(values({4, 2}, {448, 1, 224, 448, 448, 448, -896, 4}), 2);
    Tensor y({2, 2});
    const std::array<Index, 2> segments{1, 1};
    on_.linear_fp8(x.q, x.scales, w.q, w.scales, segments, y);
    EXPECT_THAT(floats(y),
                ElementsAre(448 * 448 + 2, 448 * 224 + 2 * 448, 448 * 448, -896 * 896 - 448 * 4));
    on_.add_linear_fp8(x.q, x.scales, w.q, w.scales, segments, y);
    EXPECT_THAT(floats(y), ElementsAre(2 * (448 * 448 + 2), 2 * (448 * 224 + 2 * 448),
                                       2 * 448 * 448, 2 * (-896 * 896 - 448 * 4)));
}

// Against the same products in f64, of odd sizes; bf16 results are rounded once.
TEST_F(Fp8, MultipliesAsTheDefinitionSays) {
    for (const auto& [length, depth, out] :
         {std::array<Index, 3>{1, 16, 16}, {5, 203, 77}, {530, 64, 391}}) {
        const Rows x = quantised(random_.tensor({length, depth}), depth + 5);
        const Rows w = quantised(random_.tensor({3 * out, depth}, 0.1F), depth + 5);
        const std::array<Index, 3> segments{length - 1, 0, 1};
        const auto a = meant(x);
        const auto b = meant(w);
        std::vector<float> expected;
        for (Index l = 0; l < length; ++l)
            for (Index n = 0; n < out; ++n) {
                const Index row = l == length - 1 ? 2 * out + n : n;
                double sum = 0;
                for (Index i = 0; i < depth + 5; ++i)
                    sum += a[static_cast<std::size_t>(l * (depth + 5) + i)] *
                           b[static_cast<std::size_t>(row * (depth + 5) + i)];
                expected.push_back(static_cast<float>(sum));
            }
        Tensor wide({length, out});
        on_.linear_fp8(x.q, x.scales, w.q, w.scales, segments, wide);
        expect_near(floats(wide), expected, 2e-6);
        Tensor narrow({length, out}, DType::bf16);
        on_.linear_fp8(x.q, x.scales, w.q, w.scales, segments, narrow);
        EXPECT_EQ(floats(narrow), floats(as_bf16(wide)));
    }
}

TEST_F(Fp8, QuantisesNormsThatWereNotRoundedBefore) {
    const Tensor x = random_.tensor({7, 96}, 2);
    const Tensor gain = random_.tensor({2 * 96});
    const std::array<Index, 2> segments{4, 3};
    Tensor normed(x.shape());
    on_.norm(x, gain, {}, segments, normed);
    const Rows expected = quantised(normed, 112);
    Rows rows{Tensor({7, 112}, DType::f8_e4m3), Tensor({7})};
    on_.norm_quantised(x, gain, {}, segments, rows.q, rows.scales);
    EXPECT_EQ(floats(rows.q), floats(expected.q));
    EXPECT_EQ(floats(rows.scales), floats(expected.scales));
}

TEST_F(Fp8, RefusesWhatDoesNotFit) {
    const Tensor x({4, 8});
    Tensor narrow({4, 7}, DType::f8_e4m3), bytes({4, 8}, DType::u8), scales({4}),
        q({4, 8}, DType::f8_e4m3);
    EXPECT_THROW(on_.quantise(x, narrow, scales), Error);
    EXPECT_THROW(on_.quantise(x, bytes, scales), Error);
    Tensor few({3});
    EXPECT_THROW(on_.quantise(x, q, few), Error);
    Tensor sum({4, 4}, DType::bf16);
    const std::array<Index, 1> all{4};
    EXPECT_THROW(on_.add_linear_fp8(q, scales, q, scales, all, sum), Error)
        << "sums are added in f32";
}

}  // namespace
}  // namespace gallop
