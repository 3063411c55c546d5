#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "farm/history.hpp"
#include "farm/stages.hpp"

namespace gallop {

/// Which drafts become what.
struct PromoteRequest {
    std::vector<std::string> words;      ///< ids, starts of ids or names
    std::string resolution;              ///< 540p, 1080p or WxH
    std::string sr;                      ///< model of the second stage; "": by the resolution
    std::filesystem::path out;           ///< run directory of the promoted clips
    std::filesystem::path digest_cache;  ///< folder, or empty; see digest_model
};

/// A draft, and the item that it becomes.
struct Promotion {
    PlannedItem planned;
    std::string line;               ///< of the new run's items.lock.jsonl
    std::filesystem::path latents;  ///< of the draft, where its base latents are
    bool exact = true;              ///< the base latents are stored as f32, as they were computed
};

/// What the finished drafts of a run become at a higher resolution. A promoted item is the item that
/// a manifest would have asked for with that resolution from the beginning, with the same id; where
/// the base latents were stored rounded (bf16), it is an item of its own, whose id holds their
/// digest. `config`: of the run of the promoted clips. Throws InputError for an item that is not
/// finished or kept no base latents, a resolution that does not fit, and a model or numerics that have
/// changed.
std::vector<Promotion> plan_promotion(const RunHistory& drafts, const PromoteRequest& request,
                                      RunConfig& config);

/// Makes the run directory of the promoted clips, or adds them to one that a promotion of the same
/// run made before. Throws InputError when the folder holds something else.
void write_promotion(const std::filesystem::path& out, const std::vector<Promotion>& promotions,
                     RunConfig config);

/// The engine's second stage alone: Renderer::refine, or a test's.
using RefineStage = std::function<Latents(const Item& item, const Conditioning& inputs,
                                          Latents base, const ProgressSink& progress)>;

struct PromoteCount {
    std::size_t done = 0;    ///< clips, those of an earlier promotion included
    std::size_t failed = 0;  ///< this time
};

/// Renders what is not done yet, one clip after the other, from the drafts' base latents: second
/// stage, decoding, encoding. Journals like any run; writes index and report at the end. Holds the
/// run's lock. `device`: for the journal.
PromoteCount render_promotion(const std::filesystem::path& out,
                              const std::vector<Promotion>& promotions, const Stages& stages,
                              const RefineStage& refine, const std::string& device);

/// The size that a draft of `base` gets: "540p" doubles it, "1080p" makes 448 × 256 1920 × 1088 (both
/// in multiples of 32), "WxH" is taken as it is. Throws InputError.
Size promoted_size(const std::string& resolution, Size base);

}  // namespace gallop
