#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>

#include <gmock/gmock.h>

#include "core/device_error.hpp"
#include "ops/cuda_backend.hpp"
#include "support/expect_near.hpp"
#include "support/temporary_folder.hpp"

// Every op on the GPU against the CPU, on values drawn anew in every run, odd sizes, and outputs
// that start as NaN.

namespace gallop {
using namespace test;
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// f32 sums in another order, and functions (exp, sin, tanh) that differ in their last places.
constexpr double f32_tolerance = 5e-6;
// The same f32 value may round to either neighbour: one last place of bf16 over the largest value.
constexpr double bf16_tolerance = 1.0 / 128;

// Hopper's tensor cores add E4M3 products in fewer bits than f32 has, before they add to f32 sums.
constexpr double fp8_tolerance = 1e-3;

double tolerance_of(DType dtype) { return dtype == DType::f32 ? f32_tolerance : bf16_tolerance; }

#ifdef GALLOP_EMULATED
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#endif

class Gpu : public ::testing::Test {
protected:
    /// One op on a backend; the result comes back to the host.
    using Op = std::function<Tensor(Backend&)>;

    void SetUp() override {
        try {
            cuda_ = make_cuda_backend();
        } catch (const NoDeviceError& error) {
            // A machine that is there to test its GPU says so and gets no way out.
            if (std::getenv("GALLOP_TEST_NEEDS_GPU") != nullptr) FAIL() << error.what();
            GTEST_SKIP() << "NOT TESTED, no usable GPU: " << error.what();
        }
    }

    /// A device array of which every byte is 0xff: NaN in f32 and bf16.
    static Tensor poisoned(Backend& on, const Shape& shape, DType dtype = DType::f32) {
        Tensor host(shape, dtype);
        std::memset(host.view().raw(), 0xff, host.bytes());
        return on.upload(host);
    }

    void agree(const Op& op, double tolerance) {
        const Tensor expected = op(*cpu_);
        const Tensor actual = op(*cuda_);
        ASSERT_EQ(actual.shape(), expected.shape());
        ASSERT_EQ(actual.dtype(), expected.dtype());
        expect_near(floats(actual), floats(expected), tolerance);
    }
    void same_bytes(const Op& op) {
        const Tensor expected = op(*cpu_);
        const Tensor actual = op(*cuda_);
        ASSERT_EQ(actual.bytes(), expected.bytes());
        EXPECT_EQ(std::memcmp(actual.view().raw(), expected.view().raw(), actual.bytes()), 0);
    }

    /// The same call gives the same bits again.
    void same_bytes_twice(const Op& op) {
        const Tensor once = op(*cuda_);
        const Tensor twice = op(*cuda_);
        EXPECT_EQ(std::memcmp(once.view().raw(), twice.view().raw(), once.bytes()), 0);
    }

    Tensor random(const Shape& shape, DType dtype, float scale = 1.0F) {
        Tensor made = random_.tensor(shape, scale);
        return dtype == DType::f32 ? std::move(made) : as_bf16(made);
    }

    std::unique_ptr<Backend> cpu_ = make_cpu_backend();
    std::unique_ptr<Backend> cuda_;
    RandomValues random_;
};

class GpuIn : public Gpu, public ::testing::WithParamInterface<DType> {
protected:
    DType dtype_ = GetParam();
    double tolerance_ = tolerance_of(GetParam());
    Tensor random(const Shape& shape, float scale = 1.0F) {
        return Gpu::random(shape, dtype_, scale);
    }
    /// y = f(x) into a poisoned y of the given shape.
    Tensor made(Backend& on, const Shape& shape, const std::function<void(Tensor&)>& f) const {
        Tensor y = poisoned(on, shape, dtype_);
        f(y);
        return on.download(y);
    }
};
INSTANTIATE_TEST_SUITE_P(DTypes, GpuIn, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& of) { return std::string(name_of(of.param)); });

TEST_P(GpuIn, MovesBytes) {
    const Tensor x = random({3, 5, 7, 2, 9});
    same_bytes([&](Backend& on) {
        return made(on, {7, 2, 3, 9, 5}, [&](Tensor& y) {
            on.permute(on.upload(x), x.shape(), std::array{2, 3, 0, 4, 1}, y);
        });
    });
    const Tensor rows = random({37, 29});
    same_bytes([&](Backend& on) {
        return made(on, {37, 11}, [&](Tensor& y) { on.columns(on.upload(rows), 13, y); });
    });
    same_bytes([&](Backend& on) {
        return made(on, {37, 8}, [&](Tensor& y) { on.columns(on.upload(rows), 12, y); });
    });
    const Tensor picture = random({3, 5, 7, 9});
    same_bytes([&](Backend& on) {
        return made(on, {3, 5, 7, 27},
                    [&](Tensor& y) { on.repeat_channels(on.upload(picture), 3, y); });
    });
    same_bytes([&](Backend& on) {
        return made(on, {3, 10, 14, 9},
                    [&](Tensor& y) { on.upsample_nearest(on.upload(picture), y); });
    });
    same_bytes([&](Backend& on) { return on.download(on.zeros({5, 3}, dtype_)); });
    for (const DType to : {DType::f32, DType::bf16})
        same_bytes([&](Backend& on) {
            Tensor y = poisoned(on, rows.shape(), to);
            on.copy(on.upload(rows), y);
            return on.download(y);
        });
}

// Neighbours that stay neighbours, in runs of any bytes and from any address (`skip` elements after an
// aligned one); axes of one element and axes that lie as one.
TEST_P(GpuIn, MovesNeighboursTogether) {
    for (const Index channels : {1, 2, 4, 6, 12, 24, 64, 104})
        for (const Index skip : {0, 1, 2, 4}) {
            const Index elements = 2 * 3 * 5 * 4 * channels;
            const Tensor x = random({elements + skip});
            const auto shaped = [&](const Tensor& of, const Shape& shape) {
                return of.view().rows(skip, skip + elements).reshape(shape);
            };
            same_bytes([&](Backend& on) {
                return made(on, {2, 5, 3, 4, channels}, [&](Tensor& y) {
                    on.permute(shaped(on.upload(x), {2, 3, 5, 4, channels}), {2, 3, 5, 4, channels},
                               std::array{0, 2, 1, 3, 4}, y);
                });
            });
            same_bytes([&](Backend& on) {
                return made(on, {4, 1, 6, channels, 5}, [&](Tensor& y) {
                    on.permute(shaped(on.upload(x), {1, 6, 5, 4, channels}), {1, 6, 5, 4, channels},
                               std::array{3, 0, 1, 4, 2}, y);
                });
            });
            same_bytes([&](Backend& on) {
                return made(on, {6, 10, 8, channels}, [&](Tensor& y) {
                    on.upsample_nearest(shaped(on.upload(x), {6, 5, 4, channels}), y);
                });
            });
            same_bytes([&](Backend& on) {
                return made(on, {30, 2 * channels}, [&](Tensor& y) {
                    on.columns(shaped(on.upload(x), {30, 4 * channels}), channels, y);
                });
            });
        }
}

// Its last elements have numbers above 2³².
TEST_F(Gpu, MovesWhatLiesFarAway) {
    constexpr Index columns = Index{1} << 30;
    constexpr Index end = 5 * columns;
    Tensor last({5}, DType::u8);
    std::iota(last.data<std::uint8_t>(), last.data<std::uint8_t>() + 5, std::uint8_t{1});
    Tensor x = cuda_->empty({5, columns}, DType::u8);
    cuda_->upload(last, x.view().reshape({end}).rows(end - 5, end));
    Tensor y = poisoned(*cuda_, {5, 5}, DType::u8);
    cuda_->columns(x, columns - 5, y);
    const Tensor moved = cuda_->download(y.view().rows(4, 5));
    EXPECT_EQ(std::memcmp(moved.view().raw(), last.view().raw(), last.bytes()), 0);
}

TEST_P(GpuIn, TakesMeansOfChannels) {
    const Tensor x = random({5, 33, 21});
    agree(
        [&](Backend& on) {
            return made(on, {5, 33, 7}, [&](Tensor& y) { on.mean_channels(on.upload(x), 3, y); });
        },
        tolerance_);
}

// Experts of any size, none and one row among them; depths that are multiples of 8, 4 (as 13652 is), 1.
TEST_P(GpuIn, MultipliesByEachRowsExpert) {
    for (const Index depth : {64, 116, 203}) {
        const Tensor x = random({147, depth});
        const Tensor weight = random({4 * 91, depth});
        const Tensor bias = random_.tensor({4 * 91});
        const std::array<Index, 4> segments{101, 0, 45, 1};
        for (const bool biased : {false, true})
            for (const DType to : {DType::f32, dtype_})
                agree(
                    [&](Backend& on) {
                        Tensor y = poisoned(on, {147, 91}, to);
                        const Tensor b = on.upload(bias);
                        on.linear(on.upload(x), on.upload(weight),
                                  biased ? b.view() : ConstTensorView(), segments, y);
                        return on.download(y);
                    },
                    tolerance_of(to));
    }
}

/// What rows in E4M3 stand for.
Tensor meant(const Tensor& q, const Tensor& scales) {
    Tensor made(q.shape());
    for (Index i = 0; i < q.numel(); ++i)
        made.data<float>()[i] =
            to_float(q.data<f8_e4m3>()[i]) * scales.data<float>()[i / q.size(1)];
    return made;
}

// Widths with and without vector loads; the same division and rounding give the same bytes.
TEST_P(GpuIn, QuantisesRows) {
    for (const auto& [width, stride] :
         {std::pair<Index, Index>{1, 16}, {203, 208}, {1364, 1376}, {5120, 5120}}) {
        const Tensor x = random({37, width}, 3);
        for (const bool scales : {false, true})
            same_bytes([&](Backend& on) {
                Tensor q = poisoned(on, {37, stride}, DType::f8_e4m3);
                Tensor s = poisoned(on, {37});
                on.quantise(on.upload(x), q, s);
                return on.download(scales ? s : q);
            });
    }
}

// A last place of a norm may turn a rounding to E4M3: 1/16 of a value.
TEST_P(GpuIn, QuantisesNorms) {
    const std::array<Index, 3> segments{20, 1, 16};
    for (const Index width : {203, 1364}) {
        const Tensor x = random({37, width});
        const Tensor weight = random_.tensor({3 * width});
        for (const NormSpec::Kind kind :
             {NormSpec::Kind::rms_offset, NormSpec::Kind::rms, NormSpec::Kind::l2})
            agree(
                [&](Backend& on) {
                    const Tensor w = on.upload(weight);
                    Tensor q = poisoned(on, {37, 1376}, DType::f8_e4m3);
                    Tensor s = poisoned(on, {37});
                    on.norm_quantised(on.upload(x),
                                      kind == NormSpec::Kind::rms ? ConstTensorView() : w.view(),
                                      {kind, 1e-6F}, segments, q, s);
                    return meant(on.download(q), on.download(s));
                },
                1.0 / 14);
    }
}

// The same codes on both, so that only the order of the sums differs.
TEST_F(Gpu, MultipliesInE4M3) {
    struct Rows {
        Tensor q, scales;
    };
    const auto quantised = [&](const Tensor& x) {
        Rows made{Tensor({x.size(0), x.size(1)}, DType::f8_e4m3), Tensor({x.size(0)})};
        cpu_->quantise(x, made.q, made.scales);
        return made;
    };
    for (const Index depth : {16, 208, 13696}) {
        const Rows x = quantised(random_.tensor({147, depth}));
        const Rows w = quantised(random_.tensor({4 * 96, depth}, 0.1F));
        const Tensor before = random_.tensor({147, 96});
        const std::array<Index, 4> segments{101, 0, 45, 1};
        const auto run = [&](Backend& on, bool add, Tensor y) {
            const Tensor q = on.upload(x.q), x_scales = on.upload(x.scales);
            const Tensor weight = on.upload(w.q), w_scales = on.upload(w.scales);
            if (add)
                on.add_linear_fp8(q, x_scales, weight, w_scales, segments, y);
            else
                on.linear_fp8(q, x_scales, weight, w_scales, segments, y);
            return on.download(y);
        };
        for (const DType to : {DType::f32, DType::bf16})
            agree(
                [&](Backend& on) {
                    return run(on, false, poisoned(on, {147, 96}, to));
                },
                to == DType::f32 ? fp8_tolerance : bf16_tolerance);
        agree([&](Backend& on) { return run(on, true, on.upload(before)); }, fp8_tolerance);
    }
}

TEST_F(Gpu, Projects) {
    const Tensor x = random_.tensor({13, 203});
    const Tensor weight = random_.tensor({171, 203});
    const Tensor bias = random_.tensor({171});
    agree(
        [&](Backend& on) {
            Tensor y = poisoned(on, {13, 171});
            on.project(on.upload(x), on.upload(weight), on.upload(bias), y);
            return on.download(y);
        },
        f32_tolerance);
}

// Rows of a few threads, a warp, a block, and wider ones; widths and addresses (`skipped` elements after an
// aligned one) with and without accesses of 16 bytes.
TEST_P(GpuIn, Normalises) {
    const std::array<Index, 3> segments{20, 1, 16};
    for (const Index width : {1, 3, 7, 8, 64, 96, 192, 264, 1000, 1031, 3413, 5120, 8192, 8200}) {
        const Index skipped = width % 64 == 0 ? 1 : 0;
        const Tensor x = random({37 * width + skipped});
        const Tensor weight = random_.tensor({3 * width});
        const auto rows = [&](Tensor& of, Index skip) {
            return of.view().rows(skip, skip + 37 * width).reshape({37, width});
        };
        for (const NormSpec::Kind kind :
             {NormSpec::Kind::rms_offset, NormSpec::Kind::rms, NormSpec::Kind::l2})
            for (const Activation activation :
                 {Activation::none, Activation::silu, Activation::tanh})
                for (Index skip = 0; skip <= skipped; ++skip)
                    agree(
                        [&](Backend& on) {
                            const Tensor w = on.upload(weight);
                            Tensor y = on.upload(x);  // in place
                            on.norm(rows(y, skip),
                                    kind == NormSpec::Kind::rms ? ConstTensorView() : w.view(),
                                    {kind, 1e-6F}, segments, rows(y, skip), activation);
                            return on.download(y);
                        },
                        tolerance_);
        agree(
            [&](Backend& on) {
                Tensor from = on.upload(x);
                Tensor y = poisoned(on, {37, width});  // f32 whatever x is
                on.norm(rows(from, 0), on.upload(weight).view().rows(0, width), {}, {}, y);
                return on.download(y);
            },
            f32_tolerance);
    }
}

TEST_P(GpuIn, Activates) {
    const Tensor x = random({7, 333}, 3.0F);
    const Tensor u = random({7, 666}, 6.0F);
    for (const Activation activation : {Activation::none, Activation::silu, Activation::relu,
                                        Activation::elu, Activation::tanh, Activation::clamp})
        agree(
            [&](Backend& on) {
                return made(on, x.shape(),
                            [&](Tensor& y) { on.activate(on.upload(x), activation, y); });
            },
            tolerance_);
    agree(
        [&](Backend& on) {
            return made(on, x.shape(), [&](Tensor& y) { on.swiglu7(on.upload(u), y); });
        },
        tolerance_);
    agree(
        [&](Backend& on) {
            return made(on, u.shape(), [&](Tensor& y) { on.gelu7(on.upload(u), y); });
        },
        tolerance_);
    const Tensor up = random(x.shape());
    for (const bool round : {false, true})
        agree(
            [&](Backend& on) {
                return made(on, x.shape(),
                            [&](Tensor& y) { on.geglu(on.upload(x), on.upload(up), round, y); });
            },
            2 * tolerance_);  // two roundings
    agree(
        [&](Backend& on) {
            Tensor sum = on.upload(x);
            on.add(sum, on.upload(up));
            return on.download(sum);
        },
        0);
}

// Any number of elements, from any address (`skip` elements after an aligned one).
TEST_P(GpuIn, WorksOnRunsAndWhatTheyLeave) {
    for (const Index n : {1, 7, 8, 64, 1000, 2731, 13652})
        for (const Index skip : {0, 1, 4}) {
            const Tensor x = random({2 * n + skip}, 6.0F);
            const Tensor other = random({n + skip});
            const auto on_views =
                [&](const std::function<void(Backend&, ConstTensorView, TensorView)>& op,
                    Index inputs, double tolerance) {
                    agree(
                        [&](Backend& on) {
                            const Tensor from = on.upload(x);
                            Tensor y = on.upload(other);
                            op(on, from.rows(skip, skip + inputs).reshape({1, inputs}),
                               y.rows(skip, skip + n).reshape({1, n}));
                            return on.download(y);
                        },
                        tolerance);
                };
            on_views([](Backend& on, auto u, auto y) { on.swiglu7(u, y); }, 2 * n, tolerance_);
            on_views([](Backend& on, auto u, auto y) { on.gelu7(u, y); }, n, tolerance_);
            on_views([](Backend& on, auto u, auto y) { on.activate(u, Activation::silu, y); }, n,
                     tolerance_);
            on_views([](Backend& on, auto u, auto y) { on.add(y, u); }, n, 0);
            on_views([](Backend& on, auto u, auto y) { on.geglu(u, u, true, y); }, n,
                     2 * tolerance_);
            for (const DType to : {DType::f32, DType::bf16})
                same_bytes([&](Backend& on) {
                    Tensor y = poisoned(on, {n + skip}, to);
                    on.copy(on.upload(x).rows(0, n), y.rows(skip, skip + n));
                    return on.download(y.rows(skip, skip + n));
                });
        }
}

// The residual is f32 whatever is added to it.
TEST_F(Gpu, AddsBf16ToF32) {
    const Tensor x = random_.tensor({7, 333});
    const Tensor y = random({7, 333}, DType::bf16);
    agree(
        [&](Backend& on) {
            Tensor sum = on.upload(x);
            on.add(sum, on.upload(y));
            return on.download(sum);
        },
        0);
}

// Sizes, angles and columns with and without accesses of 16 bytes; `skip` elements after an aligned address.
TEST_P(GpuIn, SplitsNormalisesAndRotatesHeads) {
    struct Case {
        Index heads, groups, size, angles, rest, skip;
    };
    for (const Case& c :
         {Case{6, 2, 40, 15, 6, 0}, Case{6, 2, 40, 16, 8, 0}, Case{5, 1, 128, 48, 8, 0},
          Case{5, 1, 128, 48, 8, 1}, Case{5, 1, 128, 64, 3, 0}, Case{2, 1, 8, 0, 0, 0},
          Case{3, 3, 136, 48, 0, 0}, Case{2, 2, 12, 4, 0, 0}}) {
        constexpr Index length = 43;
        const Index columns = (c.heads + 2 * c.groups) * c.size + c.rest;
        const Tensor u = random({c.skip + length * columns});
        const Tensor q_norm = random_.tensor({2 * c.size});
        const Tensor k_norm = random_.tensor({2 * c.size});
        const Tensor rope = random_.tensor({length, 2 * c.angles});
        const std::array<Index, 2> segments{40, 3};
        for (int part = 0; part < 3; ++part)
            agree(
                [&](Backend& on) {
                    const Tensor from = on.upload(u);
                    Tensor q = poisoned(on, {length, c.heads, c.size}, dtype_);
                    Tensor k = poisoned(on, {length, c.groups, c.size}, dtype_);
                    Tensor v = poisoned(on, {length, c.groups, c.size}, dtype_);
                    on.split_qkv(
                        from.rows(c.skip, c.skip + length * columns).reshape({length, columns}),
                        on.upload(q_norm), on.upload(k_norm), {}, segments, on.upload(rope), q, k,
                        v);
                    return on.download(part == 0 ? q : part == 1 ? k : v);
                },
                tolerance_);
    }
}

TEST_P(GpuIn, RotatesHeads) {
    constexpr Index length = 43, heads = 6, size = 40, angles = 15;
    const Tensor rope = random_.tensor({length, 2 * angles});
    const Tensor x = random({length, heads, size});
    for (const bool round : {false, true})
        agree(
            [&](Backend& on) {
                Tensor turned = on.upload(x);
                on.rotate(turned, on.upload(rope), round);
                return on.download(turned);
            },
            tolerance_);
}

TEST_P(GpuIn, GatesHeads) {
    constexpr Index length = 43, heads = 6, columns = 31;
    const Tensor u = random({length, columns});
    for (const Index size : {1, 20, 40, 128})
        for (const Index skip : {0, 1}) {
            const Index elements = length * heads * size;
            const Tensor o = random({skip + elements});
            agree(
                [&](Backend& on) {
                    Tensor gated = on.upload(o);
                    on.gate_heads(gated.rows(skip, skip + elements).reshape({length, heads, size}),
                                  on.upload(u), columns - heads);
                    return on.download(gated);
                },
                tolerance_);
        }
}

TEST_P(GpuIn, Attends) {
    using Kind = AttentionMask::Kind;
    struct Case {
        Index queries, keys, heads, groups, size;
        AttentionMask mask;
        float soft_cap;
    };
    for (const Case& c :
         {Case{71, 131, 6, 2, 128, {}, 0}, Case{1, 1, 1, 1, 3, {}, 0},
          Case{33, 65, 4, 4, 256, {}, 50}, Case{45, 77, 1, 1, 640, {}, 0},
          Case{1, 3, 1, 1, 1024, {}, 20}, Case{161, 161, 4, 2, 24, {Kind::frames, 7, 21, 2}, 0},
          Case{161, 161, 2, 1, 20, {Kind::frames, 23, 7, 0}, 0},
          Case{161, 161, 2, 1, 131, {Kind::frames, 2, 21, 100}, 0},
          Case{197, 197, 2, 1, 64, {Kind::window, 0, 0, 40}, 30},
          Case{97, 97, 2, 2, 16, {Kind::window, 0, 0, 1}, 0},
          Case{97, 97, 2, 2, 16, {Kind::window, 0, 0, 1000}, 0}}) {
        const Tensor q = random({c.queries, c.heads, c.size});
        const Tensor k = random({c.keys, c.groups, c.size});
        const Tensor v = random({c.keys, c.groups, c.size});
        const float scale = 1.0F / std::sqrt(static_cast<float>(c.size));
        agree(
            [&](Backend& on) {
                return made(on, q.shape(), [&](Tensor& y) {
                    on.attention(on.upload(q), on.upload(k), on.upload(v), c.mask, scale,
                                 c.soft_cap, y);
                });
            },
            tolerance_);
    }
}

// The sizes of the networks, where cuDNN has plans; without it the own kernels are tested twice. By slices
// of keys where the mask is by frame. Whole tiles of keys first, then parts of them, twice by one kernel.
TEST_F(Gpu, AttendsWithAndWithoutCudnn) {
    using Kind = AttentionMask::Kind;
    struct Case {
        Index queries, keys, heads, groups, size;
        AttentionMask mask;
    };
    const auto own = make_cuda_backend(CudaOptions{.cudnn = false});
    for (const Case& c : {Case{64, 256, 10, 2, 128, {}}, Case{64, 192, 10, 2, 128, {}},
                          Case{64, 320, 10, 2, 128, {}}, Case{203, 203, 10, 2, 128, {}},
                          Case{205, 205, 10, 2, 128, {}}, Case{1, 77, 5, 1, 128, {}},
                          Case{129, 129, 8, 4, 64, {}}, Case{57, 57, 4, 2, 256, {}},
                          Case{7 * 13 + 9, 7 * 13 + 9, 10, 2, 128, {Kind::frames, 7, 13, 2}},
                          Case{25 * 4 + 5, 25 * 4 + 5, 4, 2, 64, {Kind::frames, 25, 4, 3}},
                          Case{5 * 6, 5 * 6, 4, 2, 64, {Kind::frames, 5, 6, 1}}}) {
        const Tensor q = random({c.queries, c.heads, c.size}, DType::bf16);
        const Tensor k = random({c.keys, c.groups, c.size}, DType::bf16);
        const Tensor v = random({c.keys, c.groups, c.size}, DType::bf16);
        const float scale = 1.0F / std::sqrt(static_cast<float>(c.size));
        const auto run = [&](Backend& on) {
            Tensor y = poisoned(on, q.shape(), DType::bf16);
            on.attention(on.upload(q), on.upload(k), on.upload(v), c.mask, scale, 0, y);
            return on.download(y);
        };
        const Tensor expected = run(*cpu_);
        // Weights of the softmax are rounded to bf16 there before they meet the values.
        expect_near(floats(run(*cuda_)), floats(expected), 2 * bf16_tolerance);
        expect_near(floats(run(*own)), floats(expected), bf16_tolerance);
        same_bytes_twice(run);
    }
}

// As above: pictures, pictures in time, causal ones, strides, one point, odd channels.
TEST_F(Gpu, ConvolvesWithAndWithoutCudnn) {
    struct Case {
        Shape x, kernel;
        ConvSpec spec;
    };
    const auto own = make_cuda_backend(CudaOptions{.cudnn = false});
    for (const Case& c :
         {Case{{3, 17, 22, 64}, {128, 64, 3, 3}, {{1, 1, 1}, {0, 1, 1}, {0, 1, 1}, {1, 1, 1}}},
          Case{{5, 9, 14, 32}, {64, 32, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}}},
          Case{{5, 9, 14, 64}, {32, 64, 3, 3, 3}, {{1, 1, 1}, {2, 1, 1}, {0, 1, 1}, {1, 1, 1}}},
          Case{{2, 16, 18, 32}, {32, 32, 3, 3}, {{1, 2, 2}, {0, 0, 0}, {0, 1, 1}, {1, 1, 1}}},
          Case{{6, 8, 8, 48}, {96, 48, 1}, {}},
          Case{{2, 9, 7, 19}, {5, 19, 3, 3}, {{1, 1, 1}, {0, 1, 1}, {0, 1, 1}, {1, 1, 1}}}}) {
        const Tensor x = random(c.x, DType::bf16);
        const Tensor kernel = random_.tensor(c.kernel, 0.1F);
        const Tensor bias = random({c.kernel[0]}, DType::bf16);
        for (const bool biased : {false, true}) {
            const auto run = [&](Backend& on) {
                const Tensor prepared = on.prepare_conv(kernel, DType::bf16);
                const Tensor b = on.upload(bias);
                Tensor y =
                    poisoned(on, Backend::conv_shape(c.x, prepared.shape(), c.spec), DType::bf16);
                on.conv(on.upload(x), prepared, biased ? b.view() : ConstTensorView(), c.spec, y);
                return on.download(y);
            };
            const Tensor expected = run(*cpu_);
            expect_near(floats(run(*cuda_)), floats(expected), bf16_tolerance);
            expect_near(floats(run(*own)), floats(expected), bf16_tolerance);
            same_bytes_twice(run);
        }
    }
}

// What was timed must not show: with timing, from the file of another process, and without.
TEST_F(Gpu, MultipliesToTheSameBitsWhateverAlgorithmIsFastest) {
    const TemporaryFolder folder;
    const auto timed = make_cuda_backend(CudaOptions{.cache = folder.path()});
    const auto untimed = make_cuda_backend(CudaOptions{.tune = false});
    // An emulated GPU would multiply the large ones for an hour.
    constexpr Index part = emulated ? 8 : 1;
    for (const auto& [rows, depth, out] : {std::array<Index, 3>{526, 1024 / part, 912},
                                           {4110 / part, 5120 / part, 7296 / part},
                                           {17, 13652, 256}}) {
        const Tensor x = random({rows, depth}, DType::bf16);
        const Tensor weight = random({out, depth}, DType::bf16, 0.02F);
        const auto run = [&](Backend& on) {
            Tensor y = poisoned(on, {rows, out}, DType::bf16);
            on.linear(on.upload(x), on.upload(weight), {}, y);
            return on.download(y);
        };
        const Tensor expected = run(*untimed);
        const auto again = make_cuda_backend(CudaOptions{.cache = folder.path()});
        for (Backend* on : {timed.get(), again.get()}) {
            const Tensor actual = run(*on);
            EXPECT_EQ(std::memcmp(actual.view().raw(), expected.view().raw(), actual.bytes()), 0);
        }
    }
}

TEST_P(GpuIn, Embeds) {
    const Tensor table = random({50, 37});
    const std::vector<std::int32_t> ids{49, 0, 7, 7, 23};
    agree(
        [&](Backend& on) {
            return made(on, {5, 37}, [&](Tensor& y) { on.embed(on.upload(table), ids, 6.08F, y); });
        },
        0);
}

TEST_P(GpuIn, Convolves) {
    struct Case {
        Shape x, kernel;
        ConvSpec spec;
    };
    for (const Case& c :
         {Case{{4, 9, 11, 19}, {70, 19, 3, 3, 3}, {{1, 1, 1}, {2, 1, 1}, {0, 1, 1}, {1, 1, 1}}},
          Case{{1, 8, 10, 3}, {5, 3, 3, 3}, {{1, 2, 2}, {0, 0, 0}, {0, 1, 1}, {1, 1, 1}}},
          Case{{1, 1, 203, 33}, {65, 33, 7}, {{1, 1, 1}, {0, 0, 27}, {0, 0, 27}, {1, 1, 9}}},
          Case{{5, 6, 7, 64}, {64, 64, 1}, {}},
          Case{{1, 1, 64, 6}, {12, 6, 8}, {{1, 1, 4}, {0, 0, 2}, {0, 0, 2}, {1, 1, 1}}}}) {
        const Tensor x = random(c.x);
        const Tensor kernel = random_.tensor(c.kernel);
        const Tensor bias = random({c.kernel[0]});
        for (const bool biased : {false, true})
            agree(
                [&](Backend& on) {
                    const Tensor prepared = on.prepare_conv(kernel, dtype_);
                    const Tensor b = on.upload(bias);
                    return made(on, Backend::conv_shape(c.x, prepared.shape(), c.spec),
                                [&](Tensor& y) {
                                    on.conv(on.upload(x), prepared,
                                            biased ? b.view() : ConstTensorView(), c.spec, y);
                                });
                },
                tolerance_);
    }
}

TEST_F(Gpu, ConvolvesTransposed) {
    const Tensor x = random_.tensor({29, 17});
    const Tensor bias = random_.tensor({13});
    struct Case {
        Index width, stride, pad;
    };
    for (const Case& c : {Case{8, 4, 2}, Case{5, 3, 1}, Case{3, 5, 0}, Case{1, 1, 0}}) {
        const Tensor kernel = random_.tensor({17, 13, c.width});
        agree(
            [&](Backend& on) {
                Tensor y = poisoned(on, {28 * c.stride - 2 * c.pad + c.width, 13});
                on.conv_transpose(on.upload(x), on.upload(kernel), on.upload(bias), c.stride, c.pad,
                                  y);
                return on.download(y);
            },
            f32_tolerance);
    }
}

TEST_F(Gpu, Snakes) {
    const Tensor x = random_.tensor({31, 19});
    const Tensor alpha = random_.tensor({19});
    const Tensor beta = random_.tensor({19});
    agree(
        [&](Backend& on) {
            Tensor y = poisoned(on, x.shape());
            on.snake(on.upload(x), on.upload(alpha), on.upload(beta), y);
            return on.download(y);
        },
        f32_tolerance);
}

TEST_F(Gpu, SamplesTheCpusBits) {
    const NoiseStream stream(0x123456789abcdefU, "video");
    // The second piece begins where the counter's upper half is in use.
    for (const std::uint64_t first : {std::uint64_t{3}, (std::uint64_t{1} << 34) + 1})
        same_bytes([&](Backend& on) {
            Tensor y = poisoned(on, {1000003});
            on.normal(stream, first, y);
            return on.download(y);
        });
    const Tensor x = random_.tensor({4, 5, 7, 3});
    const Tensor z = random_.tensor({4, 5, 7, 3});
    same_bytes([&](Backend& on) {  // into one of the terms
        const Tensor a = on.upload(x);
        Tensor y = on.upload(z);
        on.combine(std::array{Term{0.3F, a}, Term{-1.7F, y}, Term{0.1F, a}}, y);
        return on.download(y);
    });
    same_bytes([&](Backend& on) {
        Tensor y = on.upload(z);
        on.guide(on.upload(x), y, std::array{1.0F, 2.5F, 5.0F, 0.0F, -1.0F}, y);
        return on.download(y);
    });
    const Tensor frame = random_.tensor({4, 1, 7, 3});
    same_bytes([&](Backend& on) {
        Tensor y = on.upload(x);
        on.set_first_frame(on.upload(frame), y);
        return on.download(y);
    });
}

TEST_F(Gpu, ScalesPictures) {
    const Tensor x = random_.tensor({4, 5, 7, 3});
    for (const Shape& shape : {Shape{4, 5, 13, 9}, Shape{4, 5, 1, 3}})
        agree(
            [&](Backend& on) {
                Tensor y = poisoned(on, shape);
                on.upsample_bilinear(on.upload(x), y);
                return on.download(y);
            },
            f32_tolerance);
}

TEST_F(Gpu, ScalesAndShiftsChannels) {
    for (const Index channels : {3, 8, 12, 96}) {
        const Tensor x = random_.tensor({4, 5, 7, channels});
        const Tensor scale = random_.tensor({channels});
        const Tensor shift = random_.tensor({channels});
        agree(
            [&](Backend& on) {
                Tensor y = poisoned(on, x.shape());
                on.affine_channels(on.upload(x), on.upload(scale), on.upload(shift), y);
                return on.download(y);
            },
            0);
    }
}

TEST_P(GpuIn, GivesTheCpusColours) {
    Tensor x = random({2, 5, 7, 3});
    std::memset(x.view().raw(), 0xff, size_of(dtype_));  // one NaN
    same_bytes([&](Backend& on) {
        Tensor y = poisoned(on, x.shape(), DType::u8);
        on.to_rgb8(on.upload(x), y);
        return on.download(y);
    });
}

TEST_P(GpuIn, FindsTheOneValueThatIsNotFinite) {
    Tensor x = random({1001, 3});
    EXPECT_TRUE(cuda_->all_finite(cuda_->upload(x)));
    std::memset(x.view().raw() + 2000 * size_of(dtype_), 0xff, size_of(dtype_));
    EXPECT_FALSE(cuda_->all_finite(cuda_->upload(x)));
}

TEST_F(Gpu, RefusesHostArrays) {
    const Tensor x = random_.tensor({3, 4});
    Tensor y = cuda_->empty({3, 4});
    EXPECT_THROW(cuda_->gelu7(x, y), Error);
}

TEST_F(Gpu, SaysThatMemoryRanOutAndGoesOn) {
    EXPECT_THROW(cuda_->empty({Index{1} << 42}), OutOfMemoryError);
    const Tensor x = random_.tensor({3, 4});
    same_bytes([&](Backend& on) { return on.download(on.upload(x)); });
}

TEST_F(Gpu, GivesTheSameBitsTwice) {
    const Tensor x = random({300, 520}, DType::bf16);
    const Tensor w = random({520, 520}, DType::bf16);
    const auto once = [&] {
        const Tensor a = cuda_->upload(x);
        const Tensor b = cuda_->upload(w);
        Tensor y = poisoned(*cuda_, {300, 520}, DType::bf16);
        cuda_->linear(a, b, {}, y);
        Tensor o = poisoned(*cuda_, {300, 4, 130}, DType::bf16);
        const auto heads = y.view().reshape({300, 4, 130});
        cuda_->attention(heads, heads, heads, {}, 0.1F, 0, o);
        return floats(cuda_->download(o));
    };
    EXPECT_EQ(once(), once());
}

/// Reads device memory that nobody has, in a process of its own.
void fault() {
    const auto on = make_cuda_backend();
    Tensor y = on->empty({1 << 16});
    const ConstTensorView nowhere(reinterpret_cast<const std::byte*>(std::uintptr_t{1} << 12),
                                  y.shape(), DType::f32, Device::cuda);
    try {
        on->activate(nowhere, Activation::relu, y);
        on->synchronize();
    } catch (const DeviceError&) {
        std::_Exit(device_lost_status);
    }
    std::_Exit(0);
}

TEST_F(Gpu, AKernelsFaultIsALostDevice) {
    if (emulated) GTEST_SKIP() << "an emulated kernel's fault is the process's own";
    ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_EXIT(fault(), ::testing::ExitedWithCode(device_lost_status), "");
}

TEST(CudaBackend, SaysWhyItCannotStart) {
    try {
        make_cuda_backend();
        GTEST_SKIP() << "there is a GPU";
    } catch (const NoDeviceError& error) {
        EXPECT_THAT(error.what(), AnyOf(HasSubstr("driver"), HasSubstr("GPU")));
        EXPECT_THAT(error.what(), HasSubstr("CPU backend"));
    }
}

}  // namespace
}  // namespace gallop
