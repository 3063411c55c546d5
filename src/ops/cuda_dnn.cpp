#include "ops/cuda_dnn.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include <cudnn_frontend.h>
#include <dlfcn.h>

#include "core/check.hpp"
#include "core/device_error.hpp"
#include "core/log.hpp"
#include "ops/cuda_dnn_graphs.hpp"
#include "ops/cuda_memory.hpp"
#include "ops/cudnn_problems.hpp"
#include "ops/cudnn_versions.hpp"

// Where cudnn-frontend looks for cuDNN's functions.
void* cudnn_frontend::cudnn_dlhandle = nullptr;

namespace gallop {
namespace {

namespace fe = cudnn_frontend;

/// Plans of attention that are kept: prompts of every length ask for their own.
constexpr std::size_t most_attentions = 512;

using Pointers = std::unordered_map<std::int64_t, void*>;

/// A graph that may get a plan, of the engines that may give it.
struct Candidate {
    std::shared_ptr<fe::graph::Graph> graph;
    CudnnEngines engines;
};

/// A graph with a plan, ready to run.
struct Plan {
    std::shared_ptr<fe::graph::Graph> graph;  ///< null where cuDNN has none
    std::int64_t workspace = 0;
    std::uint64_t last_call = 0;  ///< of all calls
};

class OpenCudnn final : public Cudnn {
public:
    OpenCudnn(Memory& memory, cudaStream_t stream, const CudnnTrust& trust)
        : memory_(memory), stream_(stream), trust_(trust) {
        const cudnnStatus_t made = fe::detail::create_handle(&handle_);
        // A neighbour with memory to spare would compute other bits.
        if (made == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
            made == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)
            throw OutOfMemoryError("no memory for cuDNN's handle");
        CHECK(made == CUDNN_STATUS_SUCCESS, "cuDNN gives no handle: {}",
              fe::detail::get_error_string(made));
        if (fe::detail::set_stream(handle_, stream) != CUDNN_STATUS_SUCCESS) {
            fe::detail::destroy_handle(handle_);
            throw Error("cuDNN does not take the stream");
        }
    }
    ~OpenCudnn() override {
        attentions_.clear();
        convolutions_.clear();
        kernels_.clear();
        fe::detail::destroy_handle(handle_);
    }

    std::string version() const override {
        return cudnn_version_text(fe::detail::get_backend_version());
    }

    bool attend(ConstTensorView q, ConstTensorView k, ConstTensorView v, float scale,
                TensorView y) override {
        if (!trust_.attention || !small_enough(q) || !small_enough(k)) return false;
        const CudnnAttention shape{q.size(0), k.size(0), q.size(1), k.size(1), q.size(2), scale};
        if (attentions_.size() >= most_attentions && !attentions_.contains(shape))
            forget_an_attention();
        const auto candidates = [&] {
            std::vector<Candidate> made;
            if (trust_.shared_kernels)
                made.push_back({cudnn_graph(shape, kernels_for(shape)), CudnnEngines::any});
            made.push_back({cudnn_graph(shape), CudnnEngines::any});
            return made;
        };
        const Plan* plan = plan_of(attentions_, shape, candidates, [&] {
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
        CudnnConvolution shape{};
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
        const auto candidates = [&] {
            return std::vector<Candidate>{{cudnn_graph(shape), CudnnEngines::precompiled},
                                          {cudnn_graph(shape), CudnnEngines::any}};
        };
        const Plan* plan = plan_of(convolutions_, shape, candidates, [&] {
            return fmt::format("convolution of {} by {}{}", to_string(x.shape()),
                               to_string(kernel.shape()), shape.biased ? " with a bias" : "");
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

    /// What has been compiled for shapes that may share their kernels with this one.
    std::shared_ptr<fe::KernelCache> kernels_for(const CudnnAttention& shape) {
        std::shared_ptr<fe::KernelCache>& kernels = kernels_[kernel_class(shape)];
        if (kernels == nullptr) kernels = std::make_shared<fe::KernelCache>();
        return kernels;
    }

    /// The plan for a shape, made when first asked for of the first of `candidates()` that has one; null
    /// when cuDNN has none. `name` says what it is for.
    template <class Shape, class Candidates, class Name>
    const Plan* plan_of(std::map<Shape, Plan>& plans, const Shape& shape,
                        const Candidates& candidates, const Name& name) {
        auto found = plans.find(shape);
        if (found == plans.end()) {
            Plan plan;
            std::string problem;
            for (const Candidate& candidate : candidates()) {
                plan.graph = candidate.graph;
                problem = find_engines(*plan.graph, handle_, candidate.engines);
                if (problem.empty()) problem = build_plan(*plan.graph, plan.workspace);
                if (is_about_memory(problem))
                    throw OutOfMemoryError(
                        fmt::format("cuDNN's plan for {}: {}; GALLOP_CUDNN=off does without it",
                                    name(), problem));
                if (problem.empty()) break;
                plan.graph = nullptr;
            }
            if (!problem.empty())
                log_warning("cudnn not used, which is slow for=\"{}\" reason=\"{}\" hint=\"{}\"",
                            name(), problem, advice_on(problem));
            found = plans.emplace(shape, std::move(plan)).first;
        }
        found->second.last_call = ++calls_;
        return found->second.graph == nullptr ? nullptr : &found->second;
    }

    /// Drops the plan of attention that was last called for before all others.
    void forget_an_attention() {
        check_cuda(cudaStreamSynchronize(stream_), "waiting for attention");
        attentions_.erase(std::min_element(attentions_.begin(), attentions_.end(),
                                           [](const auto& one, const auto& other) {
                                               return one.second.last_call < other.second.last_call;
                                           }));
    }

    void run(const Plan& plan, Pointers parts) {
        Tensor workspace({std::max<std::int64_t>(plan.workspace, 1)}, DType::u8, memory_);
        const auto execute = [&] {
            return plan.graph->execute(handle_, parts, static_cast<void*>(workspace.view().raw()));
        };
        fe::error_t result = execute();
        if (result.is_good()) [[likely]]
            return;
        bool memory = is_about_memory(result.err_msg);
        if (!memory && freed_for_driver(stream_)) {
            result = execute();
            if (result.is_good()) return;
            memory = true;
        }
        if (memory) throw OutOfMemoryError("cuDNN: " + result.err_msg);
        throw DeviceError("cuDNN: " + result.err_msg);
    }

    Memory& memory_;
    cudaStream_t stream_;
    CudnnTrust trust_;
    cudnnHandle_t handle_ = nullptr;
    std::uint64_t calls_ = 0;
    std::map<CudnnAttention, std::shared_ptr<fe::KernelCache>> kernels_;  ///< by kernel_class
    std::map<CudnnAttention, Plan> attentions_;
    std::map<CudnnConvolution, Plan> convolutions_;
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
    } catch (const OutOfMemoryError&) {
        throw;
    } catch (
        const std::runtime_error& failed) {  // Error is one; so is what a missing symbol throws
        log_warning("cudnn not used reason=\"{}\"", failed.what());
        return nullptr;
    }
}

}  // namespace gallop
