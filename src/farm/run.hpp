#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/clip.hpp"
#include "farm/plan.hpp"
#include "pipeline/item.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// What the loop asks of a renderer: Renderer's functions, or a test's.
struct Stages {
    std::function<Latents(const Item&, const Conditioning&, const ProgressSink&)> denoise;
    std::function<void(const Tensor&, VideoDecoder, int, const FrameSink&, const ProgressSink&)>
        decode_video;
    std::function<Tensor(const Tensor&)> decode_audio;
    std::function<StageSeconds()> take_timings;
};

/// `renderer` must outlive the result.
Stages stages_of(Renderer& renderer);

struct RunOptions {
    std::filesystem::path directory;
    std::string device = "cpu";               ///< for the journal
    bool terminal = false;                    ///< progress as a live line
    const std::atomic<bool>* stop = nullptr;  ///< set by a signal: end soon, resumable
};

/// One distinct item after a run.
struct ItemOutcome {
    enum class State { done, failed, open };
    std::string id;
    std::string name;
    State state = State::open;
    bool rendered = false;       ///< by this run, not an earlier one
    std::filesystem::path clip;  ///< of a done item, inside the run directory
    std::string error;           ///< of a failed one
};

struct RunResult {
    std::vector<ItemOutcome> items;  ///< in the plan's order
    bool stopped = false;            ///< before all was tried
    std::size_t count(ItemOutcome::State state) const;
};

/// Takes a run directory for one run: refuses a folder that holds something else or a run of
/// another plan (InputError), removes what a kill left half-written, writes `items.lock.jsonl` and
/// `run.json`. The caller holds the directory's RunLock.
void prepare_run_directory(const Plan& plan, const std::filesystem::path& directory);

/// Renders every item that the journal does not call done, one after the other: latents, then the
/// clip, then the journal's line; `index.jsonl` and `status.json` at the end. An item that fails is
/// journalled and the run goes on; it is tried again by the next run. Takes the directory's lock.
/// Throws InputError (the directory), DeviceError, and Error when the journal itself cannot be
/// written.
RunResult run_plan(const Plan& plan, const Stages& stages, const RunOptions& options);

/// Encodes a picture latent and a sound latent into an MP4. `id` goes into the file's comment.
void write_clip(const Stages& stages, const Tensor& video, const Tensor& audio,
                VideoDecoder decoder, Size size, int frames, const OutputRequest& outputs,
                const std::string& id, const std::filesystem::path& path,
                const ProgressSink& progress);

}  // namespace gallop
