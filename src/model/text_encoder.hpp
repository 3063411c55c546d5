#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/reader.hpp"
#include "model/checkpoint.hpp"
#include "ops/backend.hpp"

namespace gallop {

/// Shape of a T5Gemma encoder. The initial values are those of t5gemma-9b-9b-ul2.
struct TextEncoderConfig {
    Index width = 3584;
    Index heads = 16;
    Index kv_heads = 8;
    Index head_size = 256;
    Index mlp = 14336;
    Index vocabulary = 256000;                  ///< the embedding table has at least so many rows
    std::vector<bool> sliding = alternate(42);  ///< per layer: attention sees the window only
    Index window = 4096;                        ///< |i − j| < window; 0: none
    double rope_base = 10000.0;
    double query_scalar = 256.0;  ///< scores are divided by its square root
    double soft_cap = 50.0;       ///< of the scores; 0: the network has none
    double eps = 1e-6;            ///< of the norms

    Index layers() const { return static_cast<Index>(sliding.size()); }
    /// Sliding on even layers, as in all published networks.
    static std::vector<bool> alternate(Index layers);
};

/// Reads the `config.json` of a T5Gemma: the map `encoder` or, without one, the file itself; keys
/// that do not matter here are not looked at. Throws InputError, also for features that we lack:
/// biases, another activation, scaled RoPE.
TextEncoderConfig read_text_encoder_config(const std::filesystem::path& path);
/// The same from a reader of that map; problems are the reader's.
TextEncoderConfig read_text_encoder_config(Reader& file);

/// The encoder's tensors; linears (but for `fp8`) and the embedding in `compute` (f32 or bf16), norms in f32. Names
/// as in T5GemmaEncoder of transformers. Without the prefix `model.encoder.` of the published
/// files.
std::vector<TensorSpec> text_encoder_specs(const TextEncoderConfig& config, DType compute,
                                           bool fp8 = false);

/// How the encoder runs.
struct TextEncoderOptions {
    /// f32 throughout, or the published casts: weights, residual and every result in bf16.
    DType compute = DType::bf16;
    /// The reference's attention (PyTorch's SDPA in transformers 4.56) leaves the cap out, hence
    /// off.
    bool soft_cap = false;
    /// The layers' linears in E4M3; `compute` is then bf16.
    bool fp8 = false;
};

/// Looks whether a folder holds the encoder's `config.json` and weights, by the files' headers alone. Throws
/// InputError as Checkpoint::require.
void require_text_encoder(const std::filesystem::path& folder, const TextEncoderOptions& options);

/// T5Gemma's encoder: bidirectional Gemma-2 layers. Source: T5GemmaEncoder of transformers 4.56.0,
/// the version that daVinci-MagiHuman pins (later ones widen the sliding window by one).
class TextEncoder {
public:
    /// Loads `config.json` and the encoder's weights from a folder; a decoder beside it is not
    /// looked at. Throws InputError.
    TextEncoder(const std::filesystem::path& folder, const TextEncoderOptions& options,
                Backend& on);
    /// The same with a configuration of its own; `weights`: a folder or a file.
    TextEncoder(TextEncoderConfig config, const std::filesystem::path& weights,
                const TextEncoderOptions& options, Backend& on);
    /// `weights`: those of `text_encoder_specs`, on `on`, which must outlive the encoder.
    TextEncoder(TextEncoderConfig config, Weights weights, const TextEncoderOptions& options,
                Backend& on);

    const TextEncoderConfig& config() const { return config_; }
    const TextEncoderOptions& options() const { return options_; }
    /// Bytes of the weights.
    std::size_t bytes() const { return weights_.bytes(); }

    /// Hidden states after the final norm → [L, D] f32 on the host. Positions count from 0, nothing
    /// is masked. Throws InputError when `ids` is empty or one lies outside the embedding table.
    Tensor encode(std::span<const std::int32_t> ids) const;

private:
    struct Scratch;
    Tensor rope(Index tokens) const;
    void attend(Index layer, const Tensor& rope, Scratch& s) const;
    void feed_forward(Index layer, Scratch& s) const;
    void norm(ConstTensorView x, const std::string& name, TensorView y) const;
    void linear(ConstTensorView x, const std::string& name, TensorView y) const;

    TextEncoderConfig config_;
    TextEncoderOptions options_;
    Weights weights_;
    Backend* on_;
};

}  // namespace gallop
