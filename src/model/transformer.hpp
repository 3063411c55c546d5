#pragma once

#include <functional>
#include <vector>

#include "core/group.hpp"
#include "core/reader.hpp"
#include "model/checkpoint.hpp"
#include "model/shard.hpp"
#include "model/tokens.hpp"

namespace gallop {

/// Sizes and kinds of layers of the joint audio-video transformer. The defaults are the published
/// 15B. Source: DiTConfig of daVinci-MagiHuman; keys of the architecture files are the same.
struct TransformerConfig {
    Index num_layers = 40;
    Index hidden_size = 5120;
    Index head_dim = 128;
    Index num_query_groups = 8;  ///< key/value heads
    Index video_in_channels = 192;
    Index audio_in_channels = 64;
    Index text_in_channels = 3584;
    std::vector<Index> mm_layers{0, 1, 2, 3, 36, 37, 38, 39};  ///< one expert per modality
    std::vector<Index> local_attn_layers;                      ///< frame-local attention
    std::vector<Index> gelu7_layers{0, 1, 2, 3};               ///< the others are swiglu7
    std::vector<Index> post_norm_layers;
    bool enable_attn_gating = true;
    CoordsStyle coords_style = CoordsStyle::v2;
    Index frame_receptive_field = 11;  ///< radius of local attention in latent frames

    Index heads() const { return hidden_size / head_dim; }
    /// Columns of the fused projection: q, k, v and one gate per query head.
    Index qkv_rows() const {
        return (heads() + 2 * num_query_groups) * head_dim + (enable_attn_gating ? heads() : 0);
    }
    bool is_mm(Index layer) const;
    bool is_local(Index layer) const;
    bool is_gelu7(Index layer) const;
    bool is_post_norm(Index layer) const;
    Index experts(Index layer) const { return is_mm(layer) ? 3 : 1; }
    /// Width of the feed-forward layer: 4·D for gelu7, ⌊8·D/3⌋ rounded down to a multiple of 4.
    Index intermediate(Index layer) const;
    Index bands() const { return head_dim / 8; }
};

/// Reads an architecture map; missing keys keep `defaults`. Cross-field mistakes are problems of
/// the reader.
TransformerConfig read_transformer_config(Reader& in, const TransformerConfig& defaults = {});

/// The table of tensors, in the published names. `linears` is the dtype in which the block linears
/// are kept (f32 or bf16).
std::vector<TensorSpec> transformer_specs(const TransformerConfig& config, DType linears);

/// One forward's inputs, on the backend.
struct TransformerInput {
    ConstTensorView video;  ///< [48, T, h, w] f32
    ConstTensorView audio;  ///< [A, 64] f32
    ConstTensorView text;   ///< [L, D_text] f32
};

/// A predicted velocity.
struct Velocity {
    Tensor video;  ///< [48, T, h, w] f32
    Tensor audio;  ///< [A, 64] f32
};

/// The joint audio-video transformer: v(latents, text). There is no timestep input.
/// Source: paper arXiv 2603.21986; DiTModel in dit_module.py.
class Transformer {
public:
    /// `weights` as given by transformer_specs; block linears decide the precision: f32 is fp32
    /// throughout, bf16 the published casts, and an E4M3 one (see choose_fp8) multiplies rows that are
    /// quantised on their way to it, the published casts in between.
    Transformer(TransformerConfig config, Weights weights, Backend& on);
    /// One member of a tensor-parallel group, which must outlive it. `weights` as given by
    /// sharded_specs. All members call forward with the same inputs and get the same bits. Two sums
    /// a layer cross the group, in f32.
    Transformer(TransformerConfig config, Weights weights, Backend& on, Group& group);

    const TransformerConfig& config() const { return config_; }
    /// Bytes of the weights.
    std::size_t bytes() const { return weights_.bytes(); }
    /// What forwards read, so that a linear may be put there in E4M3, or taken back, between two of them.
    Weights& weights() { return weights_; }

    /// Makes ahead what forwards on a sequence of this shape need and keep: the first one then leaves no
    /// array behind. The last few shapes are kept.
    void prepare(const SequenceShape& shape) { rope_of(shape); }
    /// The same with a rotation table that the caller has: [tokens, 6·bands] f32 on the backend.
    void prepare(const SequenceShape& shape, Tensor rope);
    /// The velocity for one sequence. `watch`, when given, sees the residual [S, D] f32 after the
    /// embedding (layer −1) and after each layer. Throws Error when shapes do not fit, GroupError.
    Velocity forward(const TransformerInput& input,
                     const std::function<void(Index layer, ConstTensorView residual)>& watch = {});

private:
    struct Sequence;
    void attention_block(Index layer, const Sequence& sequence, TensorView x);
    void mlp_block(Index layer, const Sequence& sequence, TensorView x);
    /// The output of a layer whose input columns are spread over the group, rounded once.
    Tensor summed_linear(ConstTensorView x, const std::string& name, Segments segments);
    /// Whether a layer's output goes from the product straight to the residual: never with the
    /// published casts, which round it to bf16 first.
    bool adds_itself(Index layer, const std::string& name) const;
    /// Columns that one expert of a weight makes.
    Index made_by(const std::string& name, Segments segments) const;
    /// The rotation table of a sequence; the last few are kept.
    const Tensor& rope_of(const SequenceShape& shape);

    TransformerConfig config_;
    Weights weights_;
    Backend& on_;
    Group& group_;
    Shard shard_;
    DType precision_;
    std::vector<float> bands_;
    std::vector<std::pair<SequenceShape, Tensor>> ropes_;
};

}  // namespace gallop
