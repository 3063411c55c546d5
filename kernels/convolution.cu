#include "kernels/common.cuh"

namespace gallop::kernels {
namespace {

constexpr int tile = 64;          // pixels and output channels of a block
constexpr int depth = 16;         // input channels at a time
constexpr int side = 16;          // block_size = side·side threads
constexpr int per = tile / side;  // pixels and channels of a thread
static_assert(side * side == block_size && depth == side);

/// Where an output pixel reads: its first tap's coordinates, with the padding still counted.
struct Pixel {
    int t, y, x;
};
/// A coordinate that lies outside whatever tap is added.
constexpr int nowhere = -(1 << 30);

/// A matrix product [pixels, taps·in] × [taps·in, out] whose left side is gathered on the way.
template <class T>
__global__ void __launch_bounds__(block_size) convolve(const Convolution a) {
    __shared__ float left[depth][tile + 1];
    __shared__ float right[depth][tile];
    const int column = threadIdx.x % side;  // loads this input channel; owns channels column·per …
    const int row = threadIdx.x / side;  // loads pixels row, row + side, …; owns pixels row·per …
    const Index first_pixel = static_cast<Index>(blockIdx.x) * tile;
    const Index first_out = static_cast<Index>(blockIdx.y) * tile;
    const Index pixels = a.y_extent[0] * a.y_extent[1] * a.y_extent[2];
    const T* x = static_cast<const T*>(a.x);
    const T* kernel = static_cast<const T*>(a.kernel);

    Pixel source[per];
#pragma unroll
    for (int i = 0; i < per; ++i) {
        const Index pixel = first_pixel + row + i * side;
        const Index t = pixel / a.y_extent[2] / a.y_extent[1];
        source[i].x = static_cast<int>(pixel % a.y_extent[2] * a.stride[2] - a.pad[2]);
        source[i].y =
            static_cast<int>(pixel / a.y_extent[2] % a.y_extent[1] * a.stride[1] - a.pad[1]);
        source[i].t = pixel < pixels ? static_cast<int>(t * a.stride[0] - a.pad[0]) : nowhere;
    }
    float sums[per][per] = {};
    Index tap = 0;
    for (int kt = 0; kt < a.kernel_extent[0]; ++kt)
        for (int ky = 0; ky < a.kernel_extent[1]; ++ky)
            for (int kx = 0; kx < a.kernel_extent[2]; ++kx, ++tap) {
                Index from[per];  // of the pixel's first channel; −1: zeros
#pragma unroll
                for (int i = 0; i < per; ++i) {
                    const int t = source[i].t + kt * static_cast<int>(a.dilation[0]);
                    const int y = source[i].y + ky * static_cast<int>(a.dilation[1]);
                    const int z = source[i].x + kx * static_cast<int>(a.dilation[2]);
                    const bool inside = t >= 0 && t < a.x_extent[0] && y >= 0 &&
                                        y < a.x_extent[1] && z >= 0 && z < a.x_extent[2];
                    from[i] = inside ? ((t * a.x_extent[1] + y) * a.x_extent[2] + z) * a.in : -1;
                }
                for (Index c = 0; c < a.in; c += depth) {
                    __syncthreads();  // everybody is done with the last chunk
#pragma unroll
                    for (int i = 0; i < per; ++i)
                        left[column][row + i * side] = from[i] >= 0 && c + column < a.in
                                                           ? widen(x[from[i] + c + column])
                                                           : 0.0F;
#pragma unroll
                    for (int i = 0; i < depth * tile / block_size; ++i) {
                        const int at = static_cast<int>(threadIdx.x) + i * block_size;
                        const Index channel = c + at / tile;
                        const Index o = first_out + at % tile;
                        right[at / tile][at % tile] =
                            channel < a.in && o < a.out
                                ? widen(kernel[(tap * a.in + channel) * a.out + o])
                                : 0.0F;
                    }
                    __syncthreads();
#pragma unroll
                    for (int d = 0; d < depth; ++d)
#pragma unroll
                        for (int i = 0; i < per; ++i)
#pragma unroll
                            for (int j = 0; j < per; ++j)
                                sums[i][j] = fmaf(left[d][row * per + i],
                                                  right[d][column * per + j], sums[i][j]);
                }
            }
#pragma unroll
    for (int i = 0; i < per; ++i) {
        const Index pixel = first_pixel + row * per + i;
#pragma unroll
        for (int j = 0; j < per; ++j) {
            const Index o = first_out + column * per + j;
            if (pixel < pixels && o < a.out)
                static_cast<T*>(a.y)[pixel * a.out + o] =
                    narrow<T>(sums[i][j] + (a.bias == nullptr ? 0.0F : a.bias[o]));
        }
    }
}

}  // namespace

void launch(const Convolution& a, cudaStream_t stream) {
    const Index pixels = a.y_extent[0] * a.y_extent[1] * a.y_extent[2];
    if (pixels == 0 || a.out == 0) return;
    const dim3 grid(static_cast<unsigned>((pixels + tile - 1) / tile),
                    static_cast<unsigned>((a.out + tile - 1) / tile));
    enqueue(a.half ? convolve<__nv_bfloat16> : convolve<float>, grid, 0, stream, "convolution", a);
}

void launch(const ConvTranspose& a, cudaStream_t stream) {
    for_each(a.out_samples * a.out, stream, "transposed convolution", [a] __device__(Index i) {
        const Index o = i % a.out;
        // Tap j of sample s lands on s·stride + j − pad.
        const Index place = i / a.out + a.pad;
        float sum = 0;
        for (Index j = place % a.stride; j < a.width && j <= place; j += a.stride) {
            const Index s = (place - j) / a.stride;
            if (s >= a.samples) continue;
            for (Index c = 0; c < a.in; ++c)
                sum = fmaf(a.x[s * a.in + c], a.kernel[(j * a.in + c) * a.out + o], sum);
        }
        a.y[i] = sum + (a.bias == nullptr ? 0.0F : a.bias[o]);
    });
}

}  // namespace gallop::kernels
