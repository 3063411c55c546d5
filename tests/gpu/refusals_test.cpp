#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "core/memory_use.hpp"
#include "emulation/cublaslt.hpp"
#include "emulation/cudnn.hpp"
#include "ops/cuda_backend.hpp"
#include "ops/cuda_gemm.hpp"
#include "support/expect_near.hpp"

// What the engine does where a library refuses a call that others of its versions take; only an emulated one
// refuses on request.

namespace gallop {
using namespace test;
namespace {

class CublasltRefuses : public ::testing::Test {
protected:
    struct Rows {
        Tensor q, scales;
    };
    Rows quantised(const Shape& shape, float scale) {
        Rows made{Tensor(shape, DType::f8_e4m3), Tensor({shape[0]})};
        cpu_->quantise(random_.tensor(shape, scale), made.q, made.scales);
        return made;
    }

    void TearDown() override { emulation::refusals() = {}; }

    /// y = x·wᵀ, or y + x·wᵀ.
    Tensor multiplied(Backend& on, bool add) {
        Tensor y = add ? on.upload(before_) : on.empty(before_.shape());
        const Tensor q = on.upload(x_.q), x_scales = on.upload(x_.scales);
        const Tensor weight = on.upload(w_.q), w_scales = on.upload(w_.scales);
        if (add)
            on.add_linear_fp8(q, x_scales, weight, w_scales, segments_, y);
        else
            on.linear_fp8(q, x_scales, weight, w_scales, segments_, y);
        return on.download(y);
    }
    /// Twice: what was found out in the first call holds in the second.
    void expect_products(double tolerance) {
        for (const bool tune : {true, false}) {
            const auto cuda = make_cuda_backend(CudaOptions{.tune = tune});
            for (const bool add : {true, false, true, false})
                expect_near(floats(multiplied(*cuda, add)), floats(multiplied(*cpu_, add)),
                            tolerance);
        }
    }

    std::unique_ptr<Backend> cpu_ = make_cpu_backend();
    RandomValues random_;
    const Rows x_ = quantised({70, 208}, 1);
    const Rows w_ = quantised({2 * 48, 208}, 0.1F);
    const Tensor before_ = random_.tensor({70, 48});
    const std::array<Index, 2> segments_{33, 37};
};

TEST_F(CublasltRefuses, Nothing) { expect_products(1e-5); }

TEST_F(CublasltRefuses, ToAddToWhatIsThere) {
    emulation::refusals().e4m3_sums = true;
    expect_products(1e-5);
}

// The product passes through bf16.
TEST_F(CublasltRefuses, ResultsInF32) {
    emulation::refusals().e4m3_to_f32 = true;
    expect_products(1.0 / 128);
}

TEST_F(CublasltRefuses, Both) {
    emulation::refusals() = {.e4m3_sums = true, .e4m3_to_f32 = true};
    expect_products(1.0 / 128);
}

// In bf16, which holds the operands exactly, the sums are as good.
TEST_F(CublasltRefuses, ScalesOfRows) {
    emulation::refusals().e4m3 = true;
    expect_products(1e-5);
}

TEST_F(CublasltRefuses, ScalesOfRowsOnlyWhenCalled) {
    emulation::refusals().e4m3_calls = true;
    expect_products(1e-5);
}

TEST_F(CublasltRefuses, FewRowsOfAGreatDepth) {
    const Rows x = quantised({6, 9216}, 1);
    const Rows w = quantised({32, 9216}, 0.1F);
    const Tensor before = random_.tensor({6, 32});
    const auto cuda = make_cuda_backend();
    for (const DType to : {DType::bf16, DType::f32}) {
        const auto multiplied = [&](Backend& on) {
            const Tensor weight = on.upload(w.q), w_scales = on.upload(w.scales);
            Tensor y = on.empty({6, 32}, to);
            const std::array<Index, 1> all{6};
            on.linear_fp8(on.upload(x.q), on.upload(x.scales), weight, w_scales, all, y);
            return on.download(y);
        };
        const Tensor actual = multiplied(*cuda);
        expect_near(floats(actual), floats(multiplied(*cpu_)), to == DType::f32 ? 1e-5 : 1.0 / 128);
        EXPECT_EQ(floats(actual), floats(multiplied(*cuda)));
    }
}

// Another algorithm may be the fastest of the suggested and do these rows, too: bits must not depend on that.
TEST_F(CublasltRefuses, TheFirstAlgorithmForSomeRows) {
    emulation::refusals().first_of_odd_rows = true;
    for (const Index rows : {48, 47}) {
        const Tensor x = random_.tensor({rows, 300});
        const Tensor weight = random_.tensor({40, 300});
        const auto multiplied = [&](bool tune) {
            const auto cuda = make_cuda_backend(CudaOptions{.tune = tune});
            Tensor y = cuda->empty({rows, 40});
            cuda->linear(cuda->upload(x), cuda->upload(weight), {}, y);
            return floats(cuda->download(y));
        };
        EXPECT_EQ(multiplied(true), multiplied(false)) << rows << " rows";
    }
}

// A test's limit is as much lower as its arrays are smaller.
TEST_F(CublasltRefuses, MoreElementsThanAnIndexCounts) {
    constexpr Index rows = 60'007, depth = 3, outs = 5, most = 30'000 * outs;
    const Tensor x = random_.tensor({rows, depth});
    const Tensor weight = random_.tensor({outs, depth});
    const auto cuda = make_cuda_backend();
    const Stream stream = make_stream();
    const Tensor x_there = cuda->upload(x), w_there = cuda->upload(weight);
    const auto multiplied = [&](Index limit) {
        Tensor y = cuda->empty({rows, outs});
        cuda->synchronize();
        CudaGemm gemm(cuda->memory(), stream.get(), GemmChoices("", "none"), false, limit);
        gemm.run({.x = x_there, .w = w_there, .y = y});
        EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
        return floats(cuda->download(y));
    };
    const std::vector<float> whole = multiplied(rows * outs);
    emulation::refusals().more_elements = most;
    EXPECT_EQ(multiplied(most), whole);
    EXPECT_THROW(multiplied(rows * outs), Error);
}

/// What the driver has left for kernels that are loaded.
std::size_t drivers_bytes() {
    std::size_t free = 0;
    std::size_t all = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &all), cudaSuccess);
    return free;
}

class LittleMemory : public ::testing::Test {
protected:
    static constexpr std::size_t mib = std::size_t{1} << 20;

    void TearDown() override { emulation::refusals() = {}; }

    CountedMemory& memory() { return dynamic_cast<CountedMemory&>(cuda_->memory()); }
    /// The pool keeps nearly all of the GPU's memory, without lending it.
    void hoard() {
        const std::size_t most = memory().left().value() - 128 * mib;
        Tensor({static_cast<Index>(most)}, DType::u8, memory());
        ASSERT_LT(drivers_bytes(), 256 * mib);
    }
    /// A product that fails so often.
    void multiply(int failures) {
        emulation::refusals().next_products = failures;
        const Tensor x = cuda_->upload(random_.tensor({5, 8}));
        Tensor y = cuda_->empty({5, 5});
        cuda_->linear(x, x, {}, y);
        cuda_->synchronize();
    }

    RandomValues random_;
    std::unique_ptr<Backend> cuda_ = make_cuda_backend(CudaOptions{.tune = false});
};

TEST_F(LittleMemory, IsLeftToTheDriverByLargeArrays) {
    hoard();
    const Tensor large({static_cast<Index>(64 * mib)}, DType::u8, memory());
    EXPECT_GE(drivers_bytes(), 512 * mib);
}

TEST_F(LittleMemory, IsGivenToTheKernelOfAProduct) {
    hoard();
    EXPECT_NO_THROW(multiply(1));
    EXPECT_GE(drivers_bytes(), 512 * mib);
}

TEST_F(LittleMemory, IsNoLostDevice) {
    hoard();
    EXPECT_THROW(multiply(2), OutOfMemoryError);
    EXPECT_NO_THROW(multiply(0));
}

TEST_F(LittleMemory, CountsWhatIsOnItsWayBack) {
    const auto before = memory().left();
    for (int i = 0; i < 4; ++i) {
        Tensor({static_cast<Index>(32 * mib)}, DType::u8, memory());
        EXPECT_EQ(memory().left(), before);
    }
}

TEST_F(LittleMemory, IsNotBlamedWhereThereIsEnough) { EXPECT_THROW(multiply(1), DeviceError); }

// Zeros on one side, channels that are no multiples of 8, before and behind, a bias with a stride in time,
// and most of them.
TEST(CudnnRefuses, WhatItTakesInAnotherForm) {
    struct Case {
        Shape x, kernel;
        ConvSpec spec;
    };
    const auto cpu = make_cpu_backend();
    const auto cuda = make_cuda_backend();
    RandomValues random;
    for (const Case& c :
         {Case{{2, 10, 12, 16}, {8, 16, 3, 3}, {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}}},
          Case{{2, 6, 5, 12}, {16, 12, 3, 3}, {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}},
          Case{{2, 6, 5, 16}, {12, 16, 1}, {}},
          Case{{5, 4, 6, 16}, {8, 16, 3, 1, 1}, {.stride = {2, 1, 1}}},
          Case{{3, 6, 5, 3}, {5, 3, 3, 3, 3}, {.pad_before = {2, 1, 0}, .pad_after = {0, 0, 1}}}}) {
        const Tensor x = as_bf16(random.tensor(c.x));
        const Tensor kernel = random.tensor(c.kernel, 0.1F);
        const Tensor bias = as_bf16(random.tensor({c.kernel[0]}));
        for (const bool biased : {false, true}) {
            const auto run = [&](Backend& on) {
                const Tensor prepared = on.prepare_conv(kernel, DType::bf16);
                const Tensor b = on.upload(bias);
                Tensor y =
                    on.empty(Backend::conv_shape(c.x, prepared.shape(), c.spec), DType::bf16);
                on.conv(on.upload(x), prepared, biased ? b.view() : ConstTensorView(), c.spec, y);
                return on.download(y);
            };
            const std::uint64_t before = emulation::cudnn_convolutions();
            expect_near(floats(run(*cuda)), floats(run(*cpu)), 1.0 / 128);
            EXPECT_EQ(emulation::cudnn_convolutions(), before + 1)
                << to_string(c.x) << " by " << to_string(c.kernel);
        }
    }
}

}  // namespace
}  // namespace gallop
