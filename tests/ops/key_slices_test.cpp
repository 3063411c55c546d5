#include "ops/key_slices.hpp"

#include <numeric>

#include <gmock/gmock.h>

#include "support/expect_near.hpp"

namespace gallop {
using namespace test;
namespace {

AttentionMask frames(Index count, Index per_frame, Index radius) {
    return {AttentionMask::Kind::frames, count, per_frame, radius};
}

/// The original row of each laid out one.
std::vector<Index> laid_out(const KeySlices& plan) {
    std::vector<Index> rows(static_cast<std::size_t>(plan.rows), -1);
    for (const KeySlices::Copy& copy : plan.copies)
        for (Index i = 0; i < copy.rows; ++i) {
            EXPECT_EQ(rows.at(static_cast<std::size_t>(copy.to + i)), -1) << "written twice";
            rows[static_cast<std::size_t>(copy.to + i)] = copy.from + i;
        }
    return rows;
}

/// How often the rest stands among the laid out keys.
Index copies_of_rest(const KeySlices& plan, Index video) {
    Index copies = 0;
    for (const Index row : laid_out(plan)) copies += row == video ? 1 : 0;
    return copies;
}

// The definition of the mask, key by key, for every frame of every length up to 130.
TEST(KeySlices, ShowEachFrameItsKeysExactlyOnce) {
    constexpr Index per_frame = 2;
    for (const Index rest : {0, 3})
        for (const Index radius : {0, 1, 2, 5, 11, 40, 129, 1000})
            for (Index count = 1; count <= 130; ++count) {
                SCOPED_TRACE(testing::Message()
                             << count << " frames, radius " << radius << ", rest " << rest);
                const Index video = count * per_frame;
                const KeySlices plan =
                    plan_key_slices(frames(count, per_frame, radius), video + rest);
                const std::vector<Index> rows = laid_out(plan);
                Index query = 0;
                for (const KeySlices::Slice& slice : plan.slices) {
                    ASSERT_EQ(slice.query, query);
                    query += slice.queries;
                    std::vector<Index> seen;
                    for (Index key = slice.key; key < slice.key + slice.keys; ++key)
                        seen.push_back(slice.laid_out ? rows.at(static_cast<std::size_t>(key))
                                                      : key);
                    std::sort(seen.begin(), seen.end());
                    for (Index q = slice.query; q < query; q += q < video ? per_frame : 1) {
                        const Index frame = q / per_frame;
                        std::vector<Index> expected;
                        for (Index key = 0; key < video + rest; ++key)
                            if (q >= video || key >= video ||
                                std::abs(key / per_frame - frame) <= radius)
                                expected.push_back(key);
                        ASSERT_EQ(seen, expected) << "query " << q;
                    }
                }
                ASSERT_EQ(query, video + rest);
            }
}

TEST(KeySlices, CopyTheRestNoOftenerThanNeeded) {
    const auto copies = [](Index count, Index radius) {
        return copies_of_rest(plan_key_slices(frames(count, 1, radius), count + 1), count);
    };
    EXPECT_EQ(copies(32, 11), 2);
    EXPECT_EQ(copies(63, 11), 3);
    EXPECT_EQ(copies(12, 11), 1);
    // Against every set of boundaries of a short sequence: the least that serves all windows.
    for (Index count = 1; count <= 11; ++count)
        for (Index radius = 0; radius <= 4; ++radius) {
            Index least = count + 1;
            for (unsigned set = 1; set < 1U << (count + 1); ++set) {
                bool serves = true;
                for (Index frame = 0; frame < count && serves; ++frame) {
                    const Index first = std::max<Index>(0, frame - radius);
                    const Index end = std::min(count, frame + radius + 1);
                    int inside = 0;
                    bool at_an_end = false;
                    for (Index b = first; b <= end; ++b) {
                        const bool stands = (set >> b & 1U) != 0;
                        if (stands && b > first && b < end) ++inside;
                        if (stands && (b == first || b == end)) at_an_end = true;
                    }
                    serves = inside == 1 || (inside == 0 && at_an_end);
                }
                if (serves) least = std::min<Index>(least, __builtin_popcount(set));
            }
            EXPECT_EQ(copies(count, radius), least) << count << " frames, radius " << radius;
        }
}

TEST(KeySlices, MoveNothingWhereEveryFrameSeesAll) {
    const KeySlices plan = plan_key_slices(frames(7, 5, 6), 41);
    ASSERT_EQ(plan.copies.size(), 1U);
    EXPECT_EQ(plan.copies[0].from, 0);
    EXPECT_EQ(plan.rows, 41);
    EXPECT_EQ(plan.slices.size(), 2U) << "the frames together, and the rest";
}

// At 1080p most of a video's frames see keys of the same number: few plans serve all.
TEST(KeySlices, HaveFewShapes) {
    std::vector<Index> keys;
    for (const KeySlices::Slice& slice :
         plan_key_slices(frames(32, 2040, 11), 32 * 2040 + 526).slices)
        if (std::find(keys.begin(), keys.end(), slice.keys) == keys.end())
            keys.push_back(slice.keys);
    EXPECT_LE(keys.size(), 13U);
}

// Through the slices, by dense attention alone, against the masked attention.
TEST(KeySlices, GiveWhatTheMaskGives) {
    const auto on = make_cpu_backend();
    RandomValues random;
    constexpr Index heads = 4, groups = 2, size = 16;
    for (const auto& [count, per_frame, radius, rest] :
         {std::array<Index, 4>{7, 6, 2, 5}, {13, 3, 1, 9}, {5, 4, 0, 1}, {9, 4, 20, 3}}) {
        const Index length = count * per_frame + rest;
        const Tensor q = random.tensor({length, heads, size});
        const Tensor k = random.tensor({length, groups, size});
        const Tensor v = random.tensor({length, groups, size});
        const AttentionMask mask = frames(count, per_frame, radius);
        Tensor expected(q.shape());
        on->attention(q, k, v, mask, 0.25F, 0, expected);

        const KeySlices plan = plan_key_slices(mask, length);
        Tensor laid_k({plan.rows, groups, size});
        Tensor laid_v({plan.rows, groups, size});
        for (const KeySlices::Copy& copy : plan.copies) {
            on->copy(k.rows(copy.from, copy.from + copy.rows),
                     laid_k.rows(copy.to, copy.to + copy.rows));
            on->copy(v.rows(copy.from, copy.from + copy.rows),
                     laid_v.rows(copy.to, copy.to + copy.rows));
        }
        Tensor actual(q.shape());
        for (const KeySlices::Slice& s : plan.slices) {
            const Tensor& keys = s.laid_out ? laid_k : k;
            const Tensor& values = s.laid_out ? laid_v : v;
            on->attention(q.view().rows(s.query, s.query + s.queries),
                          keys.view().rows(s.key, s.key + s.keys),
                          values.view().rows(s.key, s.key + s.keys), {}, 0.25F, 0,
                          actual.rows(s.query, s.query + s.queries));
        }
        expect_near(floats(actual), floats(expected), 5e-6);
    }
}

}  // namespace
}  // namespace gallop
