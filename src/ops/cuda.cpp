#include "core/cuda.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "core/check.hpp"
#include "core/group_nccl.hpp"
#include "ops/cuda_arrays.hpp"
#include "ops/cuda_attention.hpp"
#include "ops/cuda_backend.hpp"
#include "ops/cuda_conv.hpp"
#include "ops/cuda_dnn.hpp"
#include "ops/cuda_gemm.hpp"
#include "ops/cuda_memory.hpp"
#include "ops/pool_memory.hpp"

namespace gallop {
namespace {

using kernels::launch;

static_assert(static_cast<int>(Activation::clamp) == static_cast<int>(kernels::Activation::clamp) &&
              static_cast<int>(Activation::silu) == static_cast<int>(kernels::Activation::silu) &&
              static_cast<int>(NormSpec::Kind::l2) == static_cast<int>(kernels::NormKind::l2) &&
              static_cast<int>(NormSpec::Kind::rms) == static_cast<int>(kernels::NormKind::rms));

Index width(ConstTensorView x) { return x.shape().back(); }
Index rows(ConstTensorView x) { return width(x) == 0 ? 0 : x.numel() / width(x); }

kernels::Experts experts(Segments segments, Index all_rows) {
    kernels::Experts made{};
    CHECK(segments.size() <= kernels::Experts::most, "{} experts (at most {})", segments.size(),
          int{kernels::Experts::most});
    Index end = 0;
    for (const Index count : segments) made.ends[made.count++] = end += count;
    if (made.count == 0) made.ends[made.count++] = all_rows;
    return made;
}

/// All work goes to one stream, but for downloads that were started: they have one of their own. Only
/// upload, download, embed, all_finite and synchronize wait.
class CudaBackend final : public Backend {
public:
    explicit CudaBackend(const CudaOptions& options)
        : device_(opened(options.device)),
          stream_(make_stream()),
          downloads_(make_stream()),
          memory_(device_, stream_.get()),
          pages_(device_),
          transfers_(pages_),
          gemm_(memory_, stream_.get(), GemmChoices(options.cache, gemm_platform(device_)),
                options.tune),
          cudnn_(options.cudnn ? open_cudnn(memory_, stream_.get()) : nullptr),
          attention_(*this, stream_.get(), gemm_, cudnn_.get()),
          convolution_(*this, stream_.get(),
                       cudnn_ && cudnn_->convolves() ? cudnn_.get() : nullptr) {}
    ~CudaBackend() override {
        static_cast<void>(cudaStreamSynchronize(downloads_.get()));
        static_cast<void>(cudaStreamSynchronize(stream_.get()));
    }

    Device device() const override { return Device::cuda; }
    std::string name() const override { return "cuda"; }
    std::string made_of() const override {
        return gemm_platform(device_) + ", " +
               (cudnn_ ? "cuDNN " + cudnn_->version() : "no cuDNN: own attention and convolutions");
    }
    Memory& memory() override { return memory_; }
    Memory& transfer_memory() override { return transfers_; }
    /// Rows that the tensor cores' loads can take whole: 13652 bf16 are not a multiple of 16 bytes.
    Index matrix_unit(DType dtype) const override { return dtype == DType::f32 ? 1 : 128; }
    void synchronize() override {
        count_wait();
        check_cuda(cudaStreamSynchronize(queue()), "waiting for the device");
    }
    std::unique_ptr<Group> join_group(const GroupSeat& seat) override {
        return make_nccl_group(seat, queue());
    }

private:
    int device_;
    Stream stream_;
    Stream downloads_;
    StreamMemory memory_;
    PinnedPages pages_;
    PoolMemory transfers_;
    CudaGemm gemm_;
    std::unique_ptr<Cudnn> cudnn_;  ///< null: own kernels only
    CudaAttention attention_;
    CudaConvolution convolution_;

    static int opened(int device) {
        open_device(device);
        return device;
    }

    /// The stream, with its device made current: the caller may be a thread that never saw it.
    cudaStream_t queue() {
        check_cuda(cudaSetDevice(device_), "choosing the GPU");
        return stream_.get();
    }

    /// Host values in device memory.
    template <class T>
    Tensor uploaded(std::span<const T> host) {
        Tensor made = empty({static_cast<Index>(host.size())}, DTypeOf<T>::value);
        if (!host.empty()) copy_and_wait(made.view().raw(), host.data(), made.bytes());
        return made;
    }

    void copy_and_wait(void* to, const void* from, std::size_t bytes) {
        if (bytes == 0) return;
        check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, queue()),
                   "copying between host and device");
        synchronize();
    }

    void do_upload(ConstTensorView host, TensorView device) override {
        check_on_gpu(device);
        copy_and_wait(device.raw(), host.raw(), host.bytes());
    }

    void do_download(ConstTensorView device, TensorView host) override {
        check_on_gpu(device);
        copy_and_wait(host.raw(), device.raw(), device.bytes());
    }

    Copy do_start_upload(ConstTensorView host, TensorView device) override {
        check_on_gpu(device);
        return start(queue(), device.raw(), host.raw(), host.bytes());
    }

    Copy do_start_download(ConstTensorView device, TensorView host) override {
        check_on_gpu(device);
        const Event asked = make_event();
        check_cuda(cudaEventRecord(asked.get(), queue()), "marking a place in the queue");
        check_cuda(cudaStreamWaitEvent(downloads_.get(), asked.get(), 0), "ordering a copy");
        return start(downloads_.get(), host.raw(), device.raw(), host.bytes());
    }

    Copy start(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
        if (bytes == 0) return {};
        check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream),
                   "copying between host and device");
        const auto done = std::make_shared<const Event>(make_event());
        check_cuda(cudaEventRecord(done->get(), stream), "marking a copy's end");
        return Copy([done, device = device_] {
            check_cuda(cudaSetDevice(device), "choosing the GPU");
            check_cuda(cudaEventSynchronize(done->get()), "copying between host and device");
        });
    }

    /// A point in a stream; who waits for it sleeps.
    static Event make_event() {
        Event event;
        check_cuda(
            cudaEventCreateWithFlags(event.out(), cudaEventDisableTiming | cudaEventBlockingSync),
            "making an event");
        return event;
    }

    void do_copy(ConstTensorView from, TensorView to) override {
        check_on_gpu(from);
        check_on_gpu(to);
        if (from.dtype() != to.dtype())
            return launch(kernels::Convert{in(from), out(to), from.numel()}, queue());
        if (from.bytes() > 0)
            check_cuda(cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDeviceToDevice,
                                       queue()),
                       "copying on the device");
    }

    void do_fill_zero(TensorView y) override {
        check_on_gpu(y);
        if (y.bytes() > 0)
            check_cuda(cudaMemsetAsync(y.raw(), 0, y.bytes(), queue()), "filling with zeros");
    }

    /// y[i₀, i₁, …] = x[offset + Σ iₐ·strides[a]].
    void gather(ConstTensorView x, std::span<const Index> extents, std::span<const Index> strides,
                Index offset, TensorView y) {
        check_on_gpu(x);
        check_on_gpu(y);
        kernels::Gather arguments{x.raw(),
                                  y.raw(),
                                  static_cast<int>(size_of(x.dtype())),
                                  static_cast<int>(extents.size()),
                                  {},
                                  {},
                                  offset};
        std::copy(extents.begin(), extents.end(), arguments.extents);
        std::copy(strides.begin(), strides.end(), arguments.strides);
        launch(arguments, queue());
    }

    void do_permute(ConstTensorView x, const Shape& shape, std::span<const int> order,
                    TensorView y) override {
        std::array<Index, Shape::max_rank> x_strides{};
        Index step = 1;
        for (std::size_t axis = shape.rank(); axis-- > 0;) {
            x_strides[axis] = step;
            step *= shape[axis];
        }
        std::array<Index, Shape::max_rank> extents{};
        std::array<Index, Shape::max_rank> strides{};
        for (std::size_t axis = 0; axis < order.size(); ++axis) {
            const auto from = static_cast<std::size_t>(order[axis]);
            extents[axis] = shape[from];
            strides[axis] = x_strides[from];
        }
        gather(x, {extents.data(), order.size()}, {strides.data(), order.size()}, 0, y);
    }

    void do_columns(ConstTensorView x, Index begin, TensorView y) override {
        gather(x, std::array{y.size(0), y.size(1)}, std::array{x.size(1), Index{1}}, begin, y);
    }

    void do_mean_channels(ConstTensorView x, Index n, TensorView y) override {
        launch(kernels::MeanRuns{in(x), out(y), y.numel(), n}, queue());
    }

    void do_repeat_channels(ConstTensorView x, Index n, TensorView y) override {
        gather(x, std::array{x.numel(), n}, std::array{Index{1}, Index{0}}, 0, y);
    }

    void do_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                   Segments segments, TensorView y) override {
        for (const ConstTensorView& part : {x, weight, ConstTensorView(y)}) check_on_gpu(part);
        const Index depth = width(x);
        const Index outs = width(y);
        if (y.numel() == 0) return;
        const ConstTensorView x_rows = x.reshape({rows(y), depth});
        const TensorView y_rows = y.reshape({rows(y), outs});
        Index first = 0;
        for (std::size_t e = 0; e < segments.size(); ++e) {
            const Index last = first + segments[e];
            const Index w = static_cast<Index>(e) * outs;
            if (first < last)
                multiply(x_rows.rows(first, last), weight.rows(w, w + outs),
                         bias.defined() ? floats(bias) + w : nullptr, y_rows.rows(first, last));
            first = last;
        }
    }

    /// y = x·wᵀ + bias (or null), rounded once: with a bias, a bf16 result goes through f32.
    void multiply(ConstTensorView x, ConstTensorView w, const float* bias, TensorView y) {
        queue();
        if (x.dtype() == DType::f32 && bias != nullptr && w.size(1) > 0)
            return gemm_.run({.x = x, .w = w, .y = y, .bias = bias});
        Tensor wide = bias == nullptr || y.dtype() == DType::f32 ? Tensor() : empty(y.shape());
        const TensorView sums = wide.defined() ? wide.view() : y;
        if (w.size(1) > 0)
            gemm_.run({.x = x, .w = w, .y = sums});
        else
            do_fill_zero(sums);
        if (bias == nullptr) return;
        launch(kernels::Affine{in(sums), nullptr, bias, out(y), y.size(0), y.size(1)}, queue());
    }

    void do_quantise(ConstTensorView x, TensorView q, TensorView scales) override {
        launch(quantise(x, q, scales), queue());
    }

    void do_norm_quantised(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                           Segments segments, TensorView q, TensorView scales) override {
        kernels::Quantise arguments = quantise(x, q, scales);
        arguments.normed = true;
        arguments.weight = optional_floats(weight);
        arguments.experts = experts(segments, rows(x));
        arguments.kind = static_cast<kernels::NormKind>(spec.kind);
        arguments.eps = spec.eps;
        launch(arguments, queue());
    }

    static kernels::Quantise quantise(ConstTensorView x, TensorView q, TensorView scales) {
        check_on_gpu(q);
        kernels::Quantise made{};
        made.x = in(x);
        made.q = reinterpret_cast<std::uint8_t*>(q.raw());
        made.scales = floats(scales);
        made.rows = rows(x);
        made.width = width(x);
        made.stride = q.size(1);
        return made;
    }

    void do_linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                       ConstTensorView weight_scales, Segments segments, bool add,
                       TensorView y) override {
        for (const ConstTensorView& part : {x, weight, ConstTensorView(y)}) check_on_gpu(part);
        queue();
        const Index outs = width(y);
        const TensorView y_rows = y.reshape({rows(y), outs});
        Index first = 0;
        for (std::size_t e = 0; e < segments.size(); ++e) {
            const Index last = first + segments[e];
            const Index w = static_cast<Index>(e) * outs;
            if (first < last) {
                Tensor moved_x;
                Tensor moved_w;
                gemm_.run({.x = x.rows(first, last),
                           .w = weight.rows(w, w + outs),
                           .y = y_rows.rows(first, last),
                           .x_scales = aligned(x_scales.rows(first, last), moved_x),
                           .w_scales = aligned(weight_scales.rows(w, w + outs), moved_w),
                           .add = add});
            }
            first = last;
        }
    }

    /// Scales where whole loads of 16 bytes may read them: the rows of an expert begin anywhere.
    const float* aligned(ConstTensorView scales, Tensor& moved) {
        constexpr std::uintptr_t unit = 16;
        if (reinterpret_cast<std::uintptr_t>(scales.raw()) % unit == 0) return floats(scales);
        moved = empty(scales.shape());
        do_copy(scales, moved);
        return moved.data<float>();
    }

    void do_project(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                    TensorView y) override {
        const std::array<Index, 1> all{rows(y)};
        do_linear(x, weight, bias, all, y);
    }

    void do_norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec, Segments segments,
                 TensorView y, Activation activation) override {
        launch(kernels::Norm{in(x), optional_floats(weight), out(y), rows(x), width(x),
                             experts(segments, rows(x)), static_cast<kernels::NormKind>(spec.kind),
                             static_cast<kernels::Activation>(activation), spec.eps},
               queue());
    }

    void do_activate(ConstTensorView x, Activation activation, TensorView y) override {
        launch(kernels::Activate{in(x), out(y), x.numel(),
                                 static_cast<kernels::Activation>(activation)},
               queue());
    }

    void do_add(TensorView x, ConstTensorView y) override {
        launch(kernels::Add{out(x), in(y), x.numel()}, queue());
    }

    void do_split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                      const NormSpec& spec, Segments segments, ConstTensorView rope, TensorView q,
                      TensorView k, TensorView v) override {
        check_head_size(q.size(2), kernels::SplitQkv::most_size);
        launch(
            kernels::SplitQkv{in(u), floats(q_norm), floats(k_norm), floats(rope), out(q), out(k),
                              out(v), u.size(0), u.size(1), q.size(1), k.size(1), q.size(2),
                              rope.size(1) / 2, experts(segments, u.size(0)), spec.eps},
            queue());
    }

    void do_rotate(TensorView x, ConstTensorView rope, bool round_products) override {
        launch(kernels::Rotate{out(x), floats(rope), x.size(0), x.size(1), x.size(2),
                               rope.size(1) / 2, round_products && x.dtype() == DType::bf16},
               queue());
    }

    void do_attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                      const AttentionMask& mask, float scale, float soft_cap,
                      TensorView y) override {
        queue();
        attention_.run(q, k, v, mask, scale, soft_cap, y);
    }

    void do_gate_heads(TensorView o, ConstTensorView u, Index column) override {
        launch(
            kernels::GateHeads{out(o), in(u), o.size(0), o.size(1), o.size(2), u.size(1), column},
            queue());
    }

    void do_swiglu7(ConstTensorView u, TensorView y) override {
        launch(kernels::Swiglu7{in(u), out(y), y.numel()}, queue());
    }

    void do_gelu7(ConstTensorView u, TensorView y) override {
        launch(kernels::Gelu7{in(u), out(y), y.numel()}, queue());
    }

    void do_geglu(ConstTensorView gate, ConstTensorView up, bool round_gelu,
                  TensorView y) override {
        launch(kernels::Geglu{in(gate), in(up), out(y), y.numel(),
                              round_gelu && y.dtype() == DType::bf16},
               queue());
    }

    void do_snake(ConstTensorView x, ConstTensorView alpha, ConstTensorView beta,
                  TensorView y) override {
        launch(kernels::Snake{floats(x), floats(alpha), floats(beta), floats(y), rows(x), width(x)},
               queue());
    }

    void do_embed(ConstTensorView table, std::span<const std::int32_t> ids, float scale,
                  TensorView y) override {
        const Tensor on_device = uploaded(ids);
        launch(kernels::Embed{in(table), on_device.data<std::int32_t>(), out(y), y.size(0),
                              y.size(1), scale},
               queue());
    }

    Tensor do_prepare_conv(ConstTensorView kernel, DType dtype) override {
        return convolution_.prepare(kernel, dtype);
    }

    void do_conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                 const ConvSpec& spec, TensorView y) override {
        queue();
        convolution_.run(x, kernel, bias, spec, y);
    }

    void do_conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                           Index stride, Index pad, TensorView y) override {
        queue();
        convolution_.run_transposed(x, kernel, bias, stride, pad, y);
    }

    void do_upsample_nearest(ConstTensorView x, TensorView y) override {
        const Index line = x.size(2) * x.size(3);
        gather(x, std::array{x.size(0) * x.size(1), Index{2}, x.size(2), Index{2}, x.size(3)},
               std::array{line, Index{0}, x.size(3), Index{0}, Index{1}}, 0, y);
    }

    void do_combine(std::span<const Term> terms, TensorView y) override {
        kernels::Combine arguments{};
        for (const Term& term : terms) {
            arguments.terms[arguments.count] = floats(term.x);
            arguments.factors[arguments.count++] = term.factor;
        }
        arguments.y = floats(y);
        arguments.n = y.numel();
        launch(arguments, queue());
    }

    void do_guide(ConstTensorView neg, ConstTensorView pos, std::span<const float> scales,
                  TensorView y) override {
        kernels::Guide arguments{};
        arguments.neg = floats(neg);
        arguments.pos = floats(pos);
        arguments.y = floats(y);
        arguments.channels = y.size(0);
        arguments.frames = y.size(1);
        arguments.plane = y.size(2) * y.size(3);
        for (Index& first = arguments.first; first < y.size(1); first += arguments.count) {
            arguments.count = std::min(kernels::Guide::most_frames, y.size(1) - first);
            std::copy_n(scales.begin() + first, arguments.count, arguments.scales);
            launch(arguments, queue());
        }
    }

    void do_set_first_frame(ConstTensorView frame, TensorView latent) override {
        const auto plane =
            static_cast<std::size_t>(latent.size(2) * latent.size(3)) * sizeof(float);
        if (frame.numel() == 0) return;
        check_cuda(
            cudaMemcpy2DAsync(floats(latent), plane * static_cast<std::size_t>(latent.size(1)),
                              floats(frame), plane, plane, static_cast<std::size_t>(latent.size(0)),
                              cudaMemcpyDeviceToDevice, queue()),
            "copying the first frame");
    }

    void do_upsample_bilinear(ConstTensorView x, TensorView y) override {
        launch(kernels::UpsampleBilinear{floats(x), floats(y), x.size(0) * x.size(1), x.size(2),
                                         x.size(3), y.size(2), y.size(3)},
               queue());
    }

    void do_affine_channels(ConstTensorView x, ConstTensorView scale, ConstTensorView shift,
                            TensorView y) override {
        launch(kernels::Affine{in(x), floats(scale), floats(shift), out(y), rows(x), width(x)},
               queue());
    }

    void do_normal(const NoiseStream& stream, std::uint64_t first, TensorView y) override {
        launch(kernels::Normal{stream, first, floats(y), y.numel()}, queue());
    }

    bool do_all_finite(ConstTensorView x) override {
        std::int32_t finite = 1;
        Tensor flag = uploaded(std::span<const std::int32_t>(&finite, 1));
        launch(kernels::AllFinite{in(x), flag.data<std::int32_t>(), x.numel()}, queue());
        copy_and_wait(&finite, flag.view().raw(), sizeof finite);
        return finite != 0;
    }

    void do_to_rgb8(ConstTensorView x, TensorView y) override {
        check_on_gpu(y);
        launch(kernels::ToRgb8{in(x), y.data<std::uint8_t>(), x.numel()}, queue());
    }

    void do_to_yuv(ConstTensorView rgb, const YuvFormat& format, TensorView planes) override {
        check_on_gpu(rgb);
        check_on_gpu(planes);
        const Index columns = format.chroma_columns(rgb.size(2));
        Tensor between = empty({rgb.size(0), 2, rgb.size(1), columns, 2}, DType::u8);
        launch(kernels::ToYuv{rgb.data<std::uint8_t>(),
                              reinterpret_cast<std::int16_t*>(between.view().raw()),
                              planes.data<std::uint8_t>(), rgb.size(0), rgb.size(1), rgb.size(2),
                              format},
               queue());
    }
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
    return std::make_unique<CudaBackend>(options);
}

std::unique_ptr<Backend> make_cuda_backend(int device) {
    CudaOptions options;
    options.device = device;
    return make_cuda_backend(options);
}

}  // namespace gallop
