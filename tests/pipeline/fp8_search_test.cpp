#include "pipeline/fp8_search.hpp"

#include <cmath>
#include <numeric>
#include <random>

#include <gmock/gmock.h>

namespace gallop {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// Errors that add in squares, `share` of each, and how often they were asked for.
struct Model {
    std::vector<Fp8Candidate> parts;
    double share = 1;
    int asked = 0;

    double operator()(const std::vector<std::size_t>& chosen) {
        ++asked;
        double squares = 0;
        for (const std::size_t part : chosen) squares += std::pow(parts[part].error, 2);
        return std::sqrt(share * squares);
    }
    Fp8Set within(double limit) {
        return choose_within(
            parts, limit, [this](const std::vector<std::size_t>& some) { return (*this)(some); });
    }
};

// 3² + 4² = 5². By error² over work: part 1 (9 / 9), part 0 (16 / 4), part 2 (100 / 1).
TEST(Fp8Search, TakesWhatGainsMostForItsError) {
    Model model{{{0, 4, 4}, {1, 9, 3}, {2, 1, 10}}};
    EXPECT_THAT(model.within(5).parts, ElementsAre(0, 1));
    EXPECT_DOUBLE_EQ(model.within(5).error, 5);
    EXPECT_THAT(model.within(4.9).parts, ElementsAre(1));
    EXPECT_THAT(model.within(100).parts, ElementsAre(0, 1, 2));
    EXPECT_THAT(model.within(0).parts, IsEmpty());
}

// The third in order does not fit any more (9 + 9 + 64 > 25), the fourth does (9 + 9 + 4).
TEST(Fp8Search, FillsTheRestWithWhatStillFits) {
    Model model{{{0, 100, 3}, {1, 90, 3}, {2, 100, 8}, {3, 5, 2}}};
    EXPECT_THAT(model.within(5).parts, ElementsAre(0, 1, 3));
}

// What is measured counts, not what single errors foretell.
TEST(Fp8Search, BelievesMeasurementsOnly) {
    Model worse{{{0, 4, 4}, {1, 9, 3}, {2, 1, 10}}, 4};  // twice as far off as foretold
    EXPECT_THAT(worse.within(10).parts, ElementsAre(0, 1));
    EXPECT_THAT(worse.within(9.9).parts, ElementsAre(1));
    Model better{{{0, 4, 4}, {1, 9, 3}, {2, 1, 10}}, 0.25};
    EXPECT_THAT(better.within(6).parts, ElementsAre(0, 1, 2));
}

TEST(Fp8Search, ChoosesNothingWhereEvenThatIsTooFarOff) {
    const Fp8Set set = choose_within({{0, 1, 1}}, 0.5, [](const auto&) { return 0.7; });
    EXPECT_THAT(set.parts, IsEmpty());
    EXPECT_EQ(set.error, 0.7);
    const auto broken = [](const auto& parts) { return parts.empty() ? 0.0 : std::nan(""); };
    EXPECT_THAT(choose_within({{0, 1, 1}}, 0.5, broken).parts, IsEmpty());
}

TEST(Fp8Search, HoldsTheLimitAndMeasuresFewSetsOfMany) {
    const auto seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> draw(0.1, 1);
    Model model;
    for (std::size_t part = 0; part < 160; ++part)
        model.parts.push_back({part, draw(random), draw(random)});
    const Fp8Set set = model.within(3);
    EXPECT_LE(set.error, 3);
    EXPECT_EQ(set.error, model(set.parts));
    EXPECT_FALSE(set.parts.empty());
    EXPECT_LT(model.asked, 60);
    const auto work_of = [&](const std::vector<std::size_t>& parts) {
        return std::accumulate(parts.begin(), parts.end(), 0.0, [&](double sum, std::size_t part) {
            return sum + model.parts[part].work;
        });
    };
    std::vector<std::size_t> in_turn;
    while (model(in_turn) <= 3) in_turn.push_back(in_turn.size());
    EXPECT_GT(work_of(set.parts), work_of(in_turn)) << "no better than one after the other";
}

}  // namespace
}  // namespace gallop
