#include "ops/cpu_conv.hpp"

#include <algorithm>

#include <oneapi/dnnl/dnnl.hpp>

#include "ops/cpu_gemm.hpp"
#include "ops/parallel.hpp"

namespace gallop {
namespace {

using dnnl::memory;

memory::desc described(const memory::dims& extents, memory::format_tag layout) {
    return {extents, memory::data_type::f32, layout};
}

memory wrapped(const memory::desc& desc, const dnnl::engine& engine, ConstTensorView tensor) {
    // oneDNN's memory is not const-correct; inputs are only read.
    return {desc, engine, const_cast<std::byte*>(tensor.raw())};
}

/// Kernel and bias of one layer, as oneDNN wants them.
class Layer {
public:
    Layer(ConstTensorView kernel, ConstTensorView bias)
        : kernel_(wrapped(described({kernel.size(0), kernel.size(1), kernel.size(2), kernel.size(3),
                                     kernel.size(4)},
                                    memory::format_tag::oidhw),
                          engine_, kernel)) {
        if (bias.defined())
            bias_ = wrapped(described({bias.size(0)}, memory::format_tag::x), engine_, bias);
    }

    void run(ConstTensorView x, const ConvSpec& spec, TensorView y) {
        const auto picture = [](const Shape& s) { return memory::dims{1, s[3], s[0], s[1], s[2]}; };
        const auto per_axis = [](const std::array<Index, 3>& a, Index less) {
            return memory::dims{a[0] - less, a[1] - less, a[2] - less};
        };
        const auto x_desc = described(picture(x.shape()), memory::format_tag::ndhwc);
        const auto y_desc = described(picture(y.shape()), memory::format_tag::ndhwc);
        const auto any_kernel = described(kernel_.get_desc().dims(), memory::format_tag::any);
        const memory::dims stride = per_axis(spec.stride, 0);
        const memory::dims dilation = per_axis(spec.dilation, 1);  // oneDNN counts the gaps
        const memory::dims before = per_axis(spec.pad_before, 0);
        const memory::dims after = per_axis(spec.pad_after, 0);
        using Desc = dnnl::convolution_forward::desc;
        const auto kind = dnnl::prop_kind::forward_inference;
        const auto algorithm = dnnl::algorithm::convolution_direct;
        // Primitives are cached inside oneDNN by their description; making one anew costs
        // microseconds.
        const dnnl::convolution_forward::primitive_desc desc(
            bias_ ? Desc(kind, algorithm, x_desc, any_kernel, bias_.get_desc(), y_desc, stride,
                         dilation, before, after)
                  : Desc(kind, algorithm, x_desc, any_kernel, y_desc, stride, dilation, before,
                         after),
            engine_);
        memory reordered = kernel_;
        if (desc.weights_desc() != kernel_.get_desc()) {
            reordered = memory(desc.weights_desc(), engine_);
            dnnl::reorder(kernel_, reordered).execute(stream_, kernel_, reordered);
        }
        std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, wrapped(x_desc, engine_, x)},
                                                  {DNNL_ARG_WEIGHTS, reordered},
                                                  {DNNL_ARG_DST, wrapped(y_desc, engine_, y)}};
        if (bias_) arguments.emplace(DNNL_ARG_BIAS, bias_);
        dnnl::convolution_forward(desc).execute(stream_, arguments);
        stream_.wait();
    }

private:
    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream_{engine_};
    memory kernel_;
    memory bias_;
};

/// Convolves a row of S samples as one GEMM a tap, tile by tile: oneDNN would unfold the whole row, and
/// divide its sums by the number of threads.
void convolve_sound(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                    const ConvSpec& spec, TensorView y) {
    const Index samples = x.size(2), in = x.size(3);
    const Index outputs = y.size(2), out = y.size(3);
    const Index taps = kernel.size(4);
    const Index before = spec.pad_before[2], after = spec.pad_after[2];

    Tensor padded = Tensor::zeros({before + samples + after, in});
    std::copy_n(x.data<float>(), samples * in, padded.data<float>() + before * in);
    Tensor by_tap({taps, out, in});
    const float* k = kernel.data<float>();
    parallel_for(out, [&](Index o) {
        for (Index i = 0; i < in; ++i)
            for (Index t = 0; t < taps; ++t)
                by_tap.data<float>()[(t * out + o) * in + i] = k[(o * in + i) * taps + t];
    });

    const Index rows = std::clamp<Index>((outputs + 7) / 8, 16, 1024);
    const Index columns = std::min<Index>(out, 512);
    const Index row_tiles = (outputs + rows - 1) / rows;
    const Index column_tiles = (out + columns - 1) / columns;
    parallel_for(row_tiles * column_tiles, [&](Index tile) {
        const Index first = tile / column_tiles * rows;
        const Index count = std::min(rows, outputs - first);
        const Index column = tile % column_tiles * columns;
        const Index width = std::min(columns, out - column);
        float* result = y.data<float>() + first * out + column;
        for (Index t = 0; t < taps; ++t)
            sequential_gemm(
                true, count, width, in, 1.0F,
                padded.data<float>() + (first * spec.stride[2] + t * spec.dilation[2]) * in,
                spec.stride[2] * in, by_tap.data<float>() + (t * out + column) * in, in, result,
                out, t > 0);
        if (bias.defined())
            for (Index row = 0; row < count; ++row)
                for (Index c = 0; c < width; ++c)
                    result[row * out + c] += bias.data<float>()[column + c];
    });
}

template <class Work>
void translating_errors(const Work& work) {
    try {
        work();
    } catch (const dnnl::error& error) {
        if (error.status == dnnl_out_of_memory)
            throw OutOfMemoryError("out of memory in a convolution");
        throw Error(fmt::format("convolution: {}", error.what()));
    }
}

}  // namespace

void cpu_conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias, const ConvSpec& spec,
              TensorView y) {
    CHECK(y.shape() == Backend::conv_shape(x.shape(), kernel.shape(), spec),
          "convolution of {} by {} into {}", to_string(x.shape()), to_string(kernel.shape()),
          to_string(y.shape()));
    if (y.numel() == 0) return;
    translating_errors([&] {
        const bool sound = y.size(0) == 1 && y.size(1) == 1 && x.size(0) == 1 && x.size(1) == 1 &&
                           kernel.size(2) == 1 && kernel.size(3) == 1;
        if (sound)
            convolve_sound(x, kernel, bias, spec, y);
        else
            Layer(kernel, bias).run(x, spec, y);
    });
}

void cpu_conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                        Index stride, Index pad, TensorView y) {
    if (y.numel() == 0) return;
    // Sample n·stride + r of the uncropped result only meets the taps r, r + stride, …: `stride`
    // ordinary convolutions over x, whose outputs side by side in one row are `stride` samples in
    // order.
    const Index samples = x.size(0);
    const Index in = kernel.size(0);
    const Index out = kernel.size(1);
    const Index width = kernel.size(2);
    const Index taps = (width + stride - 1) / stride;
    const Index rows = samples + taps - 1;

    Tensor phases = Tensor::zeros({stride * out, in, 1, 1, taps});
    Tensor phase_bias = Tensor::zeros({stride * out});
    const float* k = kernel.data<float>();
    float* p = phases.data<float>();
    for (Index r = 0; r < stride; ++r)
        for (Index o = 0; o < out; ++o)
            for (Index i = 0; i < in; ++i)
                for (Index t = 0; t < taps; ++t) {
                    const Index j = r + (taps - 1 - t) * stride;
                    if (j < width)
                        p[((r * out + o) * in + i) * taps + t] = k[(i * out + o) * width + j];
                }
    if (bias.defined())
        for (Index r = 0; r < stride; ++r)
            std::copy_n(bias.data<float>(), out, phase_bias.data<float>() + r * out);

    ConvSpec spec;
    spec.pad_before[2] = spec.pad_after[2] = taps - 1;
    Tensor whole({1, 1, rows, stride * out});
    cpu_conv(x.reshape({1, 1, samples, in}), phases, phase_bias, spec, whole);
    std::copy_n(whole.data<float>() + pad * out, y.numel(), y.data<float>());
}

}  // namespace gallop
