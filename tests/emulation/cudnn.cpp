// cuDNN, as far as the engine calls it, on an emulated GPU. It takes less than a real one does, so that what
// the engine does where it is refused is done, too: no heads above 128 values, no channels but multiples of
// 8, no zeros on one side only, no gaps between taps, no bias where frames are left out.

#include "emulation/cudnn.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <vector>

#include <cuda_bf16.h>

#include "emulation/queue.hpp"
#include "ops/cuda_dnn.hpp"

namespace gallop {
namespace {

constexpr Index unit = 8;

std::atomic<std::uint64_t> convolutions{0};

std::vector<float> widened(const __nv_bfloat16* from, Index count) {
    std::vector<float> made(static_cast<std::size_t>(count));
    std::transform(from, from + count, made.begin(), [](auto x) { return __bfloat162float(x); });
    return made;
}

/// Σ x[i]·y[i] of a multiple of `unit` values, in as many sums.
float dot(const float* x, const float* y, Index n) {
    std::array<float, unit> sums{};
    for (Index i = 0; i < n; i += unit)
        for (Index lane = 0; lane < unit; ++lane)
            sums[static_cast<std::size_t>(lane)] += x[i + lane] * y[i + lane];
    float sum = 0;
    for (const float lane : sums) sum += lane;
    return sum;
}

struct Attention {
    const __nv_bfloat16 *q, *k, *v;
    __nv_bfloat16* y;
    Index queries, keys, heads, groups, size;
    float scale;

    void operator()() const {
        const std::vector<float> all_q = widened(q, queries * heads * size);
        const std::vector<float> all_k = widened(k, keys * groups * size);
        const std::vector<float> all_v = widened(v, keys * groups * size);
        std::vector<float> weights(static_cast<std::size_t>(keys));
        std::vector<float> sums(static_cast<std::size_t>(size));
        for (Index row = 0; row < queries * heads; ++row) {
            const Index group = row % heads / (heads / groups);
            const auto of_key = [&](const std::vector<float>& all, std::size_t key) {
                return &all[(key * static_cast<std::size_t>(groups) +
                             static_cast<std::size_t>(group)) *
                            static_cast<std::size_t>(size)];
            };
            for (std::size_t key = 0; key < weights.size(); ++key)
                weights[key] = scale * dot(&all_q[static_cast<std::size_t>(row * size)],
                                           of_key(all_k, key), size);
            const float highest = *std::max_element(weights.begin(), weights.end());
            std::fill(sums.begin(), sums.end(), 0.0F);
            float total = 0;
            for (std::size_t key = 0; key < weights.size(); ++key) {
                const float weight = std::exp(weights[key] - highest);
                total += weight;
                for (std::size_t d = 0; d < sums.size(); ++d)
                    sums[d] += weight * of_key(all_v, key)[d];
            }
            for (std::size_t d = 0; d < sums.size(); ++d)
                y[row * size + static_cast<Index>(d)] = __float2bfloat16_rn(sums[d] / total);
        }
    }
};

struct Convolution {
    const __nv_bfloat16 *x, *kernel, *bias;
    __nv_bfloat16* y;
    Shape x_shape, kernel_shape, y_shape;
    ConvSpec spec;

    void operator()() const {
        const Index in = x_shape[3];
        const Index out = y_shape[3];
        const std::vector<float> all_x = widened(x, x_shape.numel());
        const std::vector<float> all_kernel = widened(kernel, kernel_shape.numel());
        const Index taps = kernel_shape[2] * kernel_shape[3] * kernel_shape[4];
        std::vector<float> sums(static_cast<std::size_t>(out));
        for (Index pixel = 0; pixel < y_shape.numel() / out; ++pixel) {
            std::fill(sums.begin(), sums.end(), 0.0F);
            for (Index tap = 0; tap < taps; ++tap) {
                const Index from = source(pixel, tap);
                if (from < 0) continue;
                for (Index o = 0; o < out; ++o)
                    sums[static_cast<std::size_t>(o)] +=
                        dot(&all_x[static_cast<std::size_t>(from * in)],
                            &all_kernel[static_cast<std::size_t>((o * taps + tap) * in)], in);
            }
            for (Index o = 0; o < out; ++o)
                y[pixel * out + o] =
                    __float2bfloat16_rn(sums[static_cast<std::size_t>(o)] +
                                        (bias == nullptr ? 0.0F : __bfloat162float(bias[o])));
        }
    }

    /// The pixel of x that a tap of a result's pixel reads; −1: zeros.
    Index source(Index pixel, Index tap) const {
        std::array<Index, 3> place{};
        for (std::size_t axis = 3; axis-- > 0;) {
            place[axis] = pixel % y_shape[axis] * spec.stride[axis] - spec.pad_before[axis] +
                          tap % kernel_shape[2 + axis];
            pixel /= y_shape[axis];
            tap /= kernel_shape[2 + axis];
            if (place[axis] < 0 || place[axis] >= x_shape[axis]) return -1;
        }
        return (place[0] * x_shape[1] + place[1]) * x_shape[2] + place[2];
    }
};

class EmulatedCudnn final : public Cudnn {
public:
    explicit EmulatedCudnn(cudaStream_t stream) : stream_(stream) {}

    std::string version() const override { return "emulated"; }

    bool attend(ConstTensorView q, ConstTensorView k, ConstTensorView v, float scale,
                TensorView y) override {
        if (q.numel() == 0 || q.size(2) > 128 || q.size(2) % unit != 0) return false;
        return put(Attention{values(q), values(k), values(v), values(y), q.size(0), k.size(0),
                             q.size(1), k.size(1), q.size(2), scale});
    }

    bool convolves() const override { return true; }

    bool convolve(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                  const ConvSpec& spec, TensorView y) override {
        if (x.numel() == 0 || y.numel() == 0 || x.size(3) % unit != 0 || y.size(3) % unit != 0 ||
            spec.pad_before != spec.pad_after || spec.dilation != std::array<Index, 3>{1, 1, 1} ||
            (bias.defined() && spec.stride[0] > 1))
            return false;
        ++convolutions;
        return put(Convolution{values(x), values(kernel), bias.defined() ? values(bias) : nullptr,
                               values(y), x.shape(), kernel.shape(), y.shape(), spec});
    }

private:
    static const __nv_bfloat16* values(ConstTensorView x) {
        return reinterpret_cast<const __nv_bfloat16*>(x.raw());
    }
    static __nv_bfloat16* values(TensorView y) { return reinterpret_cast<__nv_bfloat16*>(y.raw()); }

    template <class Work>
    bool put(Work work) {
        const std::lock_guard lock(emulation::device_mutex());
        check_cuda(emulation::enqueue(stream_, std::move(work)), "emulated cuDNN");
        return true;
    }

    cudaStream_t stream_;
};

}  // namespace

std::uint64_t emulation::cudnn_convolutions() { return convolutions; }

std::unique_ptr<Cudnn> open_cudnn(Memory& /*memory*/, cudaStream_t stream) {
    return std::make_unique<EmulatedCudnn>(stream);
}

}  // namespace gallop
