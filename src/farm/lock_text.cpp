#include "farm/lock_text.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "core/clip.hpp"
#include "farm/canonical_json.hpp"

namespace gallop {
namespace {

/// Four digits are more than any prediction is good for, and short.
double rounded(double seconds) {
    if (!(seconds > 0)) return 0;
    const double scale = std::pow(10.0, 3 - std::floor(std::log10(seconds)));
    return std::round(seconds * scale) / scale;
}

std::string sampling(const BaseSampling& base) {
    return fmt::format(
        R"("base":{{"audio_guidance":{},"guidance":{},"guidance_late":{},"guidance_until":{},)"
        R"("passes":{},"shift":{},"steps":{}}})",
        number_text(base.audio_guidance), number_text(base.guidance),
        number_text(base.guidance_late), base.guidance_until, base.passes, number_text(base.shift),
        base.steps);
}

std::string sampling(const std::string& model, const SrSampling& super) {
    if (model.empty()) return "\"sr\":null";
    return fmt::format(
        R"("sr":{{"audio_noise":{},"guidance":{},"model":"{}","noise_value":{},"passes":{},)"
        R"("shift":{},"steps":{},"trick_frames":{},"trick_guidance":{}}})",
        number_text(super.audio_noise), number_text(super.guidance), model, super.noise_value,
        super.passes, number_text(super.shift), super.steps, super.trick_frames,
        number_text(super.trick_guidance));
}

}  // namespace

LockConstants::LockConstants(const nlohmann::json& constants)
    : arch("\"arch\":" + canonical_json(constants.at("arch"))),
      middle("\"numerics\":" + canonical_json(constants.at("numerics")) +
             ",\"precision\":" + canonical_json(constants.at("precision"))),
      weights("\"weights\":" + canonical_json(constants.at("weights"))) {}

// Keys stand in the order that RFC 8785 asks for. A test holds the text against canonical_json.
LockLine::LockLine(const Item& item, const std::string& image_digest,
                   const std::string& audio_digest, const std::string& negative_digest,
                   const LockConstants& constants, std::string_view cell, std::string_view bucket,
                   double predicted, int gpus) {
    // Whole latents say their number of samples themselves.
    const std::string samples =
        item.audio_samples == Index{item.audio_latents} * samples_per_latent || item.audio.empty()
            ? ""
            : fmt::format(R"("audio_samples":{},)", item.audio_samples);
    const std::string first = fmt::format(
        R"("audio":"{}","audio_latents":{},"audio_posterior":"{}",{}{},"base_size":[{},{}],)"
        R"("decoder":"{}","frames":{},"image":"{}","negative_prompt":"{}")",
        audio_digest, item.audio_latents, item.audio_posterior_mean ? "mean" : "sample", samples,
        sampling(item.base), item.base_size.width, item.base_size.height,
        item.decoder == VideoDecoder::wan ? "wan" : "turbo", item.frames, image_digest,
        negative_digest);
    std::string prompt = "\"prompt\":";
    append_json_text(item.prompt, prompt);
    const std::string last =
        fmt::format(R"("size":[{},{}],{},"variant":"{}")", item.size.width, item.size.height,
                    sampling(item.sr, item.super), item.variant);
    before_seed_ =
        fmt::format("{{{},{},{},{},\"seed\":", constants.arch, first, constants.middle, prompt);
    after_seed_ = fmt::format(",{},{}}}", last, constants.weights);
    item_before_seed_ = fmt::format("\",\"item\":{{{},{},\"seed\":", first, prompt);
    item_after_seed_ = fmt::format(",{}}},\"name\":", last);

    head_ = fmt::format("{{\"bucket\":\"{}\"", bucket);
    if (!cell.empty()) head_ += fmt::format(",\"cell\":{}", cell);
    head_ += fmt::format(",\"gpus\":{},\"id\":\"", gpus);
    if (!item.image.empty() || !item.audio.empty()) {
        tail_ += ",\"paths\":{";
        if (!item.audio.empty()) {
            tail_ += "\"audio\":";
            append_json_text(item.audio, tail_);
        }
        if (!item.image.empty()) {
            tail_ += item.audio.empty() ? "\"image\":" : ",\"image\":";
            append_json_text(item.image, tail_);
        }
        tail_ += '}';
    }
    tail_ += ",\"predicted\":" + number_text(rounded(predicted));
    if (item.tiled_decode) tail_ += ",\"tiled\":true";
    tail_ += "}\n";
}

Id128 LockLine::id(std::uint64_t seed, Sha256& sha) const {
    sha.reset();
    sha.update(before_seed_);
    sha.update(fmt::format_int(seed).str());
    sha.update(after_seed_);
    const auto digest = sha.finish();
    Id128 id{};
    std::copy_n(digest.begin(), id.size(), id.begin());
    return id;
}

void LockLine::write(std::uint64_t seed, const Id128& id, std::string_view name,
                     std::string& out) const {
    out += head_;
    out += id_text(id);
    out += item_before_seed_;
    out += fmt::format_int(seed).str();
    out += item_after_seed_;
    append_json_text(name, out);
    out += tail_;
}

}  // namespace gallop
