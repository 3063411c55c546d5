#include "core/arena.hpp"

#include <cstring>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gallop {
namespace {

using testing::Optional;

TEST(Arena, PutsArraysOneBehindTheOtherAtMultiplesOf256) {
    Arena arena(1024);
    EXPECT_TRUE(arena.empty());
    EXPECT_THAT(arena.take(1), Optional(0U));
    EXPECT_THAT(arena.take(256), Optional(256U));
    EXPECT_EQ(arena.extent(), 512U);
    EXPECT_THAT(arena.take(257), Optional(512U));
    EXPECT_EQ(arena.take(0), std::nullopt);  // an empty array needs an address, too
    EXPECT_EQ(arena.extent(), 1024U);
    EXPECT_FALSE(arena.empty());
}

TEST(Arena, TakesTheFirstGapThatIsWideEnough) {
    Arena arena(4096);
    for (const std::size_t bytes : {256, 256, 512, 256, 2816}) arena.take(bytes);
    arena.give_back(0, 256);
    arena.give_back(512, 512);  // gaps of 256 at 0 and of 512 at 512
    EXPECT_THAT(arena.take(300), Optional(512U));
    EXPECT_THAT(arena.take(200), Optional(0U));
    EXPECT_EQ(arena.take(1), std::nullopt);
}

TEST(Arena, JoinsGapsThatTouch) {
    Arena arena(768);
    for (int i = 0; i < 3; ++i) arena.take(256);
    arena.give_back(256, 256);
    arena.give_back(0, 256);
    EXPECT_EQ(arena.take(768), std::nullopt);
    EXPECT_THAT(arena.take(512), Optional(0U));
    arena.give_back(0, 512);
    arena.give_back(512, 256);
    EXPECT_THAT(arena.take(768), Optional(0U));
}

TEST(Arena, HasNoPlaceForMoreThanThereIs) {
    EXPECT_EQ(Arena(0).take(1), std::nullopt);
    EXPECT_EQ(Arena(255).take(1), std::nullopt);
    Arena arena(1000);  // three whole places
    EXPECT_EQ(arena.take(769), std::nullopt);
    EXPECT_EQ(arena.take(~std::size_t{0}), std::nullopt);
    EXPECT_THAT(arena.take(768), Optional(0U));
}

/// Requests drawn anew in every run: no two arrays ever share a byte, nothing is lost, and the same
/// requests get the same places.
TEST(Arena, LendsEveryByteOnceWhateverTheOrder) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    constexpr std::size_t capacity = 1 << 16;
    struct Lent {
        std::size_t place, bytes;
        std::uint8_t mark;
    };
    const auto run = [&] {
        std::mt19937 engine(seed);
        const auto below = [&](std::size_t most) { return engine() % most; };
        std::vector<std::uint8_t> block(capacity, 0);
        std::vector<std::size_t> places;
        std::vector<Lent> lent;
        Arena arena(capacity);
        for (int i = 0; i < 4000; ++i) {
            if (below(2) == 0 || lent.empty()) {
                const std::size_t bytes = below(3) == 0 ? below(12000) : below(900);
                const auto place = arena.take(bytes);
                if (!place) continue;
                places.push_back(*place);
                EXPECT_EQ(*place % Arena::alignment, 0U);
                EXPECT_LE(*place + bytes, capacity);
                EXPECT_LE(*place + bytes, arena.extent());
                for (std::size_t b = 0; b < bytes; ++b) EXPECT_EQ(block[*place + b], 0);
                const auto mark = static_cast<std::uint8_t>(1 + below(255));
                std::memset(block.data() + *place, mark, bytes);
                lent.push_back({*place, bytes, mark});
            } else {
                const std::size_t which = below(lent.size());
                const Lent back = lent[which];
                for (std::size_t b = 0; b < back.bytes; ++b)
                    EXPECT_EQ(block[back.place + b], back.mark);
                std::memset(block.data() + back.place, 0, back.bytes);
                arena.give_back(back.place, back.bytes);
                lent[which] = lent.back();
                lent.pop_back();
            }
            if (testing::Test::HasFailure()) return places;
        }
        for (const Lent& back : lent) arena.give_back(back.place, back.bytes);
        EXPECT_TRUE(arena.empty());
        EXPECT_THAT(arena.take(capacity), Optional(0U));  // one gap again
        return places;
    };
    EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace gallop
