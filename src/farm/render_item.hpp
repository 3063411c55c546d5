#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "farm/run_config.hpp"
#include "farm/stages.hpp"

namespace gallop {

/// One item and all that is needed to turn it into files.
struct RenderTask {
    const Item& item;
    const nlohmann::json& resolved;  ///< all that its id stands for; goes into the latents file
    const ModelRequest& model;
    const OutputRequest& outputs;
    const std::filesystem::path& directory;  ///< of the run
};

/// A finished file of a run.
struct OutputFile {
    std::string path;  ///< relative to the run directory
    std::uint64_t bytes = 0;
    std::string sha256;
};

/// What came of an item.
struct RenderedItem {
    OutputFile clip;
    std::optional<OutputFile> latents;  ///< nothing where none are kept
    StageSeconds
        seconds;  ///< per stage, last "total": with what followed, until the next could begin
    bool adopted = false;  ///< found whole on disk, not rendered
};

/// Reads an item's image and sound. Throws InputError when one is gone, damaged, or not what it was
/// when the run was planned.
Conditioning load_inputs(const RenderTask& task);

/// Throws InputError for an item whose id stands for stored base latents (a promoted draft): from
/// noise it would become another clip.
void refuse_refined(const nlohmann::json& resolved);

/// An item that the networks are done with, while threads of its own encode its pictures and pack its
/// latents. Leaves nothing half-written when it goes without `finish`.
class UnfinishedItem {
public:
    UnfinishedItem(UnfinishedItem&&) noexcept;
    UnfinishedItem& operator=(UnfinishedItem&&) noexcept;
    ~UnfinishedItem();

    /// Waits for its files. Once. The seconds lack the total. Throws as `render_item`.
    RenderedItem finish();

private:
    friend UnfinishedItem begin_item(const RenderTask&, const Stages&, const ProgressSink&);
    struct State;
    explicit UnfinishedItem(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

/// What the networks do for an item: inputs, latents, decoding. The files follow (`finish`), while the
/// networks may turn to another one. Throws as `render_item`.
UnfinishedItem begin_item(const RenderTask& task, const Stages& stages,
                          const ProgressSink& progress);

/// Renders an item: inputs, latents, clip. Each file is written under a temporary name, flushed,
/// renamed, and its folder flushed; the clip is decoded again and checked before it gets its name.
/// Leaves nothing half-written when it throws: InputError (an input is gone or has changed),
/// OutOfMemoryError, BadOutputError, DiskError, DeviceError, Error; what `progress` throws passes.
RenderedItem render_item(const RenderTask& task, const Stages& stages,
                         const ProgressSink& progress);

/// The item's files when all of them are in the run directory and whole: the latents' seal, id,
/// kind and shape are right, the clip decodes, and has the item's id, size and length. Otherwise
/// nothing, and what is wrong is said. Throws DiskError when it cannot be seen what is there.
std::optional<RenderedItem> adopt_item(const RenderTask& task);

/// Encodes a picture latent and a sound latent into an MP4. `id` goes into the file's comment.
/// Throws as `render_item` does.
void write_clip(const Stages& stages, const Tensor& video, const Tensor& audio,
                const PictureDecode& how, Size size, const OutputRequest& outputs,
                const std::string& id, const std::filesystem::path& path,
                const ProgressSink& progress);

/// The journal's form of a file: path, bytes, sha256.
nlohmann::json to_json(const OutputFile& file);

}  // namespace gallop
