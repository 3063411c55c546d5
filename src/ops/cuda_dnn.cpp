#include "ops/cuda_dnn.hpp"

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include <cudnn_frontend.h>
#include <dlfcn.h>

#include "core/check.hpp"
#include "core/device_error.hpp"
#include "core/log.hpp"
#include "ops/cudnn_problems.hpp"
#include "ops/cudnn_versions.hpp"

// Where cudnn-frontend looks for cuDNN's functions.
void* cudnn_frontend::cudnn_dlhandle = nullptr;

namespace gallop {
namespace {

namespace fe = cudnn_frontend;

/// No plan may ask for more scratch memory than this.
constexpr std::int64_t most_workspace = std::int64_t{1} << 30;
/// Plans of attention that are kept: prompts of every length ask for their own.
constexpr std::size_t most_attentions = 512;
/// The kernels are compiled for 9.0, so the device is one.
constexpr std::int32_t architecture = 90;

/// Names of a graph's arrays in its calls.
enum Part : std::int64_t { q_part = 1, k_part, v_part, x_part, kernel_part, bias_part, y_part };

using Extents = std::vector<std::int64_t>;
using Pointers = std::unordered_map<std::int64_t, void*>;

/// A graph with a plan, ready to run.
struct Plan {
    std::shared_ptr<fe::graph::Graph> graph;
    std::int64_t workspace = 0;
};

fe::graph::Tensor_attributes part(Part id, Extents extents, Extents strides,
                                  fe::DataType_t dtype = fe::DataType_t::BFLOAT16) {
    fe::graph::Tensor_attributes made;
    made.set_uid(id)
        .set_dim(std::move(extents))
        .set_stride(std::move(strides))
        .set_data_type(dtype);
    return made;
}

std::shared_ptr<fe::graph::Graph> new_graph() {
    auto graph = std::make_shared<fe::graph::Graph>();
    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    // Else cudnn-frontend asks a CUDA runtime that it looks for by itself, which may be another one.
    graph->set_sm_version(architecture);
    return graph;
}

/// What an attention's plan is made for.
struct AttentionShape {
    Index queries, keys, heads, groups, size;
    float scale;
    auto operator<=>(const AttentionShape&) const = default;
};

std::shared_ptr<fe::graph::Graph> attention_graph(const AttentionShape& s) {
    // [rows, heads, size] in memory is [1, heads, rows, size] to cuDNN.
    const auto heads = [&](Part id, Index rows, Index count) {
        return part(id, {1, count, rows, s.size},
                    {rows * count * s.size, s.size, count * s.size, 1});
    };
    auto graph = new_graph();
    const auto q = graph->tensor(heads(q_part, s.queries, s.heads));
    const auto k = graph->tensor(heads(k_part, s.keys, s.groups));
    const auto v = graph->tensor(heads(v_part, s.keys, s.groups));
    fe::graph::SDPA_attributes how;
    how.set_name("attention").set_generate_stats(false).set_attn_scale(s.scale);
    const auto [y, stats] = graph->sdpa(q, k, v, how);
    y->set_output(true)
        .set_uid(y_part)
        .set_dim({1, s.heads, s.queries, s.size})
        .set_stride({s.queries * s.heads * s.size, s.size, s.heads * s.size, 1});
    return graph;
}

/// What a convolution's plan is made for. Without extent in time it is one of pictures, T of them.
struct ConvolutionShape {
    bool pictures, biased;
    std::array<Index, 4> x, y;  ///< T, Y, X, C
    std::array<Index, 3> kernel, stride, before, after, dilation;
    auto operator<=>(const ConvolutionShape&) const = default;
};

std::shared_ptr<fe::graph::Graph> convolution_graph(const ConvolutionShape& s) {
    // Channels-last in memory, channels first in cuDNN's order of extents.
    const auto picture = [&](Part id, const std::array<Index, 4>& e) {
        const auto [t, rows, columns, channels] = e;
        const Index row = columns * channels;
        return s.pictures ? part(id, {t, channels, rows, columns}, {rows * row, 1, row, channels})
                          : part(id, {1, channels, t, rows, columns},
                                 {t * rows * row, 1, rows * row, row, channels});
    };
    const auto spatial = [&](const std::array<Index, 3>& all) {
        return Extents(all.begin() + (s.pictures ? 1 : 0), all.end());
    };
    auto graph = new_graph();
    const auto x = graph->tensor(picture(x_part, s.x));
    const Index in = s.x[3];
    const Index out = s.y[3];
    const auto kernel = graph->tensor(
        picture(kernel_part, {s.pictures ? out : s.kernel[0], s.kernel[1], s.kernel[2], in}));
    if (!s.pictures) {
        // As `picture`, but for the extent in front.
        const Index row = s.kernel[2] * in;
        kernel->set_dim({out, in, s.kernel[0], s.kernel[1], s.kernel[2]})
            .set_stride({s.kernel[0] * s.kernel[1] * row, 1, s.kernel[1] * row, row, in});
    }
    fe::graph::Conv_fprop_attributes how;
    how.set_name("convolution")
        .set_pre_padding(spatial(s.before))
        .set_post_padding(spatial(s.after))
        .set_stride(spatial(s.stride))
        .set_dilation(spatial(s.dilation));
    auto y = graph->conv_fprop(x, kernel, how);
    if (s.biased) {
        y->set_data_type(fe::DataType_t::FLOAT);
        Extents extents(s.pictures ? 4 : 5, 1);
        Extents strides(extents.size(), out);
        extents[1] = out;
        strides[1] = 1;
        const auto bias = graph->tensor(part(bias_part, extents, strides, fe::DataType_t::FLOAT));
        fe::graph::Pointwise_attributes add;
        add.set_name("bias").set_mode(fe::PointwiseMode_t::ADD);
        y = graph->pointwise(y, bias, add);
    }
    const fe::graph::Tensor_attributes like = picture(y_part, s.y);
    y->set_output(true)
        .set_uid(y_part)
        .set_dim(like.get_dim())
        .set_stride(like.get_stride())
        .set_data_type(fe::DataType_t::BFLOAT16);
    return graph;
}

class OpenCudnn final : public Cudnn {
public:
    OpenCudnn(Memory& memory, cudaStream_t stream, const CudnnTrust& trust)
        : memory_(memory), stream_(stream), trust_(trust) {
        CHECK(fe::detail::create_handle(&handle_) == CUDNN_STATUS_SUCCESS, "cuDNN gives no handle");
        if (fe::detail::set_stream(handle_, stream) != CUDNN_STATUS_SUCCESS) {
            fe::detail::destroy_handle(handle_);
            throw Error("cuDNN does not take the stream");
        }
    }
    ~OpenCudnn() override {
        attentions_.clear();
        convolutions_.clear();
        fe::detail::destroy_handle(handle_);
    }

    bool attend(ConstTensorView q, ConstTensorView k, ConstTensorView v, float scale,
                TensorView y) override {
        if (!trust_.attention || !small_enough(q) || !small_enough(k)) return false;
        const AttentionShape shape{q.size(0), k.size(0), q.size(1), k.size(1), q.size(2), scale};
        if (attentions_.size() >= most_attentions && !attentions_.contains(shape)) {
            check_cuda(cudaStreamSynchronize(stream_), "waiting for attention");
            attentions_.clear();
        }
        const Plan* plan = plan_of(attentions_, shape, attention_graph, [&] {
            return fmt::format("attention of {} over {}", to_string(q.shape()),
                               to_string(k.shape()));
        });
        if (plan == nullptr) return false;
        run(*plan,
            {{q_part, address(q)}, {k_part, address(k)}, {v_part, address(v)}, {y_part, y.raw()}});
        return true;
    }

    bool convolves() const override { return trust_.convolution; }

    bool convolve(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                  const ConvSpec& spec, TensorView y) override {
        if (!small_enough(x) || !small_enough(y)) return false;
        ConvolutionShape shape{};
        shape.biased = bias.defined();
        for (std::size_t axis = 0; axis < 4; ++axis) {
            shape.x[axis] = x.size(axis);
            shape.y[axis] = y.size(axis);
        }
        for (std::size_t axis = 0; axis < 3; ++axis) shape.kernel[axis] = kernel.size(2 + axis);
        shape.stride = spec.stride;
        shape.before = spec.pad_before;
        shape.after = spec.pad_after;
        shape.dilation = spec.dilation;
        shape.pictures =
            shape.kernel[0] == 1 && spec.stride[0] == 1 && shape.before[0] + shape.after[0] == 0;
        const Plan* plan = plan_of(convolutions_, shape, convolution_graph, [&] {
            return fmt::format("convolution of {} by {}", to_string(x.shape()),
                               to_string(kernel.shape()));
        });
        if (plan == nullptr) return false;
        Pointers parts{{x_part, address(x)}, {kernel_part, address(kernel)}, {y_part, y.raw()}};
        if (bias.defined()) parts[bias_part] = address(bias);
        run(*plan, std::move(parts));
        return true;
    }

private:
    static bool small_enough(ConstTensorView x) {
        return x.numel() > 0 && x.numel() <= most_elements;
    }
    static void* address(ConstTensorView x) { return const_cast<std::byte*>(x.raw()); }

    /// The plan for a shape, made when first asked for; null when cuDNN has none.
    template <class Shape, class Describe, class Name>
    const Plan* plan_of(std::map<Shape, std::optional<Plan>>& plans, const Shape& shape,
                        const Describe& describe, const Name& name) {
        const auto found = plans.find(shape);
        if (found != plans.end()) return found->second ? &*found->second : nullptr;
        Plan plan{describe(shape), 0};
        const std::string problem = prepare(plan);
        if (is_about_memory(problem))
            throw OutOfMemoryError(fmt::format(
                "cuDNN's plan for {}: {}; GALLOP_CUDNN=off does without it", name(), problem));
        if (!problem.empty())
            log_warning("cudnn not used for=\"{}\" reason=\"{}\"", name(), problem);
        auto& kept = plans[shape];
        if (problem.empty()) kept = std::move(plan);
        return kept ? &*kept : nullptr;
    }

    /// Finds a plan. "" or why there is none.
    std::string prepare(Plan& plan) {
        fe::graph::Graph& graph = *plan.graph;
        for (const auto& step : std::initializer_list<std::function<fe::error_t()>>{
                 [&] { return graph.validate(); },
                 [&] { return graph.build_operation_graph(handle_); },
                 [&] {
                     return graph.create_execution_plans(
                         {fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
                 },
                 [&] {
                     graph.deselect_workspace_greater_than(most_workspace);
                     graph.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
                     return graph.check_support();
                 },
                 [&] { return graph.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE); },
                 [&] { return graph.get_workspace_size(plan.workspace); }}) {
            try {
                const fe::error_t result = step();
                if (result.is_bad()) return result.err_msg.empty() ? "unsupported" : result.err_msg;
            } catch (const std::runtime_error& missing) {  // a symbol that an older cuDNN lacks
                return missing.what();
            }
        }
        return "";
    }

    void run(const Plan& plan, Pointers parts) {
        Tensor workspace({std::max<std::int64_t>(plan.workspace, 1)}, DType::u8, memory_);
        const fe::error_t result =
            plan.graph->execute(handle_, parts, static_cast<void*>(workspace.view().raw()));
        if (result.is_good()) return;
        if (is_about_memory(result.err_msg)) throw OutOfMemoryError("cuDNN: " + result.err_msg);
        throw DeviceError("cuDNN: " + result.err_msg);
    }

    Memory& memory_;
    cudaStream_t stream_;
    CudnnTrust trust_;
    cudnnHandle_t handle_ = nullptr;
    std::map<AttentionShape, std::optional<Plan>> attentions_;
    std::map<ConvolutionShape, std::optional<Plan>> convolutions_;
};

}  // namespace

std::unique_ptr<Cudnn> open_cudnn(Memory& memory, cudaStream_t stream) {
    // It stays open: what it has started may outlive a backend.
    static void* library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
        const char* reason = dlerror();
        log_info("cudnn not used reason=\"{}\"", reason == nullptr ? "not found" : reason);
        return nullptr;
    }
    fe::cudnn_dlhandle = library;
    try {
        const std::size_t version = fe::detail::get_backend_version();
        const CudnnTrust trust = trust_in_cudnn(version);
        if (!trust.why.empty()) log_warning("cudnn used in part or not reason=\"{}\"", trust.why);
        if (!trust.attention && !trust.convolution) return nullptr;
        auto opened = std::make_unique<OpenCudnn>(memory, stream, trust);
        log_info("cudnn version={}", cudnn_version_text(version));
        return opened;
    } catch (
        const std::runtime_error& failed) {  // Error is one; so is what a missing symbol throws
        log_warning("cudnn not used reason=\"{}\"", failed.what());
        return nullptr;
    }
}

}  // namespace gallop
