#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/group.hpp"
#include "core/random.hpp"
#include "core/tensor.hpp"
#include "core/yuv.hpp"

namespace gallop {

/// Row counts of the experts' blocks in a sequence sorted by expert, e.g. {V, A, L}; they add up to
/// the number of rows. One entry: every row uses the only expert.
using Segments = std::span<const Index>;

/// Which keys a query sees. The sequence is `frames · per_frame` video rows, then the rest.
struct AttentionMask {
    enum class Kind {
        full,    ///< every query sees every key
        frames,  ///< a video query sees video keys of frames within `radius` and all keys of the
                 ///< rest; a query of the rest sees everything
        window,  ///< query i sees keys j with |i − j| < radius
    };
    Kind kind = Kind::full;
    Index frames = 0;
    Index per_frame = 0;
    Index radius = 0;
};

/// How a row is normalised over its last axis.
struct NormSpec {
    enum class Kind {
        rms_offset,  ///< x·rsqrt(mean x² + eps)·(1 + w)
        rms,         ///< x·rsqrt(mean x² + eps), without weights
        l2,          ///< x / max(‖x‖₂, eps)·√D·w
    };
    Kind kind = Kind::rms_offset;
    float eps = 1e-6F;
};

/// silu: x·σ(x); relu: max(x, 0); elu: x, or exp(x) − 1 below 0; clamp: x cut to −1 … 1.
enum class Activation { none, silu, relu, elu, tanh, clamp };

/// Geometry of a convolution over (T, Y, X); pads are zeros before and after each axis.
struct ConvSpec {
    std::array<Index, 3> stride{1, 1, 1};
    std::array<Index, 3> pad_before{0, 0, 0};
    std::array<Index, 3> pad_after{0, 0, 0};
    std::array<Index, 3> dilation{1, 1, 1};
};

/// One addend of `combine`.
struct Term {
    float factor;
    ConstTensorView x;
};

/// A copy between host and device that may still be under way.
class Copy {
public:
    /// One that is done.
    Copy() = default;
    explicit Copy(std::function<void()> wait) : wait_(std::move(wait)) {}
    Copy(Copy&& other) noexcept : wait_(std::exchange(other.wait_, nullptr)) {}
    Copy& operator=(Copy&& other) noexcept {
        if (this != &other) {
            leave();
            wait_ = std::exchange(other.wait_, nullptr);
        }
        return *this;
    }
    Copy(const Copy&) = delete;
    Copy& operator=(const Copy&) = delete;
    /// Waits: nobody takes the memory away from under a copy.
    ~Copy() { leave(); }

    /// Waits until it is done; any thread may. Throws DeviceError.
    void wait() {
        if (const auto wait = std::exchange(wait_, nullptr)) wait();
    }

private:
    void leave() noexcept {
        try {
            wait();
        } catch (...) {  // a lost device copies nothing any more
        }
    }

    std::function<void()> wait_;
};

/// All that a model may ask of the machine, at the grain of fused steps. The public functions
/// document and check; the private virtuals compute. Results are deterministic: the same inputs on
/// the same backend and build give the same bits. Unless said otherwise "float" arrays are f32 or
/// bf16, sums are in f32 or wider, a bf16 result is rounded once from the f32 value, and outputs
/// alias no input. Every function throws Error when shapes or dtypes do not fit.
///
/// Arrays inside the networks are channels-last: pictures [T, Y, X, C], sound [S, C], tokens [L,
/// D].
class Backend {
public:
    virtual ~Backend() = default;
    Backend() = default;
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;

    // ---- memory -------------------------------------------------------------------------------

    virtual Device device() const = 0;
    /// "cpu", "cuda": what `--backend` calls it.
    virtual std::string name() const = 0;
    /// The device and what computes on it, with versions, for people.
    virtual std::string made_of() const { return name(); }
    /// Where scratch and results live; memory that comes back is kept for reuse.
    virtual Memory& memory() = 0;
    /// An uninitialised array on the device.
    Tensor empty(Shape shape, DType dtype = DType::f32) { return Tensor(shape, dtype, memory()); }
    /// An array of zero bytes on the device.
    Tensor zeros(Shape shape, DType dtype = DType::f32);
    /// Copies a host array to the device.
    Tensor upload(ConstTensorView host);
    /// Copies a host array into one on the device, same shape and dtype; the host's bytes may be
    /// reused afterwards.
    void upload(ConstTensorView host, TensorView device) {
        CHECK(host.shape() == device.shape() && host.dtype() == device.dtype(),
              "{} {} uploaded into {} {}", name_of(host.dtype()), to_string(host.shape()),
              name_of(device.dtype()), to_string(device.shape()));
        do_upload(host, device);
    }
    /// Copies a device array to the host; waits for it.
    Tensor download(ConstTensorView device);
    /// Host memory from and to which copies run beside other work.
    virtual Memory& transfer_memory() { return host_memory(); }
    /// Starts what `upload` does, from an array in `transfer_memory`, and doesn't wait for it. Work that
    /// is asked for later sees the values; the host array stays as it is until the copy is done.
    Copy start_upload(ConstTensorView host, TensorView device);
    /// Starts a download into an array in `transfer_memory`, of what was asked for before; later work runs
    /// beside it, and must leave the device array as it is until the copy is done.
    Copy start_download(ConstTensorView device, TensorView host);
    /// How often this backend has made the host wait for the device so far; copies that were started
    /// don't count.
    std::uint64_t waits() const { return waits_; }
    /// to = from, same shape; a floating dtype is converted with one rounding.
    void copy(ConstTensorView from, TensorView to);
    /// Waits until all that was asked for is done.
    virtual void synchronize() = 0;
    /// Joins the group of renderers that share an item, over this backend's arrays; the backend
    /// must outlive it. Throws GroupError when the others don't come in time, InputError when this
    /// build has no means to join one.
    virtual std::unique_ptr<Group> join_group(const GroupSeat& seat) = 0;

    // ---- shapes -------------------------------------------------------------------------------

    /// y = x with its axes permuted: axis i of y is axis order[i] of x. Any dtype; `shape` reads x
    /// (its element count must fit); y has the count of x, its own shape is not looked at.
    void permute(ConstTensorView x, const Shape& shape, std::span<const int> order, TensorView y);
    /// Columns begin … begin+n−1 of each row. x: [L, D] → y: [L, n]. Any dtype.
    void columns(ConstTensorView x, Index begin, TensorView y);
    /// Mean of each run of n neighbouring channels. x: [..., C·n] float → y: [..., C], same dtype.
    void mean_channels(ConstTensorView x, Index n, TensorView y);
    /// Each channel n times in a row. x: [..., C] → y: [..., C·n], same dtype.
    void repeat_channels(ConstTensorView x, Index n, TensorView y);

    // ---- linear layers and norms ----------------------------------------------------------------

    /// y = x Wᵀ + b, each row with its expert. x: [L, D] f32 or bf16; weight: [E·N, D] of the same
    /// dtype; bias: [E·N] f32 or undefined; y: [L, N] f32, or bf16 when x is bf16. E =
    /// segments.size().
    void linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias, Segments segments,
                TensorView y);
    /// The same with one expert.
    void linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias, TensorView y);
    /// Rows in E4M3: scales[l] = max(maxᵢ |x[l, i]| / 448, 2⁻¹²⁶), q[l, i] = x[l, i] / scales[l] to
    /// nearest, ties to even; a row with NaN or infinity keeps a NaN. x: [L, D] float; q: [L, D'] f8_e4m3,
    /// D' ≥ D, zero from D on; scales: [L] f32.
    void quantise(ConstTensorView x, TensorView q, TensorView scales);
    /// The same of norm(x), which is not rounded in between; arguments as of `norm`.
    void norm_quantised(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                        Segments segments, TensorView q, TensorView scales);
    /// y[l, n] = x_scales[l]·weight_scales[n]·Σᵢ x[l, i]·weight[n, i], each row with its expert; the sum
    /// in f32 (on Hopper its tensor cores' own). x: [L, D], weight: [E·N, D], both f8_e4m3; x_scales: [L],
    /// weight_scales: [E·N], f32; y: [L, N] f32 or bf16. On the GPU D and N are multiples of 16.
    void linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                    ConstTensorView weight_scales, Segments segments, TensorView y);
    /// The same added to y, which is f32.
    void add_linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                        ConstTensorView weight_scales, Segments segments, TensorView y);
    /// Multiples to which the widths of matrices of this dtype are best padded with zeros, and must be
    /// for f8_e4m3; 1: none.
    virtual Index matrix_unit(DType dtype) const = 0;
    /// y = x Wᵀ + b in f32 with well-balanced sums, for the first and last layers of a network,
    /// whose rounding everything after them inherits. x: [L, D], weight: [N, D], bias: [N] or
    /// undefined, y: [L, N], all f32.
    void project(ConstTensorView x, ConstTensorView weight, ConstTensorView bias, TensorView y);
    /// y = act(norm(x)) over the last axis. x, y: [..., D] float, may be the same array when the
    /// dtype is the same; weight: [E·D] f32 (undefined for Kind::rms). Segments count rows of D;
    /// empty means one expert.
    void norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec, Segments segments,
              TensorView y, Activation activation = Activation::none);
    /// y = act(x); may be in place.
    void activate(ConstTensorView x, Activation activation, TensorView y);
    /// x ← x + y. x, y: same shape, float; rounded to x's dtype.
    void add(TensorView x, ConstTensorView y);

    // ---- attention ------------------------------------------------------------------------------

    /// Splits a fused projection, normalises q and k per head, rotates them.
    /// u: [L, (H + 2G)·K + extra] float, columns q, k, v, then extra (gates) which are not read;
    /// q_norm, k_norm: [E·K] f32, 1 + w convention; rope: [L, 2R] f32, sines then cosines of R
    /// angles, dimension d < R pairs with d + R, dimensions from 2R on are left alone; q: [L, H,
    /// K], k, v: [L, G, K] float, rounded once.
    void split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                   const NormSpec& spec, Segments segments, ConstTensorView rope, TensorView q,
                   TensorView k, TensorView v);
    /// Rotates in place as above without norms. x: [L, H, K] float; rope: [L, 2R] f32. The products
    /// and the sum are each rounded to x's dtype when `round_products` (PyTorch's eager bf16).
    void rotate(TensorView x, ConstTensorView rope, bool round_products);
    /// y = softmax(cap(scale · q kᵀ) + mask) v, cap(s) = c·tanh(s/c) for soft_cap c > 0. q, y:
    /// [Lq, H, K], k, v: [Lk, G, K] float of one dtype, query head h reads kv head h div (H/G).
    /// Masks other than full need Lq = Lk.
    void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                   const AttentionMask& mask, float scale, float soft_cap, TensorView y);
    /// o ← o · σ(u[:, column + h]). o: [L, H, K] float, in place; u: [L, C] float.
    void gate_heads(TensorView o, ConstTensorView u, Index column);

    // ---- activations of the feed-forward layers
    // ---------------------------------------------------

    /// Interleaved gated unit of the DiT: g = min(u[2i], 7), l = clamp(u[2i+1], −7, 7),
    /// y = g·σ(1.702 g)·(l + 1). u: [L, 2·D] → y: [L, D].
    void swiglu7(ConstTensorView u, TensorView y);
    /// z = min(u, 7), y = z·σ(1.702 z). u, y: [L, D].
    void gelu7(ConstTensorView u, TensorView y);
    /// y = gelu_tanh(gate)·up. When `round_gelu` the first factor is rounded to y's dtype first.
    void geglu(ConstTensorView gate, ConstTensorView up, bool round_gelu, TensorView y);
    /// y = x + sin²(α x)/(β + 1e-9), α = exp(alpha), β = exp(beta). x, y: [S, C] f32; alpha, beta:
    /// [C].
    void snake(ConstTensorView x, ConstTensorView alpha, ConstTensorView beta, TensorView y);

    // ---- text
    // -------------------------------------------------------------------------------------

    /// y[l] = table[ids[l]] · scale. table: [rows, D] float; ids: host; y: [L, D] of table's dtype.
    void embed(ConstTensorView table, std::span<const std::int32_t> ids, float scale, TensorView y);

    // ---- convolutions
    // -----------------------------------------------------------------------------

    /// Brings a kernel [O, I, kT, kY, kX] f32 (host, as stored; [O, I, kY, kX] and [O, I, kX] have
    /// extents of 1 in front) to the dtype and layout that `conv` reads; done once, at load.
    Tensor prepare_conv(ConstTensorView kernel, DType dtype);
    /// y = conv(x) + b, rounded once or, where no engine of the GPU's does both, before b is added, too.
    /// x: [T, Y, X, I] float; kernel: from prepare_conv with x's dtype; bias: [O] or undefined;
    /// y: [T', Y', X', O], both of x's dtype.
    void conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias, const ConvSpec& spec,
              TensorView y);
    /// Extents of conv's output for an input [T, Y, X, I].
    static Shape conv_shape(const Shape& x, const Shape& kernel, const ConvSpec& spec);
    /// Transposed 1-D convolution. x: [S, I] f32; kernel: [I, O, k] f32 (as stored, uploaded);
    /// bias: [O] f32; y: [(S−1)·stride − 2·pad + k, O].
    void conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                        Index stride, Index pad, TensorView y);
    /// Nearest neighbour, twice in Y and X. x: [T, Y, X, C] → y: [T, 2Y, 2X, C], any dtype.
    void upsample_nearest(ConstTensorView x, TensorView y);

    // ---- latents and samplers (all f32)
    // -------------------------------------------------------------

    /// y = Σ factorᵢ·xᵢ, added left to right in f32. y may be one of the xᵢ. 1 to 6 terms.
    void combine(std::span<const Term> terms, TensorView y);
    /// y = neg + g_t·(pos − neg) with one scale per latent frame. neg, pos, y: [C, T, Y, X] (y may
    /// be either), scales: T values on the host. For sound pass [1, 1, A, 64] and one scale.
    void guide(ConstTensorView neg, ConstTensorView pos, std::span<const float> scales,
               TensorView y);
    /// latent[:, 0] ← frame. frame: [C, 1, Y, X], latent: [C, T, Y, X].
    void set_first_frame(ConstTensorView frame, TensorView latent);
    /// Bilinear per frame, corners aligned. x: [C, T, Y, X] → y: [C, T, Y', X'].
    void upsample_bilinear(ConstTensorView x, TensorView y);
    /// y[…, c] = x[…, c]·scale[c] + shift[c]; may be in place. x, y: [..., C] f32; scale, shift: [C]
    /// f32.
    void affine_channels(ConstTensorView x, ConstTensorView scale, ConstTensorView shift,
                         TensorView y);
    /// Standard normals, elements `first`… of the stream; bit-equal on every backend. y: f32.
    void normal(const NoiseStream& stream, std::uint64_t first, TensorView y);
    /// Whether all values are finite.
    bool all_finite(ConstTensorView x);

    // ---- pictures
    // -----------------------------------------------------------------------------------

    /// trunc(255·clamp(0.5·x + 0.5, 0, 1)). x: [T, Y, X, 3] float → y: same shape u8.
    void to_rgb8(ConstTensorView x, TensorView y);
    /// Bytes of RGB as the planes of a video encoder, see core/yuv.hpp; bit-equal on every backend. rgb:
    /// [T, Y, X, 3] u8, even extents of at least 16 where chroma is halved; planes: [T, format.bytes(X, Y)]
    /// u8.
    void to_yuv(ConstTensorView rgb, const YuvFormat& format, TensorView planes);

protected:
    void count_wait() { ++waits_; }

private:
    virtual void do_upload(ConstTensorView host, TensorView device) = 0;
    virtual void do_download(ConstTensorView device, TensorView host) = 0;
    virtual Copy do_start_upload(ConstTensorView host, TensorView device) {
        do_upload(host, device);
        return {};
    }
    virtual Copy do_start_download(ConstTensorView device, TensorView host) {
        do_download(device, host);
        return {};
    }
    virtual void do_copy(ConstTensorView from, TensorView to) = 0;
    virtual void do_fill_zero(TensorView y) = 0;
    virtual void do_permute(ConstTensorView x, const Shape& shape, std::span<const int> order,
                            TensorView y) = 0;
    virtual void do_columns(ConstTensorView x, Index begin, TensorView y) = 0;
    virtual void do_mean_channels(ConstTensorView x, Index n, TensorView y) = 0;
    virtual void do_repeat_channels(ConstTensorView x, Index n, TensorView y) = 0;
    virtual void do_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                           Segments segments, TensorView y) = 0;
    virtual void do_quantise(ConstTensorView x, TensorView q, TensorView scales) = 0;
    virtual void do_norm_quantised(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                                   Segments segments, TensorView q, TensorView scales) = 0;
    virtual void do_linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                               ConstTensorView weight_scales, Segments segments, bool add,
                               TensorView y) = 0;
    virtual void do_project(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                            TensorView y) = 0;
    virtual void do_norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                         Segments segments, TensorView y, Activation activation) = 0;
    virtual void do_activate(ConstTensorView x, Activation activation, TensorView y) = 0;
    virtual void do_add(TensorView x, ConstTensorView y) = 0;
    virtual void do_split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                              const NormSpec& spec, Segments segments, ConstTensorView rope,
                              TensorView q, TensorView k, TensorView v) = 0;
    virtual void do_rotate(TensorView x, ConstTensorView rope, bool round_products) = 0;
    virtual void do_attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                              const AttentionMask& mask, float scale, float soft_cap,
                              TensorView y) = 0;
    virtual void do_gate_heads(TensorView o, ConstTensorView u, Index column) = 0;
    virtual void do_swiglu7(ConstTensorView u, TensorView y) = 0;
    virtual void do_gelu7(ConstTensorView u, TensorView y) = 0;
    virtual void do_geglu(ConstTensorView gate, ConstTensorView up, bool round_gelu,
                          TensorView y) = 0;
    virtual void do_snake(ConstTensorView x, ConstTensorView alpha, ConstTensorView beta,
                          TensorView y) = 0;
    virtual void do_embed(ConstTensorView table, std::span<const std::int32_t> ids, float scale,
                          TensorView y) = 0;
    virtual Tensor do_prepare_conv(ConstTensorView kernel, DType dtype) = 0;
    virtual void do_conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                         const ConvSpec& spec, TensorView y) = 0;
    virtual void do_conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                                   Index stride, Index pad, TensorView y) = 0;
    virtual void do_upsample_nearest(ConstTensorView x, TensorView y) = 0;
    virtual void do_combine(std::span<const Term> terms, TensorView y) = 0;
    virtual void do_guide(ConstTensorView neg, ConstTensorView pos, std::span<const float> scales,
                          TensorView y) = 0;
    virtual void do_set_first_frame(ConstTensorView frame, TensorView latent) = 0;
    virtual void do_upsample_bilinear(ConstTensorView x, TensorView y) = 0;
    virtual void do_affine_channels(ConstTensorView x, ConstTensorView scale, ConstTensorView shift,
                                    TensorView y) = 0;
    virtual void do_normal(const NoiseStream& stream, std::uint64_t first, TensorView y) = 0;
    virtual bool do_all_finite(ConstTensorView x) = 0;
    virtual void do_to_rgb8(ConstTensorView x, TensorView y) = 0;
    virtual void do_to_yuv(ConstTensorView rgb, const YuvFormat& format, TensorView planes) = 0;

    std::atomic<std::uint64_t> waits_{0};
};

/// The reference: obvious loops, GEMM and convolution by oneDNN. `threads` 0: as many as the
/// process may use.
std::unique_ptr<Backend> make_cpu_backend(int threads = 0);

/// The CUDA engine on the given visible device. Throws InputError in a build without CUDA,
/// DeviceError without a usable device.
std::unique_ptr<Backend> make_cuda_backend(int device = 0);

}  // namespace gallop
