#include "core/ring.hpp"

#include <atomic>
#include <chrono>
#include <optional>
#include <random>
#include <stdexcept>

#include <gtest/gtest.h>

namespace gallop {
namespace {

using Numbers = Ring<int>;

Numbers ring_of(std::size_t slots) { return Numbers(std::vector<int>(slots)); }

void doze(std::mt19937& engine) {
    std::this_thread::sleep_for(std::chrono::microseconds(engine() % 50));
}

TEST(Ring, HandsOverAllInOrderHoweverFastTheSidesAre) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    for (const std::size_t slots : {1, 2, 5}) {
        Numbers ring = ring_of(slots);
        std::atomic<std::size_t> filled{0};
        RingThread<int> filler(ring, [&] {
            std::mt19937 engine(seed);
            for (int i = 0; i < 300; ++i) {
                *ring.to_fill() = i;
                ++filled;
                ring.filled();
                doze(engine);
            }
            ring.finish();
        });
        std::mt19937 engine(seed + 1);
        int expected = 0;
        while (const int* slot = ring.to_empty()) {
            EXPECT_EQ(*slot, expected);
            doze(engine);
            // The slot is still ours, and the filler has had no more than the others.
            EXPECT_EQ(*slot, expected);
            EXPECT_LE(filled, static_cast<std::size_t>(expected) + slots);
            ring.emptied();
            ++expected;
        }
        EXPECT_EQ(expected, 300);
        filler.join();
    }
}

TEST(Ring, LetsSeveralSlotsBeHeld) {
    Numbers ring = ring_of(3);
    for (int i = 1; i <= 3; ++i) {
        *ring.to_fill() = i;
        ring.filled();
    }
    int* first = ring.to_empty();
    int* second = ring.to_empty();
    EXPECT_EQ(*first, 1);
    EXPECT_EQ(*second, 2);
    ring.emptied();
    EXPECT_EQ(ring.to_fill(), first);  // the one held for longest
    ring.finish();
    EXPECT_EQ(*ring.to_empty(), 3);
    EXPECT_EQ(ring.to_empty(), nullptr);
}

TEST(Ring, EndsWithoutASlot) {
    Numbers ring = ring_of(2);
    ring.finish();
    EXPECT_EQ(ring.to_empty(), nullptr);
}

TEST(Ring, WhatTheFillerThrowsReachesTheEmptier) {
    Numbers ring = ring_of(2);
    RingThread<int> filler(ring, [&] {
        ring.to_fill();
        ring.filled();
        throw std::out_of_range("byte 7");
    });
    EXPECT_THROW(
        {
            while (ring.to_empty() != nullptr) ring.emptied();
        },
        std::out_of_range);
    EXPECT_THROW(filler.join(), std::out_of_range);
}

TEST(Ring, WhatTheEmptierThrowsReachesTheFiller) {
    Numbers ring = ring_of(2);
    RingThread<int> emptier(ring, [&] {
        ring.to_empty();
        throw std::out_of_range("disk full");
    });
    EXPECT_THROW(
        {
            for (;;) {
                ASSERT_NE(ring.to_fill(), nullptr);
                ring.filled();
            }
        },
        std::out_of_range);
}

TEST(Ring, WhatIsThrownAfterTheLastSlotIsSeenAtTheEnd) {
    Numbers ring = ring_of(2);
    RingThread<int> emptier(ring, [&] {
        while (ring.to_empty() != nullptr) ring.emptied();
        throw std::out_of_range("cannot close");
    });
    ring.to_fill();
    ring.filled();
    ring.finish();
    EXPECT_THROW(emptier.join(), std::out_of_range);
}

TEST(Ring, LeavingTheScopeWakesWhoWaits) {
    for (const bool fills : {true, false}) {
        Numbers ring = ring_of(1);
        std::atomic<bool> told{false};
        {
            const RingThread<int> waiting(ring, [&] {
                if (fills) {
                    ring.to_fill();
                    ring.filled();
                    told = ring.to_fill() == nullptr;  // nobody empties
                } else {
                    told = ring.to_empty() == nullptr;  // nobody fills
                }
            });
        }
        EXPECT_TRUE(told || fills);  // the filler may have been stopped before its first slot
    }
}

TEST(Ring, AfterAStopNothingIsAFailure) {
    Numbers ring = ring_of(1);
    ring.stop();
    ring.fail(std::make_exception_ptr(std::out_of_range("too late")));
    EXPECT_EQ(ring.to_fill(), nullptr);
    EXPECT_NO_THROW(ring.check());
}

}  // namespace
}  // namespace gallop
