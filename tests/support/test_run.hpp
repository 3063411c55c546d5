#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/view.hpp"
#include "farm/canonical_json.hpp"
#include "farm/history.hpp"
#include "farm/journal.hpp"
#include "farm/plan_index.hpp"
#include "farm/run_json.hpp"
#include "media/digest.hpp"
#include "media/h5.hpp"
#include "media/mp4.hpp"
#include "media/store.hpp"
#include "support/temporary_folder.hpp"

namespace gallop::test {

/// A small run directory made by hand, without planning or rendering: items of 64 × 32 with five
/// pictures, named item0, item1, …, of 10, 20, … predicted seconds, the journal as a test writes it.
class TestRun {
public:
    using Json = nlohmann::json;

    /// `change`: what a test wants different, before the plan is frozen.
    explicit TestRun(std::size_t items, const std::function<void(RunConfig&)>& change = {}) {
        RunConfig config;
        config.name = "test";
        config.model.path = "model";
        config.weights = {{"distill", "d"}, {"540p_sr", "s"}, {"shared", "h"}};
        if (change) change(config);
        config.items = items;
        config.buckets.emplace_back();
        config.buckets.back().name = "distill-64x32-5";
        config.buckets.back().items = items;
        std::string lock;
        for (std::size_t i = 0; i < items; ++i) {
            Json item = {{"prompt", "prompt, \"of\" " + std::to_string(i)},
                         {"negative_prompt", ""},
                         {"image", ""},
                         {"audio", ""},
                         {"audio_posterior", "sample"},
                         {"seed", 100 + i},
                         {"size", {64, 32}},
                         {"base_size", {64, 32}},
                         {"frames", 5},
                         {"audio_latents", 5},
                         {"variant", "distill"},
                         {"base",
                          {{"steps", 2},
                           {"passes", 1},
                           {"shift", 5.0},
                           {"guidance", 5.0},
                           {"guidance_late", 2.0},
                           {"guidance_until", 500},
                           {"audio_guidance", 5.0}}},
                         {"sr", nullptr},
                         {"decoder", "turbo"}};
            Json resolved = item;
            resolved.update(item_constants(config, "distill", ""));
            ids_.push_back(id_of(resolved));
            resolved_.push_back(resolved);
            Json line = {{"id", ids_.back()},
                         {"name", "item" + std::to_string(i)},
                         {"bucket", "distill-64x32-5"},
                         {"predicted", 10.0 * static_cast<double>(i + 1)},
                         {"gpus", 1},
                         {"item", item}};
            if (config.sweep.is_object() && !config.sweep.empty())
                for (const auto& [axis, values] : config.sweep.items())
                    line["cell"][axis] = values[i % values.size()];
            lock += canonical_json(line) + "\n";
        }
        config.lock_bytes = lock.size();
        config.lock_sha256 = digest_text(lock);
        std::filesystem::create_directories(path());
        write_atomically(path() / "items.lock.jsonl", lock);
        write_atomically(path() / "run.json", run_json(config).dump());
    }

    std::filesystem::path path() const { return folder_ / "run"; }
    const test::TemporaryFolder& folder() const { return folder_; }
    const std::string& id(std::size_t item) const { return ids_.at(item); }

    void append(const Json& event, const char* journal = "journal.jsonl") {
        std::ofstream(path() / journal, std::ios::app) << journal_line(event);
    }
    void attempt(int n, int agents = 1) {
        append({{"event", "attempt"}, {"n", n}, {"host", "n0"}, {"time", time()}});
        for (int agent = 0; agent < agents; ++agent)
            append({{"event", "joined"},
                    {"agent", agent},
                    {"host", "n" + std::to_string(agent)},
                    {"slots", 1},
                    {"device", "cpu"}});
    }
    void leased(std::size_t item) {
        append({{"event", "leased"}, {"id", id(item)}, {"agent", 0}, {"host", "n0"}, {"slot", 0}});
    }
    /// A finished item whose files nobody looks at.
    void done(std::size_t item, int agent = 0) {
        append(done_event(item, agent,
                          {{"path", clip_path("", id(item)).string()},
                           {"bytes", 1000 + item},
                           {"sha256", digest_text("clip")}}));
    }
    /// A finished item with its files: plain pictures, silence, latents of one value each.
    void render(std::size_t item, int agent = 0) {
        const std::filesystem::path clip = clip_path(path(), id(item));
        std::filesystem::create_directories(clip.parent_path());
        Mp4Options options;
        options.width = 64;
        options.height = 32;
        options.preset = "ultrafast";
        options.threads = 1;
        options.comment = Json({{"id", id(item)}}).dump();
        Mp4Writer writer(clip, options, {});
        Tensor pictures({5, 32, 64, 3}, DType::u8);
        for (Index i = 0; i < pictures.numel(); ++i)
            pictures.data<std::uint8_t>()[i] =
                static_cast<std::uint8_t>(40 * item + static_cast<std::size_t>(i % 3) * 30);
        writer.add_frames(pictures);
        writer.finish();
        const std::filesystem::path latents = latents_path(path(), id(item));
        LatentsFile file;
        file.video_base = Tensor({48, 2, 2, 4});
        file.audio = Tensor({5, 64});
        for (Tensor* tensor : {&file.video_base, &file.audio})
            for (Index i = 0; i < tensor->numel(); ++i)
                tensor->data<float>()[i] = static_cast<float>(i % 7) + static_cast<float>(item);
        file.stored = DType::f32;
        file.attributes = {{"id", id(item)}};
        write_latents(latents, file);
        Json event = done_event(item, agent, row(clip));
        event["latents"] = row(latents);
        append(event);
    }
    void failed(std::size_t item, const std::string& kind, const std::string& error,
                int agent = 0) {
        append({{"event", "failed"},
                {"id", id(item)},
                {"agent", agent},
                {"host", "n" + std::to_string(agent)},
                {"slot", 0},
                {"device", "cpu"},
                {"try", 1},
                {"kind", kind},
                {"error", error},
                {"log", "logs/renderer-n0-0-0.log"},
                {"time", time()}});
    }
    void quarantined(std::size_t item, const std::string& reason, const std::string& error) {
        append({{"event", "quarantined"},
                {"id", id(item)},
                {"reason", reason},
                {"error", error},
                {"tries", 2},
                {"time", time()}});
    }
    void ended(const std::string& outcome) {
        append({{"event", "ended"}, {"outcome", outcome}, {"time", time()}});
    }

private:
    Json row(const std::filesystem::path& file) const {
        return {{"path", file.lexically_relative(path()).string()},
                {"bytes", std::filesystem::file_size(file)},
                {"sha256", digest_file(file)}};
    }
    Json done_event(std::size_t item, int agent, Json clip) {
        return {{"event", "done"},   {"id", id(item)},
                {"agent", agent},    {"host", "n" + std::to_string(agent)},
                {"slot", 0},         {"device", "cpu"},
                {"try", 1},          {"seconds", {{"base", 1.5}, {"decode", 0.5}, {"total", 2.5}}},
                {"predicted", 10.0}, {"clip", std::move(clip)},
                {"time", time()}};
    }
    /// A minute later at each call.
    std::string time() {
        ++minutes_;
        char text[32];
        std::snprintf(text, sizeof text, "2026-01-02T%02d:%02d:00Z", 3 + minutes_ / 60,
                      minutes_ % 60);
        return text;
    }

    TemporaryFolder folder_;
    std::vector<std::string> ids_;
    std::vector<Json> resolved_;
    int minutes_ = 0;
};

/// What has been done in a run so far.
inline RunHistory history_of(const TestRun& run) {
    RunHistory history(run.path());
    history.update();
    return history;
}

}  // namespace gallop::test
