#include "farm/run.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <new>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "farm/journal.hpp"
#include "farm/progress.hpp"
#include "farm/run_lock.hpp"
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
using State = ItemOutcome::State;

constexpr std::uintmax_t least_disk_bytes = 32U << 20;

/// Thrown out of a stage when the run is asked to stop. No error: nobody catches it but the loop.
struct Stopped {};

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

Conditioning load_inputs(const Item& item) {
    Conditioning inputs;
    if (!item.image.empty()) inputs.image = load_image(item.image);
    if (item.audio.empty()) return inputs;
    const Index samples = Index{item.audio_latents} * 2048;
    const Tensor sound =
        load_audio(item.audio, static_cast<double>(samples + 1) / driving_sample_rate);
    if (sound.numel() < samples)
        throw_input_error(
            "{}: {} samples at 51,200 Hz ({} needed); the file has changed since the run was "
            "planned",
            item.audio, sound.numel(), samples);
    inputs.audio = Tensor(Shape{samples});
    std::copy_n(sound.data<float>(), samples, inputs.audio.data<float>());
    return inputs;
}

Attributes attributes_of(const PlannedItem& planned, const Plan& plan) {
    const Item& item = planned.item;
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
            {"precision", planned.resolved["precision"].get<std::string>()},
            {"model", plan.manifest.model.path},
            {"arch", plan.manifest.model.arch},
            {"item", canonical_json(planned.resolved)}};
}

void write_item_latents(Latents& latents, const PlannedItem& planned, const Plan& plan,
                        const fs::path& path) {
    const OutputRequest& out = plan.manifest.outputs;
    const bool two_stages = latents.video_final.defined();
    // Without a second stage the base latents are the final ones.
    const bool base = out.keep_base || (out.keep_final && !two_stages);
    LatentsFile file{base ? std::move(latents.video_base) : Tensor(),
                     out.keep_final ? std::move(latents.video_final) : Tensor(),
                     std::move(latents.audio), attributes_of(planned, plan), out.latents};
    write_latents(path, file);
    if (base) latents.video_base = std::move(file.video_base);
    if (out.keep_final) latents.video_final = std::move(file.video_final);
    latents.audio = std::move(file.audio);
}

Json file_row(const fs::path& directory, const fs::path& path) {
    return {{"path", path.lexically_relative(directory).string()},
            {"bytes", fs::file_size(path)},
            {"sha256", digest_file(path)}};
}

bool is_whole(const fs::path& directory, const Json& row) {
    if (!row.is_object() || !row.contains("path") || !row.contains("bytes")) return false;
    std::error_code failed;
    return fs::file_size(directory / row["path"].get<std::string>(), failed) == row["bytes"] &&
           !failed;
}

/// The last "done" of each item whose files are still there in their sizes.
std::map<std::string, Json> done_items(const std::vector<Json>& events, const fs::path& directory) {
    std::map<std::string, Json> done;
    for (const Json& event : events) {
        const std::string kind = event.value("event", "");
        if (kind != "done" || !event.contains("id")) continue;
        if (is_whole(directory, event.value("clip", Json())) &&
            (!event.contains("latents") || is_whole(directory, event["latents"])))
            done[event["id"]] = event;
        else
            log_warning("files of a finished item are gone or changed id={}",
                        event["id"].get<std::string>());
    }
    return done;
}

/// One run of one process.
class Run {
public:
    Run(const Plan& plan, const Stages& stages, const RunOptions& options)
        : plan_(plan),
          stages_(stages),
          options_(options),
          directory_(options.directory),
          lock_(directory_) {
        prepare_run_directory(plan, directory_);
        journal_.emplace(directory_ / "journal.jsonl");
        done_ = done_items(journal_->events(), directory_);
        fs::remove(directory_ / "COMPLETE");
    }

    RunResult go() {
        for (const PlannedItem& planned : plan_.items)
            result_.items.push_back(
                {planned.item.id, planned.item.name, State::open, false, {}, {}});
        const auto finished = [&](const PlannedItem& planned) {
            return done_.contains(planned.item.id);
        };
        const auto left =
            plan_.items.size() - static_cast<std::size_t>(std::count_if(
                                     plan_.items.begin(), plan_.items.end(), finished));
        if (left < plan_.items.size())
            log_info("resuming done={} left={}", plan_.items.size() - left, left);
        report_.emplace(left, options_.terminal);
        for (std::size_t i = 0; i < plan_.items.size() && !result_.stopped; ++i) {
            ItemOutcome& outcome = result_.items[i];
            if (!finished(plan_.items[i])) attempt(plan_.items[i], outcome);
            if (const auto found = done_.find(outcome.id); found != done_.end()) {
                outcome.state = State::done;
                outcome.clip = directory_ / found->second["clip"]["path"].get<std::string>();
            }
        }
        report_.reset();
        write_index();
        write_status(result_.stopped ? "stopped" : "finished");
        if (!result_.stopped) write_atomically(directory_ / "COMPLETE", utc_text() + "\n");
        return std::move(result_);
    }

private:
    /// Renders one item and journals what came of it.
    void attempt(const PlannedItem& planned, ItemOutcome& outcome) {
        const LogScope scope("item", outcome.name);
        report_->begin_item(outcome.name, seconds_now());
        std::string kind = "failed";
        try {
            stop_if_asked();
            Json event = render(planned);
            journal_->append(event);
            done_[outcome.id] = std::move(event);
            outcome.rendered = true;
            report_->end_item(true, seconds_now());
            return;
        } catch (const Stopped&) {
            result_.stopped = true;
            report_->end_item(false, seconds_now());
            log_info("stopped before the clip was finished");
            return;
        } catch (const DeviceError& failed) {
            fail(kind, failed.what(), outcome);
            throw;
        } catch (const InputError& failed) {
            kind = "quarantined";  // the same request will be wrong again
            outcome.error = failed.what();
        } catch (const std::bad_alloc&) {
            outcome.error = "out of host memory";
        } catch (const std::exception& failed) {
            outcome.error = failed.what();
        }
        fail(kind, outcome.error, outcome);
        std::error_code unknown;
        if (const auto space = fs::space(directory_, unknown);
            !unknown && space.available < least_disk_bytes) {
            log_error("the disk is full, stopping path={} bytes_left={}", directory_.string(),
                      space.available);
            result_.stopped = true;
        }
    }

    void fail(const std::string& kind, const std::string& reason, ItemOutcome& outcome) {
        report_->end_item(false, seconds_now());
        log_error("{} reason=\"{}\"", kind, reason);
        outcome.state = State::failed;
        outcome.error = reason;
        journal_->append({{"event", kind},
                          {"id", outcome.id},
                          {"error", reason},
                          {"host", host_name()},
                          {"device", options_.device},
                          {"time", utc_text()}});
    }

    /// The "done" event of a rendered item.
    Json render(const PlannedItem& planned) {
        const Item& item = planned.item;
        const double start = seconds_now();
        stages_.take_timings();
        const ProgressSink progress = [this](const Progress& step) {
            stop_if_asked();
            report_->step(step, seconds_now());
            if (seconds_now() - last_status_ > 5) write_status("running");
        };
        const Conditioning inputs = load_inputs(item);
        Latents latents = stages_.denoise(item, inputs, progress);
        Json event = {
            {"event", "done"}, {"id", item.id}, {"host", host_name()}, {"device", options_.device}};
        const OutputRequest& out = plan_.manifest.outputs;
        if (out.keep_base || out.keep_final) {
            const fs::path path = latents_path(directory_, item.id);
            write_item_latents(latents, planned, plan_, path);
            event["latents"] = file_row(directory_, path);
        }
        const fs::path clip = clip_path(directory_, item.id);
        write_clip(stages_, latents.video(), latents.audio, item.decoder, item.size, item.frames,
                   out, item.id, clip, progress);
        event["clip"] = file_row(directory_, clip);
        Json seconds = Json::object();
        for (const auto& [stage, spent] : stages_.take_timings().stages) seconds[stage] = spent;
        seconds["total"] = seconds_now() - start;
        event["seconds"] = seconds;
        event["time"] = utc_text();
        log_info("rendered frames={} seconds={:.1f}", item.frames, seconds_now() - start);
        return event;
    }

    void stop_if_asked() const {
        if (options_.stop != nullptr && options_.stop->load()) throw Stopped{};
    }

    void write_index() const {
        std::string rows;
        for (const PlannedItem& planned : plan_.items) {
            const auto found = done_.find(planned.item.id);
            if (found == done_.end()) continue;
            const Item& item = planned.item;
            Json row = {{"id", item.id},
                        {"name", item.name},
                        {"prompt", item.prompt},
                        {"seed", item.seed},
                        {"width", item.size.width},
                        {"height", item.size.height},
                        {"frames", item.frames},
                        {"clip", found->second["clip"]},
                        {"seconds", found->second.value("seconds", Json::object())}};
            if (found->second.contains("latents")) row["latents"] = found->second["latents"];
            rows += canonical_json(row) + "\n";
        }
        write_atomically(directory_ / "index.jsonl", rows);
    }

    void write_status(const char* state) {
        last_status_ = seconds_now();
        std::size_t failed = result_.count(State::failed);
        Json status = {{"state", state},
                       {"items", plan_.items.size()},
                       {"done", done_.size()},
                       {"failed", failed},
                       {"updated", utc_text()}};
        if (report_) {
            const Progress& now = report_->current();
            status["current"] = {{"stage", now.stage}, {"step", now.step}, {"steps", now.steps}};
            if (const auto left = report_->seconds_left(seconds_now()))
                status["seconds_left"] = *left;
        }
        write_atomically(directory_ / "status.json", status.dump(2) + "\n");
    }

    const Plan& plan_;
    const Stages& stages_;
    const RunOptions& options_;
    fs::path directory_;
    RunLock lock_;
    std::optional<Journal> journal_;
    std::map<std::string, Json> done_;
    std::optional<ProgressReport> report_;
    RunResult result_;
    double last_status_ = 0;
};

}  // namespace

std::size_t RunResult::count(State state) const {
    return static_cast<std::size_t>(std::count_if(
        items.begin(), items.end(), [&](const ItemOutcome& item) { return item.state == state; }));
}

void write_clip(const Stages& stages, const Tensor& video, const Tensor& audio,
                VideoDecoder decoder, Size size, int frames, const OutputRequest& outputs,
                const std::string& id, const fs::path& path, const ProgressSink& progress) {
    Mp4Options options;
    options.width = size.width;
    options.height = size.height;
    options.codec = outputs.codec;
    options.crf = outputs.crf;
    options.preset = outputs.preset;
    options.pix_fmt = outputs.pix_fmt;
    options.audio_bitrate = outputs.audio_bitrate;
    options.comment = canonical_json({{"generator", "gallop " GALLOP_VERSION}, {"id", id}});
    Mp4Writer writer(path, options, stages.decode_audio(audio));
    Index written = 0;
    stages.decode_video(
        video, decoder, frames,
        [&](ConstTensorView pictures) {
            writer.add_frames(pictures);
            written += pictures.shape()[0];
        },
        progress);
    if (written != frames)
        throw Error(fmt::format("{}: {} pictures ({} wanted)", path.string(), written, frames));
    writer.finish();
}

RunResult run_plan(const Plan& plan, const Stages& stages, const RunOptions& options) {
    return Run(plan, stages, options).go();
}

}  // namespace gallop
