#include "farm/plan.hpp"

#include <map>
#include <set>

#include "core/check.hpp"
#include "core/clip.hpp"
#include "core/files.hpp"
#include "farm/canonical_json.hpp"
#include "media/audio_file.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

using Json = nlohmann::json;

Json size_json(Size size) { return {size.width, size.height}; }

std::string bucket_of(const Item& item) {
    std::string bucket = fmt::format("{}-{}x{}-{}", item.variant, item.base_size.width,
                                     item.base_size.height, item.frames);
    if (!item.sr.empty())
        bucket += fmt::format("-{}-{}x{}", item.sr, item.size.width, item.size.height);
    return bucket;
}

/// Pixels to compute, as seconds of a CPU: comparable with one another, no more.
double predicted_seconds(const Item& item) {
    const auto work = [&](Size size, int steps, int passes) {
        return 1e-6 * size.width * size.height * item.frames * steps * passes;
    };
    double seconds = work(item.base_size, item.base.steps, item.base.passes);
    if (!item.sr.empty()) seconds += work(item.size, item.super.steps, item.super.passes);
    return seconds;
}

}  // namespace

void measure_sounds(Manifest& manifest) {
    std::map<std::pair<std::string, double>, std::int64_t> measured;
    std::vector<std::string> problems;
    for (ResolvedItem& resolved : manifest.items) {
        Item& item = resolved.item;
        if (item.audio.empty()) continue;
        const int wanted = item.audio_latents;
        const double seconds =
            resolved.frames > 0 ? wanted * 2048.0 / driving_sample_rate : resolved.seconds;
        try {
            const auto [found, fresh] = measured.try_emplace({item.audio, seconds}, 0);
            if (fresh) found->second = load_audio(item.audio, seconds).numel();
            const Length length = length_of_sound(found->second);
            if (length.audio_latents == 0)
                throw_input_error(
                    "item \"{}\": {} is too short: {} samples at 51,200 Hz (2048 needed for one "
                    "picture)",
                    item.name, item.audio, found->second);
            if (resolved.frames > 0 && length.audio_latents < wanted)
                throw_input_error("item \"{}\": {} lasts {:.2f} s, but {} frames need {:.2f} s",
                                  item.name, item.audio,
                                  static_cast<double>(found->second) / driving_sample_rate,
                                  resolved.frames, seconds);
            if (resolved.frames == 0) {
                item.frames = length.frames;
                item.audio_latents = length.audio_latents;
            }
        } catch (const InputError& wrong) {
            problems.push_back(fmt::format("{}: {}", to_string(resolved.where), wrong.what()));
        }
    }
    if (!problems.empty()) throw InputError(fmt::format("{}", fmt::join(problems, "\n")));
}

nlohmann::json describe(const Item& item, const Plan& plan, const std::string& image_digest,
                        const std::string& audio_digest) {
    Json sr;
    if (!item.sr.empty()) {
        const SrSampling& super = item.super;
        sr = {{"model", item.sr},
              {"steps", super.steps},
              {"passes", super.passes},
              {"shift", super.shift},
              {"guidance", super.guidance},
              {"trick_frames", super.trick_frames},
              {"trick_guidance", super.trick_guidance},
              {"noise_value", super.noise_value},
              {"audio_noise", super.audio_noise}};
    }
    const BaseSampling& base = item.base;
    Json all = {
        {"prompt", item.prompt},
        {"negative_prompt", item.negative_prompt.empty() ? "" : digest_text(item.negative_prompt)},
        {"image", image_digest},
        {"audio", audio_digest},
        {"audio_posterior", item.audio_posterior_mean ? "mean" : "sample"},
        {"seed", item.seed},
        {"size", size_json(item.size)},
        {"base_size", size_json(item.base_size)},
        {"frames", item.frames},
        {"audio_latents", item.audio_latents},
        {"variant", item.variant},
        {"base",
         {{"steps", base.steps},
          {"passes", base.passes},
          {"shift", base.shift},
          {"guidance", base.guidance},
          {"guidance_late", base.guidance_late},
          {"guidance_until", base.guidance_until},
          {"audio_guidance", base.audio_guidance}}},
        {"sr", sr},
        {"decoder", item.decoder == VideoDecoder::wan ? "wan" : "turbo"}};
    RunConfig shared;
    shared.model = plan.manifest.model;
    shared.weights = plan.weights;
    shared.arch_digest = plan.arch_digest;
    all.update(item_constants(shared, item.variant, item.sr));
    return all;
}

Plan make_plan(Manifest manifest, const std::filesystem::path& cache) {
    measure_sounds(manifest);
    Plan plan;
    plan.manifest = std::move(manifest);
    const ModelRequest& model = plan.manifest.model;
    std::set<std::string> networks = {model.variant};
    for (const ResolvedItem& resolved : plan.manifest.items)
        if (!resolved.item.sr.empty()) networks.insert(resolved.item.sr);
    plan.weights = digest_weights(model.path, {networks.begin(), networks.end()}, cache);
    if (!model.arch.empty()) plan.arch_digest = digest_file(model.arch);

    std::map<std::string, std::string> inputs;
    const auto digest_of = [&](const std::string& path) {
        if (path.empty()) return std::string();
        const auto [found, fresh] = inputs.try_emplace(path);
        if (fresh) found->second = digest_file(path);
        return found->second;
    };
    std::set<std::string> known;
    for (const ResolvedItem& asked : plan.manifest.items) {
        Item item = asked.item;
        Json resolved = describe(item, plan, digest_of(item.image), digest_of(item.audio));
        item.id = id_of(resolved);
        if (!known.insert(item.id).second) {
            plan.duplicates.push_back({item.id, item.name});
            continue;
        }
        if (!item.negative_prompt.empty())
            plan.texts.emplace(digest_text(item.negative_prompt), item.negative_prompt);
        plan.items.push_back(
            {item, bucket_of(item), predicted_seconds(item), 1, {}, std::move(resolved)});
    }
    return plan;
}

std::string lock_text(const Plan& plan) {
    std::string text;
    for (const PlannedItem& planned : plan.items) {
        const Item& item = planned.item;
        Json line = {{"id", item.id},
                     {"name", item.name},
                     {"bucket", planned.bucket},
                     {"predicted", planned.predicted},
                     {"gpus", planned.gpus},
                     {"item", planned.resolved}};
        for (const char* constant : {"arch", "numerics", "precision", "weights"})
            line["item"].erase(constant);
        if (!item.image.empty()) line["paths"]["image"] = item.image;
        if (!item.audio.empty()) line["paths"]["audio"] = item.audio;
        text += canonical_json(line) + "\n";
    }
    return text;
}

RunConfig run_config_of(const Plan& plan) {
    RunConfig config;
    const Manifest& manifest = plan.manifest;
    config.name = manifest.name;
    config.model = manifest.model;
    config.outputs = manifest.outputs;
    config.manifest = std::filesystem::absolute(manifest.path).string();
    config.weights = plan.weights;
    config.arch_digest = plan.arch_digest;
    config.texts = plan.texts;
    std::map<std::string, std::size_t> known;
    for (const PlannedItem& planned : plan.items) {
        const auto [at, fresh] = known.try_emplace(planned.bucket, config.buckets.size());
        if (fresh) {
            Bucket& made = config.buckets.emplace_back();
            made.name = planned.bucket;
            made.seconds = planned.predicted;
        }
        ++config.buckets[at->second].items;
    }
    config.items = plan.items.size();
    config.duplicates = plan.duplicates.size();
    const std::string text = lock_text(plan);
    config.lock_bytes = text.size();
    config.lock_sha256 = digest_text(text);
    return config;
}

nlohmann::json frozen_config(const Plan& plan) {
    const Manifest& manifest = plan.manifest;
    const OutputRequest& out = manifest.outputs;
    Json keep = Json::array();
    if (out.keep_base) keep.push_back("base");
    if (out.keep_final) keep.push_back("final");
    Json items = Json::array();
    for (const PlannedItem& planned : plan.items) items.push_back(planned.item.id);
    return {{"name", manifest.name},
            {"numerics", numerics_version},
            {"model",
             {{"variant", manifest.model.variant},
              {"precision", name_of(manifest.model.precision)},
              {"arch", plan.arch_digest},
              {"weights", plan.weights}}},
            {"outputs",
             {{"video",
               {{"codec", out.codec},
                {"crf", out.crf},
                {"preset", out.preset},
                {"pix_fmt", out.pix_fmt}}},
              {"audio", {{"codec", out.audio_codec}, {"bitrate", out.audio_bitrate}}},
              {"latents", {{"keep", keep}, {"dtype", std::string(name_of(out.latents))}}}}},
            {"items", digest_text(canonical_json(items))}};
}

}  // namespace gallop
