#include "ops/backend.hpp"

#include <gmock/gmock.h>
#include <omp.h>

#include "core/view.hpp"
#include "support/expect_near.hpp"

namespace gallop {
using namespace test;
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Rounding of f32 sums whose order differs from a plain loop's.
constexpr double f32_tolerance = 2e-6;
// One last place of bf16 over the largest value.
constexpr double bf16_tolerance = 1.0 / 128;

class Cpu : public ::testing::Test {
protected:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    Backend& on_ = *backend_;
    RandomValues random_;
};

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

TEST_F(Cpu, PermutesAxesOfAnyDtype) {
    const Tensor x = values({2, 3}, {1, 2, 3, 4, 5, 6});
    Tensor y({3, 2});
    const std::array order{1, 0};
    on_.permute(x, {2, 3}, order, y);
    EXPECT_THAT(floats(y), ElementsAre(1, 4, 2, 5, 3, 6));

    const Tensor big = random_.tensor({4, 3, 5, 2, 7});
    Tensor moved({5, 2, 4, 7, 3});
    const std::array shuffle{2, 3, 0, 4, 1};
    on_.permute(big, big.shape(), shuffle, moved);
    const auto from = as<const float, 5>(big.view());
    const auto to = as<float, 5>(moved.view());
    for (Index a = 0; a < 4; ++a)
        for (Index b = 0; b < 3; ++b)
            for (Index c = 0; c < 5; ++c)
                for (Index d = 0; d < 2; ++d)
                    for (Index e = 0; e < 7; ++e) ASSERT_EQ(to(c, d, a, e, b), from(a, b, c, d, e));

    const Tensor half = as_bf16(x);
    Tensor half_y({3, 2}, DType::bf16);
    on_.permute(half, {2, 3}, order, half_y);
    EXPECT_THAT(floats(half_y), ElementsAre(1, 4, 2, 5, 3, 6));
}

TEST_F(Cpu, RefusesAPermutationThatNamesAnAxisTwice) {
    const Tensor x({2, 3});
    Tensor y({2, 3});
    const std::array order{0, 0};
    EXPECT_THROW(on_.permute(x, {2, 3}, order, y), Error);
}

TEST_F(Cpu, TakesColumnsMeansAndRepeats) {
    const Tensor x = values({2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
    Tensor part({2, 2});
    on_.columns(x, 1, part);
    EXPECT_THAT(floats(part), ElementsAre(2, 3, 6, 7));
    on_.mean_channels(x, 2, part);
    EXPECT_THAT(floats(part), ElementsAre(1.5F, 3.5F, 5.5F, 7.5F));
    Tensor twice({2, 4});
    on_.repeat_channels(part, 2, twice);
    EXPECT_THAT(floats(twice), ElementsAre(1.5F, 1.5F, 3.5F, 3.5F, 5.5F, 5.5F, 7.5F, 7.5F));
}

TEST_F(Cpu, GivesEachRowItsExpertsLinear) {
    const Tensor x = values({2, 2}, {1, 2, 3, 4});
    // Expert 0 sums, expert 1 subtracts.
    const Tensor weight = values({2, 2}, {1, 1, 1, -1});
    const Tensor bias = values({2}, {10, 20});
    Tensor y({2, 1});
    const std::array<Index, 2> segments{1, 1};
    on_.linear(x, weight, bias, segments, y);
    EXPECT_THAT(floats(y), ElementsAre(13, 19));
}

TEST_F(Cpu, MultipliesAnySizeLikeAPlainLoop) {
    // Odd sizes above one tile in both directions.
    const Tensor x = random_.tensor({1030, 37});
    const Tensor weight = random_.tensor({271, 37});
    const Tensor bias = random_.tensor({271});
    Tensor y({1030, 271});
    on_.linear(x, weight, bias, y);
    std::vector<float> expected;
    for (Index i = 0; i < 1030; ++i)
        for (Index n = 0; n < 271; ++n) {
            double sum = bias.span<float>()[static_cast<std::size_t>(n)];
            for (Index k = 0; k < 37; ++k)
                sum += static_cast<double>(x.data<float>()[i * 37 + k]) *
                       weight.data<float>()[n * 37 + k];
            expected.push_back(static_cast<float>(sum));
        }
    expect_near(floats(y), expected, f32_tolerance);

    const Tensor x_half = as_bf16(x);
    const Tensor weight_half = as_bf16(weight);
    Tensor y_half({1030, 271}, DType::bf16);
    on_.linear(x_half, weight_half, bias, y_half);
    expect_near(floats(y_half), expected, 2 * bf16_tolerance);
}

TEST_F(Cpu, ProjectsLikeAPlainLoop) {
    const Tensor x = random_.tensor({5, 203});
    const Tensor weight = random_.tensor({171, 203});
    const Tensor bias = random_.tensor({171});
    Tensor y({5, 171}), expected({5, 171});
    on_.project(x, weight, bias, y);
    on_.linear(x, weight, bias, expected);
    expect_near(floats(y), floats(expected), f32_tolerance);
    on_.project(values({1, 2}, {3, 4}), values({1, 2}, {5, 6}), values({1}, {100}),
                y.rows(0, 1).reshape({171}).rows(0, 1).reshape({1, 1}));
    EXPECT_EQ(floats(y)[0], 139);
}

TEST_F(Cpu, SumsDoNotDependOnTheNumberOfThreads) {
    const Tensor x = random_.tensor({300, 129});
    const Tensor weight = random_.tensor({520, 129});
    const Tensor q = random_.tensor({150, 4, 16});
    const Tensor k = random_.tensor({150, 2, 16});
    Tensor y1({300, 520}), y2({300, 520}), a1({150, 4, 16}), a2({150, 4, 16});
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    on_.linear(x, weight, {}, y1);
    on_.attention(q, k, k, {}, 0.25F, 0, a1);
    omp_set_num_threads(3);
    on_.linear(x, weight, {}, y2);
    on_.attention(q, k, k, {}, 0.25F, 0, a2);
    omp_set_num_threads(threads);
    EXPECT_EQ(floats(y1), floats(y2));
    EXPECT_EQ(floats(a1), floats(a2));
}

TEST_F(Cpu, NormalisesRowsThreeWays) {
    const Tensor x = values({1, 2}, {3, 4});  // mean square 12.5, length 5
    Tensor y({1, 2});
    on_.norm(x, values({2}, {0, 1}), {NormSpec::Kind::rms_offset, 0.0F}, {}, y);
    expect_near(floats(y),
                values({1, 2}, {3 / std::sqrt(12.5F), 8 / std::sqrt(12.5F)}).span<float>(),
                f32_tolerance);
    on_.norm(x, {}, {NormSpec::Kind::rms, 3.5F}, {}, y);
    EXPECT_THAT(floats(y), ElementsAre(0.75F, 1.0F));
    on_.norm(x, values({2}, {1, -1}), {NormSpec::Kind::l2, 1e-12F}, {}, y);
    expect_near(floats(y),
                values({1, 2}, {0.6F * std::sqrt(2.0F), -0.8F * std::sqrt(2.0F)}).span<float>(),
                f32_tolerance);
    on_.norm(x, values({2}, {1, -1}), {NormSpec::Kind::l2, 1e-12F}, {}, y, Activation::relu);
    EXPECT_EQ(floats(y)[1], 0.0F);
}

TEST_F(Cpu, NormalisesInPlaceWithOneExpertPerSegment) {
    Tensor x = values({2, 1}, {2, 2});
    const std::array<Index, 2> segments{1, 1};
    on_.norm(x, values({2}, {0, 1}), {NormSpec::Kind::rms_offset, 0.0F}, segments, x);
    EXPECT_THAT(floats(x), ElementsAre(1, 2));
}

TEST_F(Cpu, AppliesActivations) {
    const Tensor x = values({1, 4}, {-100, -1, 0, 2});
    Tensor y({1, 4});
    on_.activate(x, Activation::silu, y);
    expect_near(
        floats(y),
        values({4}, {0, static_cast<float>(-sigmoid(-1)), 0, static_cast<float>(2 * sigmoid(2))})
            .span<float>(),
        f32_tolerance);
    on_.activate(x, Activation::relu, y);
    EXPECT_THAT(floats(y), ElementsAre(0, 0, 0, 2));
}

TEST_F(Cpu, MatchesTheWorkedValuesOfTheClampedActivations) {
    const Tensor u = values({1, 4}, {8, 9, -8, -9});
    Tensor y({1, 2});
    on_.swiglu7(u, y);
    EXPECT_NEAR(floats(y)[0], 55.99963F, 1e-5);
    EXPECT_NEAR(floats(y)[1], 5.86e-5F, 1e-7);
    const Tensor eight = values({1, 1}, {8});
    Tensor z({1, 1});
    on_.gelu7(eight, z);
    EXPECT_NEAR(floats(z)[0], 6.999953F, 1e-6);
}

TEST_F(Cpu, GatesOneFactorByTheGeluOfTheOther) {
    const Tensor gate = values({1, 3}, {-3, 0.5F, 2});
    const Tensor up = values({1, 3}, {2, 2, 3});
    Tensor y({1, 3});
    on_.geglu(gate, up, false, y);
    for (std::size_t i = 0; i < 3; ++i) {
        const double g = gate.span<float>()[i];
        const double expected = 0.5 * g *
                                (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) *
                                up.span<float>()[i];
        EXPECT_NEAR(floats(y)[i], expected, 1e-6);
    }
}

TEST_F(Cpu, SnakeAddsASquaredSine) {
    const Tensor x = values({1, 2}, {0.5F, -2});
    Tensor y({1, 2});
    on_.snake(x, values({2}, {0, std::log(2.0F)}), values({2}, {0, std::log(4.0F)}), y);
    EXPECT_NEAR(floats(y)[0], 0.5 + std::pow(std::sin(0.5), 2), 1e-6);
    EXPECT_NEAR(floats(y)[1], -2 + std::pow(std::sin(4.0), 2) / 4, 1e-6);
}

TEST_F(Cpu, SplitsNormalisesAndRotatesHeads) {
    // One token, H = 2, G = 1, K = 4, one angle: dimensions 0 and 1 turn, 2 and 3 stay.
    const Tensor u = values({1, 17}, {1, 1, 1, 1, 2, 0, 0, 0, 0, 2, 0, 0, 5, 6, 7, 8, 9});
    const Tensor ones = values({4}, {0, 0, 0, 1});
    const Tensor rope = values({1, 2}, {1, 0});  // sine 1, cosine 0: a quarter turn
    Tensor q({1, 2, 4}), k({1, 1, 4}), v({1, 1, 4});
    const std::array<Index, 1> segments{1};
    on_.split_qkv(u, ones, ones, {NormSpec::Kind::rms_offset, 0.0F}, segments, rope, q, k, v);
    EXPECT_THAT(floats(q), ElementsAre(-1, 1, 1, 2, 0, 2, 0, 0));
    EXPECT_THAT(floats(k), ElementsAre(-2, 0, 0, 0));
    EXPECT_THAT(floats(v), ElementsAre(5, 6, 7, 8));
}

/// Attention by definition: `allowed(i, j)` says whether query i sees key j.
template <class Allowed>
std::vector<float> attention_by_definition(const Tensor& q, const Tensor& k, const Tensor& v,
                                           float scale, float cap, const Allowed& allowed) {
    const auto qs = as<const float, 3>(q.view());
    const auto ks = as<const float, 3>(k.view());
    const auto vs = as<const float, 3>(v.view());
    std::vector<float> out;
    for (Index i = 0; i < qs.shape[0]; ++i)
        for (Index h = 0; h < qs.shape[1]; ++h) {
            const Index g = h / (qs.shape[1] / ks.shape[1]);
            std::vector<double> weights(static_cast<std::size_t>(ks.shape[0]), 0.0);
            double sum = 0;
            for (Index j = 0; j < ks.shape[0]; ++j) {
                if (!allowed(i, j)) continue;
                double s = 0;
                for (Index d = 0; d < qs.shape[2]; ++d)
                    s += static_cast<double>(qs(i, h, d)) * ks(j, g, d);
                s *= scale;
                if (cap > 0) s = cap * std::tanh(s / cap);
                sum += weights[static_cast<std::size_t>(j)] = std::exp(s);
            }
            for (Index d = 0; d < qs.shape[2]; ++d) {
                double value = 0;
                for (Index j = 0; j < ks.shape[0]; ++j)
                    value += weights[static_cast<std::size_t>(j)] / sum * vs(j, g, d);
                out.push_back(static_cast<float>(value));
            }
        }
    return out;
}

TEST_F(Cpu, AttendsLikeTheDefinition) {
    const Tensor q = random_.tensor({97, 6, 24});
    const Tensor k = random_.tensor({131, 2, 24});
    const Tensor v = random_.tensor({131, 2, 24});
    Tensor y(q.shape());
    const auto all = [](Index, Index) { return true; };
    on_.attention(q, k, v, {}, 0.3F, 0, y);
    expect_near(floats(y), attention_by_definition(q, k, v, 0.3F, 0, all), f32_tolerance);
    on_.attention(q, k, v, {}, 0.3F, 2.0F, y);
    expect_near(floats(y), attention_by_definition(q, k, v, 0.3F, 2.0F, all), f32_tolerance);

    const Tensor q_half = as_bf16(q), k_half = as_bf16(k), v_half = as_bf16(v);
    Tensor y_half(q.shape(), DType::bf16);
    on_.attention(q_half, k_half, v_half, {}, 0.3F, 0, y_half);
    expect_near(floats(y_half), attention_by_definition(q, k, v, 0.3F, 0, all), 4 * bf16_tolerance);
}

TEST_F(Cpu, FrameLocalAttentionIsOneSoftmaxOverTheUnion) {
    const Index frames = 5, per_frame = 3, rest = 4, radius = 1;
    const Index tokens = frames * per_frame + rest;
    const Tensor q = random_.tensor({tokens, 2, 8});
    const Tensor k = random_.tensor({tokens, 1, 8});
    const Tensor v = random_.tensor({tokens, 1, 8});
    Tensor y(q.shape());
    on_.attention(q, k, v, {AttentionMask::Kind::frames, frames, per_frame, radius}, 0.5F, 0, y);
    const auto allowed = [&](Index i, Index j) {
        const Index video = frames * per_frame;
        return i >= video || j >= video || std::abs(i / per_frame - j / per_frame) <= radius;
    };
    expect_near(floats(y), attention_by_definition(q, k, v, 0.5F, 0, allowed), f32_tolerance);
}

TEST_F(Cpu, WindowAttentionSeesBothSides) {
    const Tensor q = random_.tensor({150, 2, 8});
    const Tensor k = random_.tensor({150, 2, 8});
    Tensor y(q.shape());
    on_.attention(q, k, k, {AttentionMask::Kind::window, 0, 0, 3}, 0.5F, 0, y);
    const auto allowed = [](Index i, Index j) { return std::abs(i - j) < 3; };
    expect_near(floats(y), attention_by_definition(q, k, k, 0.5F, 0, allowed), f32_tolerance);
}

TEST_F(Cpu, GatesHeadsBySigmoid) {
    Tensor o = values({1, 2, 2}, {1, 2, 3, 4});
    on_.gate_heads(o, values({1, 3}, {9, 0, 100}), 1);
    EXPECT_THAT(floats(o), ElementsAre(0.5F, 1.0F, 3.0F, 4.0F));
}

TEST_F(Cpu, EmbedsAndNamesATokenOutsideTheTable) {
    const Tensor table = values({2, 2}, {1, 2, 3, 4});
    Tensor y({2, 2});
    const std::array<std::int32_t, 2> ids{1, 0};
    on_.embed(table, ids, 2.0F, y);
    EXPECT_THAT(floats(y), ElementsAre(6, 8, 2, 4));
    const std::array<std::int32_t, 2> outside{0, 2};
    try {
        on_.embed(table, outside, 1.0F, y);
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("token id 2"));
    }
}

TEST_F(Cpu, UpsamplesWithCornersAligned) {
    const Tensor x = values({1, 1, 2, 2}, {0, 1, 2, 3});
    Tensor y({1, 1, 3, 3});
    on_.upsample_bilinear(x, y);
    EXPECT_THAT(floats(y), ElementsAre(0, 0.5F, 1, 1, 1.5F, 2, 2, 2.5F, 3));
    Tensor doubled({1, 2, 4, 1});
    on_.upsample_nearest(values({1, 1, 2, 1}, {5, 6}), TensorView(doubled).reshape({1, 2, 4, 1}));
    EXPECT_THAT(floats(doubled), ElementsAre(5, 5, 6, 6, 5, 5, 6, 6));
}

TEST_F(Cpu, CombinesGuidesAndOverwritesLatents) {
    Tensor x = values({1, 2, 1, 1}, {1, 2});
    const Tensor y = values({1, 2, 1, 1}, {3, 5});
    const std::array<float, 2> scales{2, 10};
    Tensor guided(x.shape());
    on_.guide(x, y, scales, guided);
    EXPECT_THAT(floats(guided), ElementsAre(5, 32));
    const std::array<Term, 2> terms{{{2.0F, x}, {-1.0F, y}}};
    on_.combine(terms, x);
    EXPECT_THAT(floats(x), ElementsAre(-1, -1));
    on_.set_first_frame(values({1, 1, 1, 1}, {7}), x);
    EXPECT_THAT(floats(x), ElementsAre(7, -1));
}

TEST_F(Cpu, TruncatesPicturesToEightBits) {
    const Tensor x = values({1, 1, 2, 3}, {-2, -1, 0, 0.9999F, 1, NAN});
    Tensor y({1, 1, 2, 3}, DType::u8);
    on_.to_rgb8(x, y);
    const auto pixels = y.span<std::uint8_t>();
    EXPECT_THAT(std::vector<int>(pixels.begin(), pixels.end()),
                ElementsAre(0, 0, 127, 254, 255, 0));
}

TEST_F(Cpu, DrawsTheSameNoiseInOnePieceAndInMany) {
    const NoiseStream stream(7, "video");
    Tensor whole({100000});
    on_.normal(stream, 0, whole);
    Tensor part({1000});
    on_.normal(stream, 54321, part);
    EXPECT_TRUE(std::equal(part.span<float>().begin(), part.span<float>().end(),
                           whole.span<float>().begin() + 54321));
}

TEST_F(Cpu, FindsAValueThatIsNotFinite) {
    Tensor x = random_.tensor({10, 10});
    EXPECT_TRUE(on_.all_finite(x));
    x.data<float>()[57] = INFINITY;
    EXPECT_FALSE(on_.all_finite(x));
}

TEST_F(Cpu, NamesShapesThatDoNotFit) {
    const Tensor x({2, 3}), weight({4, 5});
    Tensor y({2, 4});
    try {
        on_.linear(x, weight, {}, y);
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("linear from [2, 3] to [2, 4] by [4, 5]"));
    }
}

}  // namespace
}  // namespace gallop
