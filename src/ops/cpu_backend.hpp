#pragma once

// The CPU backend: its ops lie in files by subject. Private to this room.

#include "ops/backend.hpp"
#include "ops/pool_memory.hpp"

namespace gallop {

class CpuBackend : public Backend {
public:
    /// `threads` 0: as many as OpenMP takes by itself.
    explicit CpuBackend(int threads);

    Device device() const override { return Device::cpu; }
    std::string name() const override { return "cpu"; }
    Memory& memory() override { return memory_; }
    void synchronize() override {}
    Index matrix_unit(DType /*dtype*/) const override { return 1; }
    std::unique_ptr<Group> join_group(const GroupSeat& seat) override {
        return make_gloo_group(seat);
    }

private:
    // cpu.cpp: copies, and what the matrix and convolution code does.
    void do_upload(ConstTensorView host, TensorView device) override { do_copy(host, device); }
    void do_download(ConstTensorView device, TensorView host) override { do_copy(device, host); }
    void do_copy(ConstTensorView from, TensorView to) override;
    void do_fill_zero(TensorView y) override;
    void do_linear(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                   Segments segments, TensorView y) override;
    void do_project(ConstTensorView x, ConstTensorView weight, ConstTensorView bias,
                    TensorView y) override;
    void do_attention(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                      const AttentionMask& mask, float scale, float soft_cap,
                      TensorView y) override;
    Tensor do_prepare_conv(ConstTensorView kernel, DType dtype) override;
    void do_conv(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                 const ConvSpec& spec, TensorView y) override;
    void do_conv_transpose(ConstTensorView x, ConstTensorView kernel, ConstTensorView bias,
                           Index stride, Index pad, TensorView y) override;

    // cpu_elementwise.cpp: norms, activations, rotations, gates.
    void do_norm(ConstTensorView x, ConstTensorView weight, const NormSpec& spec, Segments segments,
                 TensorView y, Activation activation) override;
    void do_activate(ConstTensorView x, Activation activation, TensorView y) override;
    void do_add(TensorView x, ConstTensorView y) override;
    void do_swiglu7(ConstTensorView u, TensorView y) override;
    void do_gelu7(ConstTensorView u, TensorView y) override;
    void do_geglu(ConstTensorView gate, ConstTensorView up, bool round_gelu, TensorView y) override;
    void do_snake(ConstTensorView x, ConstTensorView alpha, ConstTensorView beta,
                  TensorView y) override;
    void do_affine_channels(ConstTensorView x, ConstTensorView scale, ConstTensorView shift,
                            TensorView y) override;
    void do_split_qkv(ConstTensorView u, ConstTensorView q_norm, ConstTensorView k_norm,
                      const NormSpec& spec, Segments segments, ConstTensorView rope, TensorView q,
                      TensorView k, TensorView v) override;
    void do_rotate(TensorView x, ConstTensorView rope, bool round_products) override;
    void do_gate_heads(TensorView o, ConstTensorView u, Index column) override;

    // cpu_fp8.cpp: rows in E4M3 and their products.
    void do_quantise(ConstTensorView x, TensorView q, TensorView scales) override;
    void do_norm_quantised(ConstTensorView x, ConstTensorView weight, const NormSpec& spec,
                           Segments segments, TensorView q, TensorView scales) override;
    void do_linear_fp8(ConstTensorView x, ConstTensorView x_scales, ConstTensorView weight,
                       ConstTensorView weight_scales, Segments segments, bool add,
                       TensorView y) override;

    // cpu_layout.cpp: values that change places.
    void do_permute(ConstTensorView x, const Shape& shape, std::span<const int> order,
                    TensorView y) override;
    void do_columns(ConstTensorView x, Index begin, TensorView y) override;
    void do_mean_channels(ConstTensorView x, Index n, TensorView y) override;
    void do_repeat_channels(ConstTensorView x, Index n, TensorView y) override;
    void do_embed(ConstTensorView table, std::span<const std::int32_t> ids, float scale,
                  TensorView y) override;
    void do_upsample_nearest(ConstTensorView x, TensorView y) override;
    void do_upsample_bilinear(ConstTensorView x, TensorView y) override;
    void do_to_rgb8(ConstTensorView x, TensorView y) override;

    // cpu_yuv.cpp
    void do_to_yuv(ConstTensorView rgb, const YuvFormat& format, TensorView planes) override;

    // cpu_sampler.cpp: steps of the sampler.
    void do_combine(std::span<const Term> terms, TensorView y) override;
    void do_guide(ConstTensorView neg, ConstTensorView pos, std::span<const float> scales,
                  TensorView y) override;
    void do_set_first_frame(ConstTensorView frame, TensorView latent) override;
    void do_normal(const NoiseStream& stream, std::uint64_t first, TensorView y) override;
    bool do_all_finite(ConstTensorView x) override;

    PoolMemory memory_;
};

}  // namespace gallop
