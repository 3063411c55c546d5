#pragma once

#include <functional>
#include <future>
#include <string>
#include <string_view>
#include <vector>

#include "core/clip.hpp"
#include "model/transformer.hpp"
#include "pipeline/item.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// One network on one sequence, timed.
struct ForwardTiming {
    Index parameters = 0;
    Index tokens = 0;
    double gflop = 0;  ///< of one forward, a multiplication and an addition counted as two
    std::vector<double> seconds;  ///< of each forward, in order, after one that is not counted
};

/// Floating-point operations of one forward: the linears each token meets, and attention.
double forward_flop(const TransformerConfig& config, const SequenceShape& shape);

/// Times `repeats` forwards of a network with random weights on random inputs; waits for the backend
/// after each. `progress` is given what is known so far, again after each.
ForwardTiming time_forward(const TransformerConfig& config, const SequenceShape& shape,
                           Precision precision, int repeats, Backend& on,
                           const std::function<void(const ForwardTiming&)>& progress = {});

/// A transformer's tensors as a renderer would load them: widths padded as the backend likes them, and
/// with fp8 the linears of all layers but the first and the last in E4M3.
std::vector<TensorSpec> bench_specs(const TransformerConfig& config, Precision precision,
                                    Backend& on);

/// A network's tensors with values that keep activations at their size, drawn by the noise generator on
/// the backend itself, the same for the same names everywhere.
Weights random_weights(const std::vector<TensorSpec>& specs, Backend& on);

/// One stage of the published pipeline, or one small enough for any CPU.
struct BenchCase {
    std::string name;           ///< "256p", "540p", "1080p", "tiny"
    TransformerConfig network;  ///< the published 15B: distill, 540p_sr, 1080p_sr
    SequenceShape sequence;     ///< five seconds, 400 tokens of text
    int steps = 8;

    /// Of the picture latent that the stage works on: [48, T, Y, X].
    Shape latent() const {
        return {network.video_in_channels / 4, sequence.frames, 2 * sequence.rows,
                2 * sequence.columns};
    }
};
/// Throws InputError for a name that is none.
BenchCase bench_case(std::string_view name);

/// Seconds of `repeats` decodes of a random latent by a decoder with random weights, every picture as
/// bytes on the host; one decode before them is not counted. "tiny" cases have a narrow decoder.
std::vector<double> time_decode(const BenchCase& of, VideoDecoder decoder, DType dtype,
                                Index strips, int repeats, Backend& on);

/// Seconds of `repeats` encodings of so many tokens by the text encoder.
std::vector<double> time_text(const BenchCase& of, Index tokens, DType dtype, int repeats,
                              Backend& on);

/// What one clip spends, stage by stage, from tokens to its file, or to pictures and sound on the host
/// where there is no file.
struct ClipTiming {
    StageSeconds spent;
    double seconds = 0;  ///< of all stages
};

/// A clip's file while it is written.
struct ClipFile {
    FrameSink add;
    std::function<void()> finish;  ///< after the last picture
};
/// Begins a file of pictures of that size. sound: [2, S] f32 at 44,100 Hz.
using ClipFiles = std::function<ClipFile(Size size, std::future<Tensor> sound)>;

/// `clips` clips of the case's size, one after the other: text encoding (of as many prompts, before the
/// first clip; then the encoder leaves the device, as beside two networks in bf16 it must), eight steps at
/// 256p, then, for larger sizes, super-resolution, sound, pictures (in strips where memory is short) and,
/// with `files`, the file. One more clip before them, of one step a stage, is not counted. `progress` is given
/// what is known so far, again after each counted clip.
std::vector<ClipTiming> time_clips(
    const BenchCase& of, Precision precision, int clips, Backend& on, const ClipFiles& files = {},
    const std::function<void(const std::vector<ClipTiming>&)>& progress = {});

/// The network and sequence of `gallop bench cpu`: 89 million parameters, all four kinds of layers,
/// 1,000 tokens (448×256, 1 s, 190 tokens of text).
TransformerConfig bench_transformer();
SequenceShape bench_sequence();

}  // namespace gallop
