#include "farm/render_item.hpp"

#include <future>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "farm/time_text.hpp"
#include "media/audio_file.hpp"
#include "media/clip_encoder.hpp"
#include "media/digest.hpp"
#include "media/h5.hpp"
#include "media/image.hpp"
#include "media/store.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Throws InputError unless the file is still the one that the item's id stands for.
void check_unchanged(const std::string& path, const Json& resolved, const char* key) {
    const std::string planned = resolved.value(key, std::string());
    if (const std::string now = digest_file(path); now != planned)
        throw_input_error("{}: has changed since the run was planned: its SHA-256 was {}, now {}",
                          path, planned, now);
}

Attributes attributes_of(const RenderTask& task) {
    const Item& item = task.item;
    return {{"format", std::string("gallop-latents-1")},
            {"id", item.id},
            {"prompt", item.prompt},
            {"seed", static_cast<std::int64_t>(item.seed)},
            {"frames", std::int64_t{item.frames}},
            {"width", std::int64_t{item.size.width}},
            {"height", std::int64_t{item.size.height}},
            {"base_width", std::int64_t{item.base_size.width}},
            {"base_height", std::int64_t{item.base_size.height}},
            {"frames_per_second", std::int64_t{frames_per_second}},
            {"decoder", std::string(item.decoder == VideoDecoder::wan ? "wan" : "turbo")},
            {"precision", task.resolved.at("precision").get<std::string>()},
            {"model", task.model.path},
            {"arch", task.model.arch},
            {"item", canonical_json(task.resolved)}};
}

/// Which latents of an item are kept. Without a second stage the base latents are the final ones.
struct Kept {
    bool base;
    bool final;
};
Kept kept(const RenderTask& task) {
    const bool two_stages = !task.item.sr.empty();
    const OutputRequest& out = task.outputs;
    return {out.keep_base || (out.keep_final && !two_stages), out.keep_final && two_stages};
}

OutputFile finished(const fs::path& directory, const fs::path& path) {
    return {path.lexically_relative(directory).string(), fs::file_size(path), digest_file(path)};
}

/// An item's latents on their way to the disk, packed and written by a thread of their own while the clip is decoded.
class LatentsWriting {
public:
    LatentsWriting(Latents latents, const RenderTask& task) : latents_(std::move(latents)) {
        if (!task.outputs.keep_base && !task.outputs.keep_final) return;
        const Kept keep = kept(task);
        file_ = {keep.base ? std::move(latents_.video_base) : Tensor(),
                 keep.final ? std::move(latents_.video_final) : Tensor(), std::move(latents_.audio),
                 attributes_of(task), task.outputs.latents};
        written_ = std::async(
            std::launch::async,
            [this, directory = task.directory, path = latents_path(task.directory, task.item.id)] {
                write_latents(path, file_);
                return finished(directory, path);
            });
    }
    LatentsWriting(const LatentsWriting&) = delete;
    LatentsWriting& operator=(const LatentsWriting&) = delete;

    /// What is decoded.
    const Tensor& video() const {
        for (const Tensor* one : {&file_.video_final, &latents_.video_final, &file_.video_base})
            if (one->defined()) return *one;
        return latents_.video_base;
    }
    const Tensor& audio() const { return file_.audio.defined() ? file_.audio : latents_.audio; }
    /// Waits for the file; nothing where none is kept. Throws what went wrong.
    std::optional<OutputFile> finish() {
        return written_.valid() ? std::optional(written_.get()) : std::nullopt;
    }

private:
    Latents latents_;  ///< those that no file is made of
    LatentsFile file_;
    std::future<OutputFile> written_;  ///< last: its thread is waited for first
};

/// Throws Error unless the latents in the file are the item's.
void check_latents(const RenderTask& task, const fs::path& path) {
    const LatentsFile file = read_latents(path);
    const auto is = [&](const char* name, const Attribute& wanted) {
        const auto found = file.attributes.find(name);
        return found != file.attributes.end() && found->second == wanted;
    };
    const Item& item = task.item;
    const Kept keep = kept(task);
    const auto fits = [&](const Tensor& video, Size size) {
        return video.defined() && video.size(2) == size.height / 16 &&
               video.size(3) == size.width / 16;
    };
    if (!is("id", item.id) || !is("item", canonical_json(task.resolved)))
        throw Error(fmt::format("{}: is of another item", path.string()));
    if (file.stored != task.outputs.latents ||
        (keep.base && !fits(file.video_base, item.base_size)) ||
        (keep.final && !fits(file.video_final, item.size)) || !file.audio.defined() ||
        file.audio.size(0) != item.audio_latents)
        throw Error(fmt::format("{}: holds other latents than those asked for", path.string()));
}

std::string comment_of(const std::string& id) {
    return canonical_json({{"generator", "gallop " GALLOP_VERSION}, {"id", id}});
}

Mp4Options options_of(const OutputRequest& outputs, Size size, const std::string& id) {
    Mp4Options options;
    options.width = size.width;
    options.height = size.height;
    options.threads = encoder_threads(size.width, size.height);
    options.codec = outputs.codec;
    options.crf = outputs.crf;
    options.preset = outputs.preset;
    options.pix_fmt = outputs.pix_fmt;
    options.audio_bitrate = outputs.audio_bitrate;
    options.comment = comment_of(id);
    return options;
}

/// Decodes a picture latent and hands its pictures to the encoder as they come.
void decode_into(ClipEncoder& encoder, const Stages& stages, const Tensor& video, PictureDecode how,
                 const OutputRequest& outputs, const ProgressSink& progress) {
    how.planes = yuv_format(outputs.pix_fmt);
    Index written = 0;
    stages.decode_video(
        video, how,
        [&](ConstTensorView pictures) {
            encoder.add(pictures);
            written += pictures.shape()[0];
        },
        progress);
    if (written != how.frames)
        throw BadOutputError(
            fmt::format("{} pictures came of the latent ({} wanted)", written, how.frames));
}

}  // namespace

Conditioning load_inputs(const RenderTask& task) {
    const Item& item = task.item;
    Conditioning inputs;
    if (!item.image.empty()) {
        check_unchanged(item.image, task.resolved, "image");
        inputs.image = load_image(item.image);
    }
    if (item.audio.empty()) return inputs;
    check_unchanged(item.audio, task.resolved, "audio");
    inputs.audio = load_audio(item.audio, item.audio_samples);
    if (inputs.audio.numel() < item.audio_samples)
        throw_input_error("{}: {} samples at 51,200 Hz ({} needed)", item.audio,
                          inputs.audio.numel(), item.audio_samples);
    return inputs;
}

void refuse_refined(const Json& resolved) {
    if (resolved.contains("base_latents"))
        throw_input_error(
            "was promoted from base latents that were stored rounded, and can be finished from "
            "them alone: run the same gallop promote again");
}

struct UnfinishedItem::State {
    State(const RenderTask& task, const Stages& stages, const ProgressSink& progress)
        : directory(task.directory),
          path(clip_path(directory, task.item.id)),
          latents(stages.denoise(task.item, load_inputs(task), progress), task),
          clip(path, options_of(task.outputs, task.item.size, task.item.id),
               stages.decode_audio(latents.audio())) {
        decode_into(clip, stages, latents.video(),
                    {task.item.decoder, task.item.frames, task.item.tiled_decode}, task.outputs,
                    progress);
        made.seconds = stages.take_timings();
    }

    fs::path directory;
    fs::path path;
    LatentsWriting latents;
    ClipEncoder clip;
    RenderedItem made;
};

UnfinishedItem::UnfinishedItem(std::unique_ptr<State> state) : state_(std::move(state)) {}
UnfinishedItem::UnfinishedItem(UnfinishedItem&&) noexcept = default;
UnfinishedItem& UnfinishedItem::operator=(UnfinishedItem&&) noexcept = default;
UnfinishedItem::~UnfinishedItem() = default;

RenderedItem UnfinishedItem::finish() {
    const std::unique_ptr<State> item = std::move(state_);
    item->made.latents = item->latents.finish();  // a clip that has its name has its latents
    item->clip.finish();
    item->made.clip = finished(item->directory, item->path);
    return std::move(item->made);
}

UnfinishedItem begin_item(const RenderTask& task, const Stages& stages,
                          const ProgressSink& progress) {
    stages.take_timings();
    return UnfinishedItem(std::make_unique<UnfinishedItem::State>(task, stages, progress));
}

RenderedItem render_item(const RenderTask& task, const Stages& stages,
                         const ProgressSink& progress) {
    const double start = seconds_now();
    RenderedItem made = begin_item(task, stages, progress).finish();
    made.seconds.stages.emplace_back("total", seconds_now() - start);
    return made;
}

std::optional<RenderedItem> adopt_item(const RenderTask& task) {
    const double start = seconds_now();
    const Item& item = task.item;
    const fs::path clip = clip_path(task.directory, item.id);
    std::error_code failed;
    const bool there = fs::exists(clip, failed);
    if (failed && is_disk_errno(failed.value()))
        throw_file_error(clip, "cannot look at", failed.value());
    if (!there) return {};
    try {
        RenderedItem found;
        if (task.outputs.keep_base || task.outputs.keep_final) {
            const fs::path latents = latents_path(task.directory, item.id);
            check_latents(task, latents);
            found.latents = finished(task.directory, latents);
        }
        const Mp4Facts facts = verify_mp4(clip, item.frames, item.size.width, item.size.height);
        const auto comment = facts.tags.find("comment");
        if (comment == facts.tags.end() || comment->second != comment_of(item.id))
            throw Error(fmt::format("{}: is of another item or version", clip.string()));
        found.clip = finished(task.directory, clip);
        found.seconds.stages.emplace_back("total", seconds_now() - start);
        found.adopted = true;
        return found;
    } catch (const std::exception& wrong) {
        log_warning("rendering again what was found: {}", wrong.what());
        return {};
    }
}

void write_clip(const Stages& stages, const Tensor& video, const Tensor& audio,
                const PictureDecode& how, Size size, const OutputRequest& outputs,
                const std::string& id, const fs::path& path, const ProgressSink& progress) {
    ClipEncoder encoder(path, options_of(outputs, size, id), stages.decode_audio(audio));
    decode_into(encoder, stages, video, how, outputs, progress);
    encoder.finish();
}

nlohmann::json to_json(const OutputFile& file) {
    return {{"path", file.path}, {"bytes", file.bytes}, {"sha256", file.sha256}};
}

}  // namespace gallop
