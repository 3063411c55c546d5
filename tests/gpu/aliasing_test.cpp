#include <array>
#include <functional>

#include "gpu/judged.hpp"

// Ops whose output may be an input give the same bits there as in an array of its own. (Those that have no
// other form are compared with the CPU's.)

namespace gallop {
using namespace test;
namespace {

class Aliasing : public Judged {
protected:
    using Op = std::function<void(ConstTensorView x, TensorView y)>;

    /// From any address, `skip` elements after an aligned one.
    void in_place_as_elsewhere(DType dtype, const Shape& shape, const Op& op) {
        const Index n = shape.numel();
        for (const Index skip : {0, 1, 4}) {
            const Tensor drawn = random_.tensor({skip + n + 9}, 3.0F);
            const Tensor host = dtype == DType::f32 ? drawn.clone() : as_bf16(drawn);
            const Tensor x = judged_->upload(host);
            Tensor elsewhere = judged_->upload(host);
            Tensor in_place = judged_->upload(host);
            const auto part = [&](auto& of) { return of.rows(skip, skip + n).reshape(shape); };
            op(part(x), part(elsewhere));
            op(part(in_place), part(in_place));
            EXPECT_EQ(floats(judged_->download(in_place)), floats(judged_->download(elsewhere)))
                << n << " " << name_of(dtype) << " from element " << skip;
            EXPECT_NE(floats(judged_->download(in_place)), floats(host));
        }
    }

    RandomValues random_;
};
INSTANTIATE_TEST_SUITE_P(On, Aliasing, ::testing::ValuesIn(judged_backends()),
                         [](const auto& of) { return of.param; });

TEST_P(Aliasing, Activates) {
    for (const DType dtype : {DType::f32, DType::bf16})
        for (const Activation activation : {Activation::silu, Activation::relu, Activation::elu,
                                            Activation::tanh, Activation::clamp})
            for (const Index n : {64, 1000, 13652, 100'003})
                in_place_as_elsewhere(dtype, {n}, [&](ConstTensorView x, TensorView y) {
                    judged_->activate(x, activation, y);
                });
}

// Velocities are f32.
TEST_P(Aliasing, Guides) {
    const Tensor other = judged_->upload(random_.tensor({3, 5, 7, 33}));
    const std::array scales{1.0F, 2.5F, 5.0F, 0.5F, -1.0F};
    const Shape& shape = other.shape();
    in_place_as_elsewhere(DType::f32, shape, [&](ConstTensorView negative, TensorView y) {
        judged_->guide(negative, other, scales, y);
    });
    in_place_as_elsewhere(DType::f32, shape, [&](ConstTensorView positive, TensorView y) {
        judged_->guide(other, positive, scales, y);
    });
}

// Latents are f32.
TEST_P(Aliasing, ScalesAndShiftsChannels) {
    for (const Index channels : {1, 3, 8, 48}) {
        const Tensor scale = judged_->upload(random_.tensor({channels}));
        const Tensor shift = judged_->upload(random_.tensor({channels}));
        in_place_as_elsewhere(
            DType::f32, {5, 7, 33, channels},
            [&](ConstTensorView x, TensorView y) { judged_->affine_channels(x, scale, shift, y); });
    }
}

}  // namespace
}  // namespace gallop
