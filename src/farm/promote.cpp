#include "farm/promote.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

#include <unistd.h>

#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "farm/index.hpp"
#include "farm/journal.hpp"
#include "farm/plan.hpp"
#include "farm/problems.hpp"
#include "farm/render_item.hpp"
#include "farm/report.hpp"
#include "farm/run_directory.hpp"
#include "farm/run_json.hpp"
#include "farm/run_lock.hpp"
#include "farm/time_text.hpp"
#include "media/digest.hpp"
#include "media/h5.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using State = ItemHistory::State;

int to_multiple(double side) { return std::max(32, static_cast<int>(std::lround(side / 32)) * 32); }

/// Source: the field of the same name in items.lock.jsonl.
Json sr_json(const std::string& model, const SrSampling& super) {
    return {{"model", model},
            {"steps", super.steps},
            {"passes", super.passes},
            {"shift", super.shift},
            {"guidance", super.guidance},
            {"trick_frames", super.trick_frames},
            {"trick_guidance", super.trick_guidance},
            {"noise_value", super.noise_value},
            {"audio_noise", super.audio_noise}};
}

std::string sr_of(const PromoteRequest& request, Size size) {
    if (!request.sr.empty()) return request.sr;
    if (request.resolution == "540p" || request.resolution == "1080p")
        return request.resolution + "_sr";
    // Halfway, by area, between the sizes of the published scripts.
    return std::int64_t{size.width} * size.height <= 2 * 896 * 512 ? "540p_sr" : "1080p_sr";
}

void refuse_missing_network(const fs::path& model, const std::string& sr) {
    std::error_code failed;
    if (fs::is_directory(model / sr, failed)) return;
    const std::string other = sr == "540p_sr" ? "1080p_sr" : "540p_sr";
    throw_input_error(
        "{}: has no folder {}, the network of the second stage; put its weights there{}",
        model.string(), sr,
        fs::is_directory(model / other, failed)
            ? fmt::format(", or take {}, which is there, with --sr {}", other, other)
            : "");
}

/// Where the draft's base latents are, and whether they are as they were computed.
void find_latents(const RunHistory& drafts, std::size_t item, Promotion& promotion) {
    const std::string& id = promotion.planned.item.id;
    if (drafts[item].state != State::done)
        throw_input_error("item \"{}\" ({}) is not finished; only finished drafts are promoted",
                          promotion.planned.item.name, id);
    const Json done = drafts.event(drafts[item].decided);
    const std::string path = done.value("latents", Json::object()).value("path", "");
    if (path.empty())
        throw_input_error("item \"{}\" ({}) kept no latents (outputs.latents.keep must hold base)",
                          promotion.planned.item.name, id);
    promotion.latents = fs::absolute(drafts.directory() / path);
    const LatentsFile file = read_latents(promotion.latents);
    if (!file.video_base.defined() || !file.audio.defined())
        throw_input_error("{}: holds no base latents (outputs.latents.keep must hold base)",
                          promotion.latents.string());
    promotion.exact = file.stored == DType::f32;
}

/// The text of a file's lines from `path`, or "".
std::string text_or_nothing(const fs::path& path) {
    return fs::exists(path) ? read_text(path, std::uint64_t{1} << 36) : std::string();
}

/// Journals the promotion of one run directory.
class Promoter {
public:
    Promoter(const fs::path& out, const Stages& stages, const RefineStage& refine,
             const std::string& device)
        : out_(out),
          stages_(stages),
          refine_(refine),
          device_(device),
          lock_(out),
          config_(read_run_config(out)),
          journal_(out / "journal.jsonl") {
        RunHistory history(out);
        history.update();
        for (std::size_t item = 0; item < history.size(); ++item)
            if (history[item].state == State::done)
                done_.push_back(id_text(history.plan().rows[item].id));
        journal_.append({{"event", "attempt"},
                         {"n", history.attempt() + 1},
                         {"host", host_name()},
                         {"pid", ::getpid()},
                         {"ranks", 1},
                         {"version", GALLOP_VERSION},
                         {"time", utc_text()}});
        journal_.append({{"event", "joined"},
                         {"agent", 0},
                         {"host", host_name()},
                         {"slots", 1},
                         {"device", device_}});
    }

    PromoteCount run(const std::vector<Promotion>& promotions) {
        PromoteCount count;
        for (const Promotion& promotion : promotions) {
            const std::string& id = promotion.planned.item.id;
            if (std::find(done_.begin(), done_.end(), id) != done_.end())
                ++count.done;
            else
                ++(render(promotion) ? count.done : count.failed);
        }
        journal_.flush();
        RunHistory history(out_);
        history.update();
        const bool complete = history.count(State::done) == history.size();
        journal_.append({{"event", "ended"},
                         {"outcome", complete ? "complete" : "stopped"},
                         {"time", utc_text()}});
        journal_.flush();
        write_index(history);
        write_report(out_);
        if (complete) sign_complete(out_, "complete");
        return count;
    }

private:
    bool render(const Promotion& promotion) {
        const Item& item = promotion.planned.item;
        const LogScope scope("item", item.name);
        Json event = {{"id", item.id}, {"agent", 0},        {"host", host_name()},
                      {"slot", 0},     {"device", device_}, {"try", 1}};
        try {
            Stages stages = stages_;
            stages.denoise = [&](const Item& what, const Conditioning& inputs,
                                 const ProgressSink& progress) {
                LatentsFile base = read_latents(promotion.latents);
                return refine_(what, inputs,
                               {std::move(base.video_base), {}, std::move(base.audio)}, progress);
            };
            const RenderedItem made = render_item({.item = item,
                                                   .resolved = promotion.planned.resolved,
                                                   .model = config_.model,
                                                   .outputs = config_.outputs,
                                                   .directory = out_},
                                                  stages, {});
            event["event"] = "done";
            event["predicted"] = promotion.planned.predicted;
            event["seconds"] = Json::object();
            for (const auto& [stage, seconds] : made.seconds.stages)
                event["seconds"][stage] = seconds;
            event["clip"] = to_json(made.clip);
            if (made.latents) event["latents"] = to_json(*made.latents);
            event["time"] = utc_text();
            journal_.append(event);
            log_info("promoted width={} height={}", item.size.width, item.size.height);
            return true;
        } catch (const DeviceError&) {
            throw;
        } catch (const Error& failed) {
            event["event"] = "failed";
            event["kind"] = dynamic_cast<const InputError*>(&failed) != nullptr ? "input" : "error";
            event["error"] = failed.what();
            event["time"] = utc_text();
            journal_.append(event);
            log_error("failed reason=\"{}\"", failed.what());
            return false;
        }
    }

    fs::path out_;
    const Stages& stages_;
    const RefineStage& refine_;
    std::string device_;
    RunLock lock_;
    RunConfig config_;
    Journal journal_;
    std::vector<std::string> done_;
};

}  // namespace

Size promoted_size(const std::string& resolution, Size base) {
    Size size;
    if (resolution == "540p") {
        size = {2 * base.width, 2 * base.height};
    } else if (resolution == "1080p") {
        constexpr double factor = 1920.0 / 448;  // the published script's
        size = {to_multiple(base.width * factor), to_multiple(base.height * factor)};
    } else {
        const std::size_t x = resolution.find('x');
        const auto side = [&](std::string_view text, int& out) {
            const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), out);
            return failed == std::errc() && end == text.data() + text.size() && out >= 32 &&
                   out <= 8192 && out % 32 == 0;
        };
        if (x == std::string::npos ||
            !side(std::string_view(resolution).substr(0, x), size.width) ||
            !side(std::string_view(resolution).substr(x + 1), size.height))
            throw_input_error(
                "--resolution is \"{}\" (540p, 1080p, or WIDTHxHEIGHT in multiples of 32 up to "
                "8192)",
                resolution);
    }
    if (size.width < base.width || size.height < base.height || size == base)
        throw_input_error("--resolution {} makes {}x{}, no more than the draft's {}x{}", resolution,
                          size.width, size.height, base.width, base.height);
    return size;
}

std::vector<Promotion> plan_promotion(const RunHistory& drafts, const PromoteRequest& request,
                                      RunConfig& config) {
    config = drafts.config();
    refuse_changed_model(config, request.digest_cache);
    std::vector<Promotion> promotions;
    for_each_word(request.words, [&](const std::string& word) {
        const std::size_t index = drafts.resolve(word);
        const PlanRow& row = drafts.plan().rows[index];
        Promotion made;
        made.planned = drafts.planned(index);
        find_latents(drafts, index, made);
        Item& item = made.planned.item;
        item.size = promoted_size(request.resolution, item.base_size);
        item.sr = sr_of(request, item.size);
        item.super = {};
        refuse_missing_network(config.model.path, item.sr);

        config.weights.merge(
            digest_model(config.model, {item.variant, item.sr}, request.digest_cache));

        std::string text(row.bytes, '\0');
        InputFile(drafts.directory() / "items.lock.jsonl")
            .read(row.offset, std::as_writable_bytes(std::span(text)));
        Json line = Json::parse(text);
        line["item"]["size"] = {item.size.width, item.size.height};
        line["item"]["sr"] = sr_json(item.sr, item.super);
        if (!made.exact) line["item"]["base_latents"] = digest_file(made.latents);
        made.planned.resolved = line["item"];
        made.planned.resolved.update(item_constants(config, item.variant, item.sr));
        item.id = id_of(made.planned.resolved);
        made.planned.bucket = fmt::format("{}-{}x{}-{}-{}-{}x{}", item.variant,
                                          item.base_size.width, item.base_size.height, item.frames,
                                          item.sr, item.size.width, item.size.height);
        made.planned.predicted *=
            static_cast<double>(item.size.width) * item.size.height /
            (static_cast<double>(item.base_size.width) * item.base_size.height);
        line["id"] = item.id;
        line["bucket"] = made.planned.bucket;
        line["predicted"] = made.planned.predicted;
        line["gpus"] = made.planned.gpus = 1;
        made.line = canonical_json(line);
        const bool twice =
            std::any_of(promotions.begin(), promotions.end(),
                        [&](const Promotion& p) { return p.planned.item.id == item.id; });
        if (!twice) promotions.push_back(std::move(made));
    });
    config.name += "-" + request.resolution;
    config.outputs.root = request.out.string();
    config.buckets.clear();
    config.items = config.duplicates = config.lock_bytes = 0;
    return promotions;
}

void write_promotion(const fs::path& out, const std::vector<Promotion>& promotions,
                     RunConfig config) {
    const RunLock lock(out);
    std::string text;
    if (fs::exists(out / "run.json")) {
        const RunConfig before = read_run_config(out);
        if (before.name != config.name || before.model.path != config.model.path)
            throw_input_error(
                "{}: is the run \"{}\" (must be a promotion of the same run); choose another --out",
                out.string(), before.name);
        text = text_or_nothing(out / "items.lock.jsonl").substr(0, before.lock_bytes);
        config.items = before.items;
        config.buckets = before.buckets;
        config.weights.insert(before.weights.begin(), before.weights.end());
    } else {
        for (const auto& entry : fs::directory_iterator(out))
            if (!is_lock_file(entry.path().filename().string()))
                throw_input_error("{}: holds \"{}\" but no run.json (needs an empty or new folder)",
                                  out.string(), entry.path().filename().string());
    }
    for (const Promotion& promotion : promotions) {
        const std::string key = "\"id\":\"" + promotion.planned.item.id + "\"";
        if (text.find(key) != std::string::npos) continue;
        text += promotion.line + "\n";
        ++config.items;
        const std::string& name = promotion.planned.bucket;
        auto bucket = std::find_if(config.buckets.begin(), config.buckets.end(),
                                   [&](const Bucket& known) { return known.name == name; });
        if (bucket == config.buckets.end()) {
            bucket = config.buckets.emplace(config.buckets.end());
            bucket->name = name;
            bucket->seconds = promotion.planned.predicted;
        }
        ++bucket->items;
    }
    config.lock_bytes = text.size();
    config.lock_sha256 = digest_text(text);
    fs::remove(out / "COMPLETE");
    // The lock only grows: the run.json of before still fits it, should the second write be cut off.
    write_atomically(out / "items.lock.jsonl", text);
    Json run = run_json(config);
    run["versions"] = {{"gallop", GALLOP_VERSION}};
    run["host"] = host_name();
    run["created"] = utc_text();
    write_atomically(out / "run.json", run.dump(2) + "\n");
}

PromoteCount render_promotion(const fs::path& out, const std::vector<Promotion>& promotions,
                              const Stages& stages, const RefineStage& refine,
                              const std::string& device) {
    return Promoter(out, stages, refine, device).run(promotions);
}

}  // namespace gallop
