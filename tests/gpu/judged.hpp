#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "core/device_error.hpp"
#include "model/make_model.hpp"
#include "ops/cuda_backend.hpp"
#include "pipeline/render.hpp"
#include "support/expect_near.hpp"
#include "support/temporary_folder.hpp"

namespace gallop::test {

/// The project's files: where they were when this was compiled, or where $GALLOP_TREE says (programs
/// that were packed on another machine).
inline std::filesystem::path tree() {
    const char* moved = std::getenv("GALLOP_TREE");
    return moved != nullptr ? moved : GALLOP_ROOT;
}

/// ‖x − truth‖₂ / ‖truth‖₂, of one array or of several together.
class RelativeL2 {
public:
    RelativeL2() = default;
    RelativeL2(const std::vector<float>& x, const std::vector<float>& truth) { add(x, truth); }

    void add(const std::vector<float>& x, const std::vector<float>& truth) {
        ASSERT_EQ(x.size(), truth.size());
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double error = static_cast<double>(x[i]) - truth[i];
            error_ += error * error;
            size_ += static_cast<double>(truth[i]) * truth[i];
        }
    }
    double value() const { return std::isnan(error_) ? INFINITY : std::sqrt(error_ / size_); }

private:
    double error_ = 0;
    double size_ = 0;
};

/// Whole networks and pipelines on one backend, judged by the CPU's. The parameter names the one that is
/// judged: "cuda", "cuda_without_cudnn", or "cpu", the CPU's own on one thread, which shows on every machine
/// that what is asked here can be met, and that it is asked.
class Judged : public ::testing::TestWithParam<std::string> {
protected:
    static std::unique_ptr<Backend> make() {
        if (GetParam() == "cpu") return make_cpu_backend(1);
        return make_cuda_backend(CudaOptions{.cudnn = GetParam() == "cuda"});
    }

    void SetUp() override {
        try {
            judged_ = make();
        } catch (const NoDeviceError& error) {
            // A machine that is there to test its GPU says so and gets no way out.
            if (std::getenv("GALLOP_TEST_NEEDS_GPU") != nullptr) FAIL() << error.what();
            GTEST_SKIP() << "NOT TESTED, no usable GPU: " << error.what();
        }
    }

    /// A model folder of all published parts with random weights, at sizes that the GPU has paths of its
    /// own for (heads of 64, channels in multiples of 16) and widths that it pads.
    static const std::filesystem::path& model() {
        static const TemporaryFolder folder;
        static const std::filesystem::path made = [] {
            make_model(tree() / "tests/gpu/network.json", folder / "model", 1);
            return folder / "model";
        }();
        return made;
    }

    /// Its renderer.
    static ModelChoice choice(Precision precision) {
        return {
            .path = model().string(), .arch = {}, .precision = precision, .fp8 = {.layers = "all"}};
    }

    /// No larger than 1.1 × what the same casts cost on the CPU, both against fp32 on the CPU.
    static void expect_no_worse(const char* what, double judged, double cpu) {
        std::printf("relative L2 to fp32 of %s: %.3e (the CPU's: %.3e)\n", what, judged, cpu);
        EXPECT_GT(cpu, 1e-5) << what << ": was anything rounded?";
        EXPECT_LE(judged, 1.1 * cpu) << what;
    }

    std::unique_ptr<Backend> reference_ = make_cpu_backend();
    std::unique_ptr<Backend> judged_;
};

/// Those that this build can judge, from CMake.
inline std::vector<std::string> judged_backends() {
    std::vector<std::string> names{"cpu"};
    if (std::string(GALLOP_JUDGED) == "cuda") names.emplace_back("cuda");
    return names;
}

}  // namespace gallop::test
