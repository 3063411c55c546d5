#include "core/tensor.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/view.hpp"

namespace gallop {
namespace {

using testing::ElementsAre;

TEST(Shape, CountsItsElements) {
    EXPECT_EQ((Shape{2, 3, 5}).numel(), 30);
    EXPECT_EQ(Shape{}.numel(), 1);
    EXPECT_EQ((Shape{4, 0, 3}).numel(), 0);
    EXPECT_EQ(to_string(Shape{2, 3}), "[2, 3]");
    EXPECT_EQ(to_string(Shape{}), "[]");
    EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
}

TEST(Shape, OverflowIsRefused) {
    constexpr Index most = std::numeric_limits<Index>::max();
    EXPECT_THROW((Shape{most, 2}), Error);
    EXPECT_THROW((Shape{Index{1} << 31, Index{1} << 31, 4}), Error);
    EXPECT_THROW((Shape{0, most, most}), Error);  // a zero hides no overflow
    EXPECT_THROW((Shape{-1}), Error);
    EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), Error);
    EXPECT_NO_THROW((Shape{Index{1} << 30, Index{1} << 29}));
}

TEST(Shape, BytesOfTheLargestDoNotOverflow) {
    const Shape shape{std::numeric_limits<Index>::max() / 8};
    EXPECT_LE(static_cast<std::uint64_t>(shape.numel()) * size_of(DType::i64),
              static_cast<std::uint64_t>(std::numeric_limits<Index>::max()));
}

TEST(Tensor, TooMuchMemoryIsItsOwnError) {
    EXPECT_THROW(Tensor(Shape{Index{1} << 57}, DType::f32), OutOfMemoryError);
}

TEST(Tensor, IsAlignedEvenWhenEmpty) {
    for (const Index n : {0, 1, 17}) {
        const Tensor x(Shape{n}, DType::u8);
        EXPECT_TRUE(x.defined());
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(x.view().raw()) % 64, 0U);
    }
}

TEST(Tensor, MovingEmptiesTheSource) {
    Tensor a = Tensor::of<float>({2}, std::vector<float>{1, 2});
    Tensor b = std::move(a);
    EXPECT_FALSE(a.defined());  // NOLINT(bugprone-use-after-move): the claim
    EXPECT_THAT(b.span<float>(), ElementsAre(1, 2));
    b = Tensor::of<float>({1}, std::vector<float>{3});
    EXPECT_THAT(b.span<float>(), ElementsAre(3));
}

TEST(Tensor, ReadingTheWrongTypeIsRefused) {
    const Tensor x = Tensor::zeros({2}, DType::bf16);
    EXPECT_THROW(x.data<float>(), Error);
    EXPECT_THROW((as<float, 1>(x.view())), Error);
    EXPECT_THROW((as<bf16, 2>(x.view())), Error);
}

TEST(Tensor, RowsAndReshapeLookAtTheSameBytes) {
    Tensor x = Tensor::of<float>({3, 2}, std::vector<float>{0, 1, 2, 3, 4, 5});
    EXPECT_THAT(x.rows(1, 3).span<float>(), ElementsAre(2, 3, 4, 5));
    EXPECT_EQ(x.rows(1, 1).numel(), 0);
    EXPECT_THROW(x.rows(2, 4), Error);
    EXPECT_THROW(x.rows(2, 1), Error);
    EXPECT_EQ(x.view().reshape({2, 3}).raw(), x.view().raw());
    EXPECT_THROW(x.reshape({4}), Error);
    as<float, 2>(x.view())(2, 1) = 9;
    EXPECT_EQ(x.span<float>()[5], 9);
    const Tensor y = x.clone();
    EXPECT_NE(y.view().raw(), x.view().raw());
    EXPECT_THAT(y.span<float>(), ElementsAre(0, 1, 2, 3, 4, 9));
}

TEST(Tensor, ValuesMustFitTheShape) {
    EXPECT_THROW(Tensor::of<float>({3}, std::vector<float>{1, 2}), Error);
}

TEST(Convert, RoundsOnce) {
    const Tensor x = Tensor::of<float>({3}, std::vector<float>{1, 1.00390625F, -3});
    Tensor half(Shape{3}, DType::bf16);
    convert(x, half);
    Tensor back(Shape{3});
    convert(half, back);
    EXPECT_THAT(back.span<float>(), ElementsAre(1, 1, -3));  // a tie goes to the even 1
    Tensor integers(Shape{3}, DType::i32);
    EXPECT_THROW(convert(x, integers), Error);
    Tensor shorter(Shape{2});
    EXPECT_THROW(convert(x, shorter), Error);
}

}  // namespace
}  // namespace gallop
