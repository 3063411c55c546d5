#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "farm/weights.hpp"
#include "pipeline/render.hpp"

namespace gallop {

/// Goes up whenever the same item would come out with other pixels or samples.
inline constexpr int numerics_version = 2;

/// Which models render.
struct ModelRequest {
    std::string path;                 ///< the model folder
    std::string variant = "distill";  ///< "base" or "distill"
    std::string arch;                 ///< architecture file, or empty: the folder's own
    Precision precision = Precision::bf16;
    Fp8Choice fp8 = {};  ///< only for Precision::fp8

    ModelChoice choice() const { return {path, arch, precision, fp8}; }
};

/// How finished clips are written. None of it changes an item's id.
struct OutputRequest {
    std::string root;  ///< the run directory
    std::string codec = "h264";
    int crf = 18;
    std::string preset = "fast";
    std::string pix_fmt = "yuv420p";
    std::string audio_codec = "aac";
    int audio_bitrate = 192000;   ///< bits a second
    bool keep_base = true;        ///< latents of the base stage
    bool keep_final = true;       ///< latents that are decoded
    DType latents = DType::bf16;  ///< bf16 or f32
};

/// What an item may use.
struct Resources {
    int gpus_per_item = 0;  ///< 1, 2, 4 or 8; 0: one, unless the memory model says no
};

/// In which order, and in which portions, items are handed out.
struct Schedule {
    enum class Order { longest_first, manifest, preview };
    Order order = Order::longest_first;
    double chunk_seconds = 60;   ///< of predicted work leased to a slot at once
    double silent_seconds = 30;  ///< an agent that is not heard for so long is lost
};

/// What is done about an item that fails.
struct Retry {
    int attempts = 3;        ///< tries before an item is quarantined
    bool other_host = true;  ///< the next try is made on another host where there is one
    /// Rungs after running out of memory, in order: "tiled_decode", "split", "quarantine".
    std::vector<std::string> on_oom = {"tiled_decode", "split", "quarantine"};
    int stop_after_failed = 0;           ///< items; 0: no limit by number
    double stop_after_failed_share = 0;  ///< of all items, 0 … 1; 0: no limit by share
};

/// What a run may spend.
struct Limits {
    double gpu_hours = 0;                   ///< 0: no limit
    double walltime_reserve_seconds = 120;  ///< no new leases when less than this is left
    std::uint64_t disk_pause_below = 0;   ///< bytes free on the run directory's disk; 0: 1 % of it
    std::uint64_t disk_resume_above = 0;  ///< bytes; 0: twice `disk_pause_below`
};

/// What `gallop submit` asks Slurm for.
struct SlurmRequest {
    int nodes = 1;
    std::string time;  ///< "[D-]HH:MM:SS"; "": the plan's suggestion
    std::string partition, account, qos, constraint, reservation;
    int gpus_per_node = 0;  ///< 0: not asked for
    int cpus_per_task = 0;  ///< 0: not asked for
    std::string memory;     ///< per node, as Slurm writes it, e.g. "200G"
    bool requeue = true;
    std::vector<std::string> options;  ///< further #SBATCH options, as they are
};

/// How seeds are drawn.
struct SeedRequest {
    std::uint64_t base = 42;
    int samples = 1;
    bool by_item = true;
    bool by_cell = false;  ///< cells of a sweep share noise, so that they compare
    bool by_sample = true;
    bool given = false;  ///< the manifest has `seeds`
};

/// Everything of a run but its items, as a manifest asks for it.
struct RunRequest {
    std::string name;
    ModelRequest model;
    OutputRequest outputs;
    SeedRequest seeds;
    Resources resources;
    Schedule schedule;
    Retry retry;
    Limits limits;
    SlurmRequest slurm;
};

/// Items of one shape, which a renderer can take one after the other without setting up anew.
struct Bucket {
    std::string name;
    std::uint64_t items = 0;
    double seconds = 0;                    ///< predicted for one item, all stages
    std::map<std::string, double> stages;  ///< of which, by stage
    std::uint64_t memory_bytes = 0;        ///< of the device, at the peak
    std::uint64_t clip_bytes = 0;          ///< predicted for one item
    std::uint64_t latents_bytes = 0;       ///< of one item
    int gpus = 1;                          ///< that share an item
};

/// A frozen run, as `run.json` says it: the request, what it was resolved against, and counts.
struct RunConfig : RunRequest {
    std::string manifest;         ///< path of the manifest
    std::string manifest_digest;  ///< see Manifest::digest; "" where the plan is not a manifest's
    WeightsDigests weights;       ///< of the model's parts
    std::string arch_digest;      ///< of the architecture file; "" when the folder's own is used
    int numerics = numerics_version;
    std::map<std::string, std::string> texts;  ///< long texts that items share, by SHA-256
    nlohmann::json sweep;  ///< axis → its values, in order; empty without a sweep
    std::vector<Bucket> buckets;
    std::string device;            ///< whose calibration the predictions are of: "cpu", "h100", …
    std::uint64_t items = 0;       ///< distinct
    std::uint64_t duplicates = 0;  ///< further names of items
    std::uint64_t lock_bytes = 0;  ///< items.lock.jsonl is its first so many bytes
    std::string lock_sha256;       ///< of them
};

}  // namespace gallop
