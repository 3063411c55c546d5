#include "ops/cuda_dnn_graphs.hpp"

#include <functional>
#include <initializer_list>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "ops/workspace.hpp"

namespace gallop {
namespace {

namespace fe = cudnn_frontend;

/// The kernels are compiled for 9.0, so the device is one.
constexpr std::int32_t architecture = 90;

using Extents = std::vector<std::int64_t>;

fe::graph::Tensor_attributes part(CudnnPart id, Extents extents, Extents strides) {
    fe::graph::Tensor_attributes made;
    made.set_uid(id)
        .set_dim(std::move(extents))
        .set_stride(std::move(strides))
        .set_data_type(fe::DataType_t::BFLOAT16);
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

/// "" once all steps are done, else what the first says that isn't.
std::string problem_of(std::initializer_list<std::function<fe::error_t()>> steps) {
    for (const auto& step : steps) {
        try {
            const fe::error_t result = step();
            if (result.is_bad()) return result.err_msg.empty() ? "unsupported" : result.err_msg;
        } catch (const std::runtime_error& missing) {  // a symbol that an older cuDNN lacks
            return missing.what();
        }
    }
    return "";
}

}  // namespace

CudnnAttention kernel_class(const CudnnAttention& shape) {
    constexpr Index most = 256;  // the longest tile's rows, twice
    CudnnAttention made = shape;
    made.queries = std::gcd(shape.queries, most);
    made.keys = std::gcd(shape.keys, most);
    return made;
}

std::shared_ptr<fe::graph::Graph> cudnn_graph(const CudnnAttention& s,
                                              std::shared_ptr<fe::KernelCache> kernels) {
    // [rows, heads, size] in memory is [1, heads, rows, size] to cuDNN.
    const auto heads = [&](CudnnPart id, Index rows, Index count) {
        return part(id, {1, count, rows, s.size},
                    {rows * count * s.size, s.size, count * s.size, 1});
    };
    auto graph = new_graph();
    // Before the node is made: it is another one for extents that vary.
    if (kernels != nullptr)
        graph->set_dynamic_shape_enabled(true).set_kernel_cache(std::move(kernels));
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

std::shared_ptr<fe::graph::Graph> cudnn_graph(const CudnnConvolution& s) {
    // Channels-last in memory, channels first in cuDNN's order of extents.
    const auto picture = [&](CudnnPart id, const std::array<Index, 4>& e) {
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
        const auto bias = graph->tensor(part(bias_part, extents, strides));
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

std::string find_engines(fe::graph::Graph& graph, cudnnHandle_t handle, CudnnEngines engines) {
    return problem_of(
        {[&] { return graph.validate(); }, [&] { return graph.build_operation_graph(handle); },
         [&] {
             return graph.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
         },
         [&] {
             graph.deselect_workspace_greater_than(std::int64_t{most_workspace});
             graph.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
             if (engines == CudnnEngines::precompiled)
                 graph.deselect_behavior_notes({fe::BehaviorNote_t::RUNTIME_COMPILATION});
             return graph.check_support();
         }});
}

std::string build_plan(fe::graph::Graph& graph, std::int64_t& workspace) {
    return problem_of({[&] { return graph.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE); },
                       [&] { return graph.get_workspace_size(workspace); }});
}

}  // namespace gallop
