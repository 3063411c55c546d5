#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "pipeline/fp8_search.hpp"
#include "pipeline/fp8_trial.hpp"
#include "pipeline/item.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// What is asked of a model folder: which linears may multiply in E4M3.
struct Fp8Question {
    std::filesystem::path model, arch = {};     ///< as in ModelChoice
    std::vector<std::string> variants{"base"};  ///< transformers for which one choice is to hold
    std::vector<std::string> prompts;
    std::string negative_prompt;  ///< of variants with guidance
    std::uint64_t seed = 42;      ///< of the first prompt; each further one has the next
    Size size;                    ///< of the base stage; a second stage has twice that
    int audio_latents = 51;       ///< as in Item
    /// Steps of a render whose forwards count: some of first, middle, last. At the last ones a velocity may
    /// be so small that bf16 itself is further off fp32 than `within`.
    std::vector<std::string> steps{"first", "middle", "last"};
    double within = 0.02;  ///< relative L2 that no forward may exceed
    Precision against =
        Precision::bf16;  ///< or fp32: that network is loaded first, then again in bf16
};

/// What one transformer showed.
struct Fp8Network {
    std::string variant;
    std::vector<double> alone =
        {};  ///< by part: the worst error of a forward with it alone; NaN: not measured
    std::vector<Fp8Place> places =
        {};  ///< forwards of its own renders, at the first, the middle and the last step
    std::vector<Fp8Error> errors = {};  ///< of each of these, with what is chosen
};

/// What holds for all of the transformers.
struct Fp8Advice {
    std::vector<Fp8Part> parts;  ///< all, by layer
    std::vector<double> work;    ///< by part: share of all linears' multiplications in a forward
    std::vector<std::size_t> bytes;   ///< by part: what its weight is smaller by in E4M3
    std::vector<std::size_t> chosen;  ///< parts, ascending; may be none
    Fp8Choice choice;                 ///< of these
    double error = 0;                 ///< the worst of all forwards with them
    std::vector<Fp8Network> networks;
};

/// How far the asking is.
struct Fp8Progress {
    std::string what;                 ///< "base: qkv of layer 3"
    std::size_t done = 0, total = 0;  ///< forwards of this network; 0 of 0 before they are known
};
using Fp8ProgressSink = std::function<void(const Fp8Progress&)>;

/// Renders each prompt with each transformer in bf16 and keeps what the network is shown on the way; measures
/// every part alone, chooses, and measures what is chosen, in each transformer. A later transformer chooses
/// among what the earlier ones leave; those it takes something from are measured again. One network is on the
/// backend at a time. Throws InputError.
Fp8Advice advise_fp8(const Fp8Question& question, Backend& on, const Fp8ProgressSink& progress);

}  // namespace gallop
