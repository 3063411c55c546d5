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

const char* name_of_precision(Precision precision) {
    switch (precision) {
        case Precision::fp32: return "fp32";
        case Precision::bf16: return "bf16";
        case Precision::fp8: return "fp8";
    }
    return "?";
}

std::string bucket_of(const Item& item) {
    std::string bucket = fmt::format("{}-{}x{}-{}", item.variant, item.base_size.width,
                                     item.base_size.height, item.frames);
    if (!item.sr.empty())
        bucket += fmt::format("-{}-{}x{}", item.sr, item.size.width, item.size.height);
    return bucket;
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
    Json weights = {{item.variant, plan.weights.at(item.variant)},
                    {"shared", plan.weights.at("shared")}};
    Json sr;
    if (!item.sr.empty()) {
        weights[item.sr] = plan.weights.at(item.sr);
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
    return {{"prompt", item.prompt},
            {"negative_prompt", item.negative_prompt},
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
            {"decoder", item.decoder == VideoDecoder::wan ? "wan" : "turbo"},
            {"precision", name_of_precision(plan.manifest.model.precision)},
            {"arch", plan.arch_digest},
            {"weights", weights},
            {"numerics", numerics_version}};
}

std::string id_of(const nlohmann::json& resolved) {
    return digest_text(canonical_json(resolved)).substr(0, 32);
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
    std::map<std::string, std::size_t> known;
    for (const ResolvedItem& asked : plan.manifest.items) {
        Item item = asked.item;
        Json resolved = describe(item, plan, digest_of(item.image), digest_of(item.audio));
        item.id = id_of(resolved);
        const auto [found, fresh] = known.try_emplace(item.id, plan.items.size());
        if (fresh) plan.items.push_back({item, {}, std::move(resolved)});
        plan.items[found->second].names.push_back(item.name);
    }
    return plan;
}

std::string lock_text(const Plan& plan) {
    std::string text;
    for (const PlannedItem& planned : plan.items) {
        Json line = {{"id", planned.item.id},       {"names", planned.names},
                     {"seed", planned.item.seed},   {"bucket", bucket_of(planned.item)},
                     {"image", planned.item.image}, {"audio", planned.item.audio},
                     {"resolved", planned.resolved}};
        text += canonical_json(line) + "\n";
    }
    return text;
}

nlohmann::json frozen_config(const Plan& plan) {
    const Manifest& manifest = plan.manifest;
    const OutputRequest& out = manifest.outputs;
    Json keep = Json::array();
    if (out.keep_base) keep.push_back("base");
    if (out.keep_final) keep.push_back("final");
    Json items = Json::array();
    for (const PlannedItem& planned : plan.items) items.push_back({planned.item.id, planned.names});
    return {{"name", manifest.name},
            {"numerics", numerics_version},
            {"model",
             {{"variant", manifest.model.variant},
              {"precision", name_of_precision(manifest.model.precision)},
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
