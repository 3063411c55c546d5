#include "farm/coordinator_ledger.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "farm/coordinator_estimates.hpp"
#include "tests/farm/coordinator_case.hpp"

namespace gallop::coordinator {
namespace {

using namespace test;

TEST(Ledger, TakesAnyPrefixAndOpensAgainWhatIsRetried) {
    Ledger ledger(items({1, 2}));
    using What = Record::What;
    ledger.apply({.what = What::failed, .item = 0, .kind = FailureKind::error, .host = "a"});
    ledger.apply({.what = What::failed, .item = 0, .kind = FailureKind::disk, .host = "b"});
    ledger.apply({.what = What::failed, .item = 0, .kind = FailureKind::crash, .host = "b"});
    ASSERT_NE(ledger.trouble(0), nullptr);
    EXPECT_EQ(ledger.trouble(0)->hosts(), 2);
    EXPECT_EQ(ledger.trouble(0)->tries(), 2);
    ledger.apply({.what = What::drained, .host = "b"});
    EXPECT_EQ(ledger.trouble(0)->hosts(), 1);
    EXPECT_EQ(ledger.trouble(0)->tries(), 2) << "tries keep their numbers";
    ledger.apply({.what = What::quarantined, .item = 0});
    EXPECT_EQ(ledger.quarantined(), 1U);
    ledger.apply({.what = What::retry, .item = 0});
    EXPECT_EQ(ledger.open(), 2U);
    EXPECT_EQ(ledger.trouble(0), nullptr);
    ledger.apply({.what = What::failed, .item = 0, .kind = FailureKind::error, .host = "a"});
    ledger.apply({.what = What::retry, .item = 0});
    EXPECT_EQ(ledger.trouble(0), nullptr) << "an item need not be given up to be retried";
    ledger.apply({.what = What::done, .item = 0, .seconds = 3});
    ledger.apply({.what = What::done, .item = 0, .seconds = 3});
    ledger.apply({.what = What::done, .item = 9});
    EXPECT_EQ(ledger.done(), 1U);
    EXPECT_DOUBLE_EQ(ledger.gpu_seconds(), 3);
    ledger.apply({.what = What::retry, .item = 0});
    EXPECT_EQ(ledger.done(), 1U) << "nothing is retried that is done";
    ledger.apply({.what = What::reopened, .item = 0});
    EXPECT_EQ(ledger.done(), 0U);
    EXPECT_EQ(ledger.open(), 2U);
    EXPECT_DOUBLE_EQ(ledger.cost_done(), 0);
    ledger.apply({.what = What::quarantined, .item = 0});
    EXPECT_EQ(ledger.quarantined(), 1U);
}

TEST(Estimates, LearnsBucketsAndHosts) {
    Estimates estimates(2);
    // Bucket 0 takes twice, bucket 1 three times what was planned; host 1 is half as fast as host 0.
    for (int i = 0; i < 50; ++i) {
        estimates.measured(0, 0, 10, 20);
        estimates.measured(1, 0, 10, 30);
        estimates.measured(0, 1, 10, 40);
    }
    const auto predicted = [&](std::uint16_t bucket, HostIndex host) {
        return 10 * estimates.factor(bucket) / estimates.speed(host);
    };
    EXPECT_NEAR(predicted(0, 0), 20, 0.5);
    EXPECT_NEAR(predicted(1, 0), 30, 0.5);
    EXPECT_NEAR(predicted(0, 1), 40, 1);
    EXPECT_NEAR(predicted(1, 1), 60, 6);  // never measured
    estimates.measured(0, 0, 10, std::nan(""));
    estimates.measured(0, 0, 10, -1);
    EXPECT_NEAR(predicted(0, 0), 20, 0.5);
}

}  // namespace
}  // namespace gallop::coordinator
