// What this machine's cuDNN offers for the engine's own graphs at the published shapes, on an H100 that need
// not be there: cuDNN takes a description of one, h100.json, whose limits are those of compute capability 9.0
// in the CUDA C++ Programming Guide, the rest the H100 SXM5 80 GB's in NVIDIA's H100 white paper. A driver
// that loads kernels and runs none stands in for the real one.

#include <array>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ops/cuda_dnn.hpp"
#include "ops/cuda_dnn_graphs.hpp"
#include "ops/cudnn_versions.hpp"
#include "ops/frame_stretches.hpp"

namespace gallop {
namespace {

namespace fe = cudnn_frontend;

class CudnnOffers : public ::testing::Test {
protected:
    void SetUp() override {
        void* driver = dlopen(GALLOP_LOADING_DRIVER, RTLD_NOW | RTLD_GLOBAL);
        ASSERT_NE(driver, nullptr) << dlerror();
        loaded_module_ = reinterpret_cast<LoadedModule*>(dlsym(driver, "loaded_module"));
        ASSERT_NE(loaded_module_, nullptr) << dlerror();
        fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
        if (fe::cudnn_dlhandle == nullptr) GTEST_SKIP() << "NOT TESTED, no cuDNN: " << dlerror();
        version_ = fe::detail::get_backend_version();
        if (version_ < 90800 || !trust_in_cudnn(version_).convolution)
            GTEST_SKIP() << "NOT TESTED, cuDNN " << cudnn_version_text(version_)
                         << " takes no description of a GPU, or gives no convolutions";
        std::ifstream file(GALLOP_ROOT "/tests/gpu/h100.json");
        const std::vector<std::uint8_t> json{std::istreambuf_iterator<char>(file), {}};
        ASSERT_FALSE(json.empty());
        auto described = std::make_shared<fe::DeviceProperties>();
        const fe::error_t result = described->deserialize(json);
        ASSERT_TRUE(result.is_good()) << result.err_msg;
        h100_ = described;
    }

    /// "", or why cuDNN has no plan for the graph; `seconds`: what it took to make one.
    std::string problem_of(fe::graph::Graph& graph, CudnnEngines engines,
                           double* seconds = nullptr) const {
        const auto begin = std::chrono::steady_clock::now();
        graph.set_device_properties(h100_);
        std::string problem = find_engines(graph, nullptr, engines);
        std::int64_t workspace = 0;
        if (problem.empty()) problem = build_plan(graph, workspace);
        if (seconds != nullptr)
            *seconds =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return problem;
    }

    /// With a bias and without, each by the plan that cuDNN takes for the fastest.
    void expect_precompiled(const std::vector<CudnnConvolution>& all) const;

    using LoadedModule = std::uint64_t();
    LoadedModule* loaded_module_ = nullptr;  ///< what tells a kernel from another
    std::size_t version_ = 0;
    std::shared_ptr<const fe::DeviceProperties> h100_;
};

/// A convolution in steps of one, padded in Y and X so that a picture keeps its size.
CudnnConvolution convolution(std::array<Index, 4> x, Index out, std::array<Index, 3> kernel) {
    CudnnConvolution made{};
    made.biased = true;
    made.pictures = kernel[0] == 1;
    made.x = x;
    made.y = {x[0] - kernel[0] + 1, x[1], x[2], out};
    made.kernel = kernel;
    made.stride = made.dilation = {1, 1, 1};
    made.before = made.after = {0, kernel[1] / 2, kernel[2] / 2};
    return made;
}

std::string text_of(const CudnnConvolution& c) {
    return fmt::format("[{}, {}, {}, {}] by [{}, {}, {}] to {} channels", c.x[0], c.x[1], c.x[2],
                       c.x[3], c.kernel[0], c.kernel[1], c.kernel[2], c.y[3]);
}

constexpr std::array<Index, 3> cube{3, 3, 3}, square{1, 3, 3}, time{3, 1, 1}, point{1, 1, 1};

/// The frames that a chunk's convolutions over time read at its first, second and later resolutions.
struct Chunk {
    Index first, second, later;
};

/// Those of the turbo decoder for so many latent rows and columns; its steps between resolutions take
/// `block` frames at once.
std::vector<CudnnConvolution> of_turbo_decoder(Index y, Index x, const Chunk& t, Index block) {
    return {convolution({t.first, y, x, 48}, 512, cube),
            convolution({t.first, y, x, 512}, 512, cube),
            convolution({t.first, y, x, 512}, 1024, time),
            convolution({block, 2 * y, 2 * x, 512}, 512, square),
            convolution({t.second, 2 * y, 2 * x, 512}, 512, cube),
            convolution({t.second, 2 * y, 2 * x, 512}, 256, cube),
            convolution({t.second - 2, 2 * y, 2 * x, 512}, 256, point),
            convolution({t.second, 2 * y, 2 * x, 256}, 256, cube),
            convolution({t.second, 2 * y, 2 * x, 256}, 512, time),
            convolution({block, 4 * y, 4 * x, 256}, 256, square),
            convolution({t.later, 4 * y, 4 * x, 256}, 256, cube),
            convolution({t.later, 4 * y, 4 * x, 256}, 128, cube),
            convolution({t.later - 2, 4 * y, 4 * x, 256}, 128, point),
            convolution({t.later, 4 * y, 4 * x, 128}, 128, cube),
            convolution({block, 8 * y, 8 * x, 128}, 128, square),
            convolution({t.later, 8 * y, 8 * x, 128}, 128, cube),
            convolution({t.later, 8 * y, 8 * x, 128}, 64, cube),
            convolution({t.later - 2, 8 * y, 8 * x, 128}, 64, point),
            convolution({t.later, 8 * y, 8 * x, 64}, 64, cube),
            convolution({t.later, 8 * y, 8 * x, 64}, 12, cube)};
}

/// Those of the full decoder.
std::vector<CudnnConvolution> of_full_decoder(Index y, Index x, const Chunk& t, Index block) {
    return {convolution({t.first, y, x, 48}, 48, point),
            convolution({t.first, y, x, 48}, 1024, cube),
            convolution({t.first, y, x, 1024}, 1024, cube),
            convolution({t.first, y, x, 1024}, 2048, time),
            convolution({block, 2 * y, 2 * x, 1024}, 1024, square),
            convolution({t.second, 2 * y, 2 * x, 1024}, 1024, cube),
            convolution({t.second, 2 * y, 2 * x, 1024}, 2048, time),
            convolution({block, 4 * y, 4 * x, 1024}, 1024, square),
            convolution({t.later - 2, 4 * y, 4 * x, 1024}, 512, point),
            convolution({t.later, 4 * y, 4 * x, 1024}, 512, cube),
            convolution({t.later, 4 * y, 4 * x, 512}, 512, cube),
            convolution({block, 8 * y, 8 * x, 512}, 512, square),
            convolution({t.later - 2, 8 * y, 8 * x, 512}, 256, point),
            convolution({t.later, 8 * y, 8 * x, 512}, 256, cube),
            convolution({t.later, 8 * y, 8 * x, 256}, 256, cube),
            convolution({t.later, 8 * y, 8 * x, 256}, 12, cube)};
}

/// What the engine makes of one that is more than a call takes: each of its stretches of frames.
std::vector<CudnnConvolution> in_stretches(const CudnnConvolution& whole) {
    const auto shape_of = [](const std::array<Index, 4>& e) {
        return Shape{e[0], e[1], e[2], e[3]};
    };
    const Shape x = shape_of(whole.x);
    const Shape y = shape_of(whole.y);
    ConvSpec spec;
    spec.stride = whole.stride;
    spec.dilation = whole.dilation;
    std::vector<CudnnConvolution> made;
    for (const FrameStretch& part : frame_stretches(
             x, whole.kernel[0], spec, y, Cudnn::most_elements_of(x), Cudnn::most_elements_of(y))) {
        made.push_back(whole);
        made.back().x[0] = part.last - part.first;
        made.back().y[0] = part.end - part.begin;
    }
    return made;
}

void CudnnOffers::expect_precompiled(const std::vector<CudnnConvolution>& all) const {
    std::set<CudnnConvolution> parts;
    for (const CudnnConvolution& whole : all)
        for (const CudnnConvolution& part : in_stretches(whole)) parts.insert(part);
    for (CudnnConvolution shape : parts)
        for (const bool biased : {true, false}) {
            shape.biased = biased;
            const auto graph = cudnn_graph(shape);
            ASSERT_EQ(problem_of(*graph, CudnnEngines::precompiled), "")
                << text_of(shape) << (biased ? " with a bias" : "");
            // What is left of the list where scratch memory is short is many times slower.
            std::string best, taken;
            ASSERT_TRUE(graph->get_plan_name_at_index(0, best).is_good());
            ASSERT_TRUE(graph->get_plan_name(taken).is_good());
            EXPECT_EQ(taken, best) << text_of(shape) << (biased ? " with a bias" : "");
        }
}

// The first chunk, a later one and the last, of five seconds at 256p, 540p and 1080p.
TEST_F(CudnnOffers, PrecompiledConvolutionsOfTheTurboDecoder) {
    for (const Chunk& chunk : {Chunk{10, 17, 31}, Chunk{11, 20, 38}, Chunk{10, 18, 34}}) {
        expect_precompiled(of_turbo_decoder(16, 28, chunk, 4));
        expect_precompiled(of_turbo_decoder(32, 56, chunk, 2));
        expect_precompiled(of_turbo_decoder(68, 120, chunk, 1));
    }
}

// The same; the first chunk's zeros before the clip are in memory.
TEST_F(CudnnOffers, PrecompiledConvolutionsOfTheFullDecoder) {
    expect_precompiled(of_full_decoder(16, 28, {3, 3, 3}, 1));
    expect_precompiled(of_full_decoder(16, 28, {10, 18, 34}, 2));
    expect_precompiled(of_full_decoder(32, 56, {3, 3, 3}, 1));
    expect_precompiled(of_full_decoder(32, 56, {3, 4, 6}, 1));
    expect_precompiled(of_full_decoder(68, 120, {3, 3, 3}, 1));
    expect_precompiled(of_full_decoder(68, 120, {3, 4, 6}, 1));
}

// As the picture encoder halves; its zeros are in memory.
TEST_F(CudnnOffers, PrecompiledConvolutionsInStepsOfTwo) {
    CudnnConvolution halving = convolution({1, 545, 961, 160}, 160, square);
    halving.before = halving.after = {0, 0, 0};
    halving.stride = {1, 2, 2};
    halving.y = {1, 272, 480, 160};
    expect_precompiled({halving});
}

/// 40 heads over 8 of keys and values, 128 wide.
CudnnAttention attention(Index queries, Index keys) { return {queries, keys, 40, 8, 128, 0.088F}; }

// A frame's window of keys beside all of them.
TEST_F(CudnnOffers, AttentionOfTheTransformer) {
    for (const Index tokens : {4110, 14862, 65806})
        for (const Index keys : {tokens, tokens / 2 + 13, Index{477}})
            EXPECT_EQ(problem_of(*cudnn_graph(attention(tokens, keys)), CudnnEngines::any), "")
                << tokens << " tokens over " << keys;
}

// Prompts of other lengths don't wait for the compiler, and have the kernels that it would have made for
// them alone: whether it takes part of a tile depends on the shape that it was compiled for.
TEST_F(CudnnOffers, KernelsOfAttentionForManyShapes) {
    if (!trust_in_cudnn(version_).shared_kernels)
        GTEST_SKIP() << "NOT TESTED, cuDNN " << cudnn_version_text(version_)
                     << " compiles kernels for each shape";
    std::map<CudnnAttention, std::pair<std::shared_ptr<fe::KernelCache>, double>> known;
    std::set<std::uint64_t> modules;
    for (const auto& [queries, keys] : {std::pair{4096, 4096},
                                        {4110, 4110},
                                        {4352, 4352},
                                        {4114, 4114},
                                        {2040, 46960},
                                        {2040, 30000},
                                        {526, 46976},
                                        {530, 4224},
                                        {2040, 46976},
                                        {64, 192},
                                        {64, 64}}) {
        const CudnnAttention shape = attention(queries, keys);
        const auto own = cudnn_graph(shape);
        ASSERT_EQ(problem_of(*own, CudnnEngines::any), "");
        const std::uint64_t expected = loaded_module_();
        ASSERT_NE(expected, 0U);
        modules.insert(expected);
        auto& [kernels, first] = known[kernel_class(shape)];
        const bool again = kernels != nullptr;
        if (!again) kernels = std::make_shared<fe::KernelCache>();
        const auto sharing = cudnn_graph(shape, kernels);
        double seconds = 0;
        ASSERT_EQ(problem_of(*sharing, CudnnEngines::any, &seconds), "");
        EXPECT_EQ(loaded_module_(), expected) << queries << " queries over " << keys;
        if (again)
            EXPECT_LT(seconds, first / 2) << queries << " queries over " << keys;
        else
            first = seconds;
    }
    EXPECT_EQ(known.size(), 6U);
    EXPECT_GT(modules.size(), 1U);
}

TEST_F(CudnnOffers, NothingForHeadsOfAnOddSize) {
    EXPECT_NE(problem_of(*cudnn_graph(CudnnAttention{64, 64, 1, 1, 129, 1.0F}), CudnnEngines::any),
              "");
}

}  // namespace
}  // namespace gallop
