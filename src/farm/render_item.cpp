#include "farm/render_item.hpp"

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "farm/time_text.hpp"
#include "media/audio_file.hpp"
#include "media/digest.hpp"
#include "media/h5.hpp"
#include "media/image.hpp"
#include "media/mp4.hpp"
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

/// Lends the latents to the file's writer.
void write_item_latents(Latents& latents, const RenderTask& task, const fs::path& path) {
    const Kept keep = kept(task);
    LatentsFile file{keep.base ? std::move(latents.video_base) : Tensor(),
                     keep.final ? std::move(latents.video_final) : Tensor(),
                     std::move(latents.audio), attributes_of(task), task.outputs.latents};
    write_latents(path, file);
    if (keep.base) latents.video_base = std::move(file.video_base);
    if (keep.final) latents.video_final = std::move(file.video_final);
    latents.audio = std::move(file.audio);
}

OutputFile finished(const fs::path& directory, const fs::path& path) {
    return {path.lexically_relative(directory).string(), fs::file_size(path), digest_file(path)};
}

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

RenderedItem render_item(const RenderTask& task, const Stages& stages,
                         const ProgressSink& progress) {
    const Item& item = task.item;
    const double start = seconds_now();
    stages.take_timings();
    const Conditioning inputs = load_inputs(task);
    Latents latents = stages.denoise(item, inputs, progress);
    RenderedItem made;
    if (task.outputs.keep_base || task.outputs.keep_final) {
        const fs::path path = latents_path(task.directory, item.id);
        write_item_latents(latents, task, path);
        made.latents = finished(task.directory, path);
    }
    const fs::path clip = clip_path(task.directory, item.id);
    write_clip(stages, latents.video(), latents.audio,
               {item.decoder, item.frames, item.tiled_decode}, item.size, task.outputs, item.id,
               clip, progress);
    made.clip = finished(task.directory, clip);
    made.seconds = stages.take_timings();
    made.seconds.stages.emplace_back("total", seconds_now() - start);
    return made;
}

std::optional<RenderedItem> adopt_item(const RenderTask& task) {
    const double start = seconds_now();
    const Item& item = task.item;
    const fs::path clip = clip_path(task.directory, item.id);
    std::error_code unknown;
    if (!fs::exists(clip, unknown)) return {};
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
    Mp4Options options;
    options.width = size.width;
    options.height = size.height;
    options.codec = outputs.codec;
    options.crf = outputs.crf;
    options.preset = outputs.preset;
    options.pix_fmt = outputs.pix_fmt;
    options.audio_bitrate = outputs.audio_bitrate;
    options.comment = comment_of(id);
    Mp4Writer writer(path, options, stages.decode_audio(audio));
    Index written = 0;
    PictureDecode as_encoded = how;
    as_encoded.planes = yuv_format(options.pix_fmt);
    stages.decode_video(
        video, as_encoded,
        [&](ConstTensorView pictures) {
            writer.add_frames(pictures);
            written += pictures.shape()[0];
        },
        progress);
    if (written != how.frames)
        throw BadOutputError(
            fmt::format("{}: {} pictures ({} wanted)", path.string(), written, how.frames));
    writer.finish();
}

nlohmann::json to_json(const OutputFile& file) {
    return {{"path", file.path}, {"bytes", file.bytes}, {"sha256", file.sha256}};
}

}  // namespace gallop
