#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "core/device_error.hpp"
#include "core/memory_use.hpp"
#include "model/checkpoint.hpp"
#include "ops/cuda_backend.hpp"
#include "pipeline/denoise.hpp"
#include "pipeline/memory.hpp"
#include "pipeline/picture_relay.hpp"
#include "support/expect_near.hpp"
#include "support/random_transformer.hpp"
#include "support/temporary_folder.hpp"

// What goes on around the ops: memory by the stage, copies beside the work, weights through pinned memory,
// pictures to the host.

namespace gallop {
using namespace test;
namespace {

class GpuEngine : public ::testing::Test {
protected:
    void SetUp() override {
        try {
            cuda_ = make_cuda_backend();
        } catch (const NoDeviceError& error) {
            // A machine that is there to test its GPU says so and gets no way out.
            if (std::getenv("GALLOP_TEST_NEEDS_GPU") != nullptr) FAIL() << error.what();
            GTEST_SKIP() << "NOT TESTED, no usable GPU: " << error.what();
        }
    }

    static Tensor poisoned(const Shape& shape, DType dtype, Memory& memory) {
        Tensor made(shape, dtype, memory);
        std::memset(made.view().raw(), 0xff, made.bytes());
        return made;
    }
    CountedMemory& memory() { return dynamic_cast<CountedMemory&>(cuda_->memory()); }

    static void expect_same_bytes(ConstTensorView actual, ConstTensorView expected) {
        ASSERT_EQ(actual.bytes(), expected.bytes());
        EXPECT_EQ(std::memcmp(actual.raw(), expected.raw(), actual.bytes()), 0);
    }

    std::unique_ptr<Backend> cpu_ = make_cpu_backend();
    std::unique_ptr<Backend> cuda_;
    RandomValues random_;
};

TEST_F(GpuEngine, PlanesAreTheCpusByteForByte) {
    const Tensor pictures = random_.tensor({5, 34, 50, 3});
    Tensor rgb(pictures.shape(), DType::u8);
    cpu_->to_rgb8(pictures, rgb);
    for (const char* name :
         {"yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"}) {
        const YuvFormat format = yuv_format(name).value();
        const Shape shape{5, format.bytes(50, 34)};
        Tensor expected(shape, DType::u8);
        cpu_->to_yuv(rgb, format, expected);
        Tensor planes = cuda_->upload(poisoned(shape, DType::u8, host_memory()));
        cuda_->to_yuv(cuda_->upload(rgb), format, planes);
        SCOPED_TRACE(name);
        expect_same_bytes(cuda_->download(planes), expected);
    }
}

TEST_F(GpuEngine, GuidesMoreFramesThanOneLaunchTakes) {
    const Tensor neg = random_.tensor({3, 700, 2, 5});
    const Tensor pos = random_.tensor({3, 700, 2, 5});
    const Tensor scales = random_.tensor({700});
    const auto guided = [&](Backend& on) {
        Tensor y = on.upload(pos);
        on.guide(on.upload(neg), y, scales.span<float>(), y);
        return on.download(y);
    };
    expect_near(floats(guided(*cuda_)), floats(guided(*cpu_)), 1e-6);
}

// The host's work goes on while copies do; what was uploaded is there for work that is asked for later, and
// a download sees what was asked for before.
TEST_F(GpuEngine, CopiesThatWereStartedKeepTheirOrder) {
    constexpr Index n = 5'000'003;
    Tensor host = poisoned({n}, DType::f32, cuda_->transfer_memory());
    Tensor back = poisoned({n}, DType::f32, cuda_->transfer_memory());
    EXPECT_EQ(host.device(), Device::cpu);
    Tensor x = cuda_->zeros({n});
    for (int round = 1; round <= 5; ++round) {
        std::fill_n(host.data<float>(), n, static_cast<float>(round));
        Copy up = cuda_->start_upload(host, x);
        cuda_->add(x, x);
        Copy down = cuda_->start_download(x, back);
        up.wait();
        down.wait();
        for (Index i = 0; i < n; i += 4999)
            ASSERT_EQ(back.data<float>()[i], 2.0F * static_cast<float>(round));
        ASSERT_EQ(back.data<float>()[n - 1], 2.0F * static_cast<float>(round));
    }
    const std::uint64_t waits = cuda_->waits();
    cuda_->start_upload(host, x).wait();
    EXPECT_EQ(cuda_->waits(), waits);
    cuda_->synchronize();
    EXPECT_EQ(cuda_->waits(), waits + 1);
}

TEST_F(GpuEngine, PicturesReachASlowSinkWhole) {
    const Tensor pictures = random_.tensor({83, 32, 48, 3});
    const YuvFormat format;
    const auto relayed = [&](Backend& on, bool slow) {
        std::vector<std::uint8_t> got;
        const FrameSink sink = [&](ConstTensorView frames) {
            if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(3));
            const auto values = frames.span<std::uint8_t>();
            got.insert(got.end(), values.begin(), values.end());
        };
        PictureRelay relay(on, 32, 48, format, sink);
        for (Index first = 0; first < pictures.size(0); first += 11) {
            // As a decoder does: what it gives is gone when `add` returns.
            const Tensor chunk =
                on.upload(pictures.rows(first, std::min(first + 11, pictures.size(0))));
            relay.add(chunk);
        }
        relay.finish();
        return got;
    };
    const auto expected = relayed(*cpu_, false);
    EXPECT_EQ(relayed(*cuda_, false), expected);
    EXPECT_EQ(relayed(*cuda_, true), expected);
}

// Weights of every kind, in more pieces than the ring has slots.
TEST_F(GpuEngine, LoadsTheWeightsThatTheCpuLoads) {
    const TemporaryFolder folder;
    const Tensor large = random_.tensor({3001, 2053});
    const Tensor half = as_bf16(random_.tensor({517, 4096}));
    const Tensor kernel = random_.tensor({6, 5, 3, 3, 3});
    const auto file = folder.path() / "model.safetensors";
    write_safetensors(
        file, std::vector<NamedTensor>{{"flat", large}, {"half", half}, {"kernel", kernel}});
    const Checkpoint checkpoint = Checkpoint::open(file);
    const auto load = [&](Backend& on, const TensorSpec& spec) {
        return checkpoint.load(std::vector{spec}, on, {.prefix = "", .strict = false});
    };
    const Slice cut{large.shape(), {{7, 900, 0}, {2000, 1000, 1100}}, 16, 1900};
    for (const TensorSpec& spec : std::vector<TensorSpec>{
             {.name = "flat", .shape = large.shape()},
             {.name = "flat", .shape = large.shape(), .dtype = DType::bf16},
             {.name = "flat", .shape = {2200, 1920}, .dtype = DType::bf16, .slice = cut},
             {.name = "half", .shape = half.shape(), .dtype = DType::f8_e4m3}}) {
        const Weights expected = load(*cpu_, spec);
        const Weights actual = load(*cuda_, spec);
        expect_same_bytes(cuda_->download(actual[spec.name]), expected[spec.name]);
        if (spec.dtype == DType::f8_e4m3)
            expect_same_bytes(cuda_->download(actual["half.__fp8_scale"]),
                              expected["half.__fp8_scale"]);
    }
    const TensorSpec conv{.name = "kernel", .shape = kernel.shape(), .conv = true};
    expect_same_bytes(cuda_->download(load(*cuda_, conv)["kernel"]),
                      cuda_->download(cuda_->prepare_conv(kernel, DType::f32)));
}

// From the second step on a denoise loop takes no memory from the device and never waits for it. In the
// first one matrix products are timed and plans are made.
TEST_F(GpuEngine, TheSecondStepAsksForNothing) {
    TransformerConfig config;
    config.num_layers = 3;
    config.hidden_size = 256;
    config.head_dim = 64;
    config.num_query_groups = 2;
    config.text_in_channels = 64;
    config.mm_layers = {0, 2};
    config.gelu7_layers = {0};
    config.local_attn_layers = {1};
    config.frame_receptive_field = 1;
    const SequenceShape shape{3, 2, 3, 7, 9};
    for (const DType dtype : {DType::f32, DType::bf16}) {
        Weights weights;
        for (const TensorSpec& spec : transformer_specs(config, dtype)) {
            if (spec.optional) continue;
            const Tensor drawn = random_.tensor(spec.shape, 0.1F);
            weights.put(spec.name,
                        cuda_->upload(spec.dtype == DType::bf16 ? as_bf16(drawn) : drawn.clone()));
        }
        Transformer model(config, std::move(weights), *cuda_);
        const Tensor text = cuda_->upload(random_.tensor({9, 64}));
        const Tensor negative = cuda_->upload(random_.tensor({9, 64}));
        Tensor video = cuda_->upload(random_.tensor({48, 3, 4, 6}));
        Tensor audio = cuda_->upload(random_.tensor({7, 64}));
        model.prepare(shape);
        const MemoryStage stage(
            &memory(), stage_bytes(forward_peak(config, transformer_specs(config, dtype), shape) +
                                   sampler_bytes(config, shape)));
        std::vector<std::pair<std::uint64_t, std::uint64_t>> steps;
        denoise_base(
            model, {.steps = 4, .passes = 2},
            {.text = text, .negative = negative, .image = {}, .audio_fixed = false},
            [](std::string_view, int, TensorView) {}, *cuda_, video, audio,
            [&](const Progress&) { steps.emplace_back(memory().use().asked, cuda_->waits()); });
        ASSERT_EQ(steps.size(), 5U);
        for (std::size_t step = 2; step < steps.size(); ++step)
            EXPECT_EQ(steps[step], steps[1]) << "step " << step;
    }
}

}  // namespace
}  // namespace gallop
