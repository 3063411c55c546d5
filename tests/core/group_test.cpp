#include "core/group.hpp"

#include <thread>

#include <gmock/gmock.h>

#include "support/temporary_folder.hpp"

namespace gallop {
namespace {

using namespace std::chrono_literals;
using test::TemporaryFolder;
using ::testing::Each;
using ::testing::HasSubstr;

/// Runs `work(group)` as each member, a thread each; rethrows nothing: work must catch.
template <class Make, class Work>
void as_members(int size, const Make& make, const Work& work) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank)
        threads.emplace_back([&, rank] {
            const std::unique_ptr<Group> group = make(rank);
            work(*group);
        });
    for (std::thread& thread : threads) thread.join();
}

/// Two sums over `size` members of an array whose length does not divide; every member's results.
template <class Make>
std::vector<std::vector<float>> two_sums(int size, const Make& make) {
    std::vector<std::vector<float>> results(static_cast<std::size_t>(size));
    as_members(size, make, [&](Group& group) {
        EXPECT_EQ(group.size(), size);
        Tensor x({101});
        for (Index i = 0; i < 101; ++i)
            x.data<float>()[i] = static_cast<float>(i) + 1000.0F * static_cast<float>(group.rank());
        group.sum(x);
        group.sum(x);
        const auto values = x.span<float>();
        results[static_cast<std::size_t>(group.rank())].assign(values.begin(), values.end());
    });
    return results;
}

void expect_two_sums(const std::vector<std::vector<float>>& results) {
    // Σ (i + 1000 r) over r < n, taken n times: exact in f32.
    const auto n = static_cast<float>(results.size());
    for (std::size_t i = 0; i < 101; ++i)
        EXPECT_EQ(results[0][i], n * (n * static_cast<float>(i) + 1000.0F * n * (n - 1) / 2)) << i;
    EXPECT_THAT(results, Each(results[0]));
}

/// Two members of whom the second comes later to the first sum than the group's patience.
template <class Make>
void expect_late_member_is_awaited(const Make& make, std::chrono::milliseconds late) {
    as_members(2, make, [&](Group& group) {
        Tensor x = Tensor::zeros({4});
        group.allow_late(10s);
        if (group.rank() == 1) std::this_thread::sleep_for(late);
        EXPECT_NO_THROW(group.sum(x));
        if (group.rank() == 1) return std::this_thread::sleep_for(2 * late);
        EXPECT_THROW(group.sum(x), GroupError) << "only one sum may be late";
    });
}

TEST(ThreadGroup, SumsForEveryMember) {
    for (const int size : {1, 2, 3, 8}) {
        auto members = make_thread_group(size, 10s);
        expect_two_sums(two_sums(
            size, [&](int rank) { return std::move(members[static_cast<std::size_t>(rank)]); }));
    }
}

TEST(ThreadGroup, EndsTheOthersWhenAMemberLeaves) {
    auto members = make_thread_group(3, 10s);
    members[2].reset();
    as_members(
        2, [&](int rank) { return std::move(members[static_cast<std::size_t>(rank)]); },
        [](Group& group) {
            Tensor x = Tensor::zeros({4});
            EXPECT_THROW(group.sum(x), GroupError);
        });
}

TEST(ThreadGroup, TiresOfASilentMember) {
    auto members = make_thread_group(2, 50ms);
    Tensor x = Tensor::zeros({4});
    try {
        members[0]->sum(x);
        FAIL();
    } catch (const GroupError& silent) {
        EXPECT_THAT(silent.what(), HasSubstr("silent for 50 ms"));
    }
}

TEST(ThreadGroup, AwaitsALateMemberWhereThatIsAllowed) {
    auto members = make_thread_group(2, 100ms);
    expect_late_member_is_awaited(
        [&](int rank) { return std::move(members[static_cast<std::size_t>(rank)]); }, 300ms);
}

TEST(ThreadGroup, RefusesArraysOfDifferentSizes) {
    auto members = make_thread_group(2, 10s);
    as_members(
        2, [&](int rank) { return std::move(members[static_cast<std::size_t>(rank)]); },
        [](Group& group) {
            Tensor x = Tensor::zeros({4 + group.rank()});
            EXPECT_THROW(group.sum(x), GroupError);
        });
}

/// Skips where the program was built without Gloo.
class GlooGroup : public ::testing::Test {
protected:
    void SetUp() override {
        try {
            make_gloo_group({0, 1, TemporaryFolder().path(), 1s});
        } catch (const InputError& without) {
            GTEST_SKIP() << without.what();
        }
    }
};

TEST_F(GlooGroup, SumsForEveryMember) {
    for (const int size : {2, 4}) {
        const TemporaryFolder folder;
        expect_two_sums(two_sums(size, [&](int rank) {
            return make_gloo_group({rank, size, folder.path(), 20s});
        }));
    }
}

TEST_F(GlooGroup, EndsTheOthersWhenAMemberLeaves) {
    const TemporaryFolder folder;
    as_members(
        2,
        [&](int rank) {
            return make_gloo_group({rank, 2, folder.path(), 3s});
        },
        [](Group& group) {
            Tensor x = Tensor::zeros({4});
            group.sum(x);
            if (group.rank() == 1) return;
            EXPECT_THROW(group.sum(x), GroupError);
            EXPECT_THROW(group.sum(x), GroupError);
        });
}

TEST_F(GlooGroup, AwaitsALateMemberWhereThatIsAllowed) {
    const TemporaryFolder folder;
    expect_late_member_is_awaited(
        [&](int rank) {
            return make_gloo_group({rank, 2, folder.path(), 1s});
        },
        1500ms);
}

TEST_F(GlooGroup, TiresOfMembersThatDoNotCome) {
    const TemporaryFolder folder;
    EXPECT_THROW(make_gloo_group({0, 2, folder.path(), 200ms}), GroupError);
}

}  // namespace
}  // namespace gallop
