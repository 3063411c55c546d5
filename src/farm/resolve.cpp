#include "farm/resolve.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "core/clip.hpp"

namespace gallop {
namespace {

using F = ItemField;

struct Named {
    const char* name;
    Size base;
    Size size;
    const char* sr;
};
// The sizes of the published scripts. Source: example/ of daVinci-MagiHuman.
constexpr Named named_resolutions[] = {{"256p", {448, 256}, {448, 256}, ""},
                                       {"540p", {448, 256}, {896, 512}, "540p_sr"},
                                       {"1080p", {448, 256}, {1920, 1088}, "1080p_sr"}};

const Named* find_named(std::string_view word) {
    for (const Named& named : named_resolutions)
        if (word == named.name) return &named;
    return nullptr;
}

/// The size of a word that was found right when it was read.
Size size_of(std::string_view word) {
    if (const Named* named = find_named(word)) return named->size;
    Size size;
    read_size(word, size.width, size.height);
    return size;
}

bool is_file(const std::filesystem::path& path) {
    std::error_code failed;
    return std::filesystem::is_regular_file(path, failed);
}

/// Collects the mistakes of one item.
struct Checker {
    const ItemFields& fields;
    const Where& item;
    Problems& problems;

    const Where& at(F field) const {
        const Assignment* found = fields.at(field);
        return found == nullptr ? item : found->where;
    }
    void problem(F field, std::string text) const { problems.add(at(field), std::move(text)); }
    std::string file(F field, const std::filesystem::path& folder) const {
        const std::string& written = fields.text(field);
        if (written.empty()) return {};
        const std::filesystem::path path = (folder / written).lexically_normal();
        if (!is_file(path))
            problem(field, fmt::format("{} is \"{}\", but {} ({})", item_field(field).path, written,
                                       absence(path, "file"), path.string()));
        return path.string();
    }
};

void resolve_task(const Checker& check) {
    const ItemFields& fields = check.fields;
    const Assignment* given = fields.at(F::task);
    if (given == nullptr) return;
    const std::string& task = std::get<std::string>(given->value);
    // A task from the defaults yields to inputs that the item itself brings.
    const auto brought = [&](F field) {
        const Assignment* input = fields.at(field);
        return input != nullptr && input->rank > given->rank;
    };
    if (task == "t2av") {
        for (const F field : {F::image, F::audio})
            if (!fields.text(field).empty() && !brought(field))
                check.problem(
                    F::task, fmt::format("task is t2av, but {0} is \"{1}\" (t2av takes text only); "
                                         "leave task out, or set {0} to \"\"",
                                         item_field(field).path, fields.text(field)));
        return;
    }
    const bool image = task == "ti2av";
    if (fields.text(image ? F::image : F::audio).empty())
        check.problem(F::task,
                      fmt::format("task is {} (needs {})", task, image ? "image" : "audio"));
    if (image && !fields.text(F::audio).empty() && !brought(F::audio))
        check.problem(F::task,
                      "task is ti2av, but audio is given (a2v takes driving sound, with or without "
                      "an image)");
}

void resolve_sizes(const Checker& check, Item& item, Problems& notes) {
    const ItemFields& fields = check.fields;
    const Assignment* given = fields.at(F::resolution);
    const std::string resolution = given == nullptr ? "256p" : fields.text(F::resolution);
    const Named* named = find_named(resolution);
    item.size = size_of(resolution);
    const std::string& model = fields.text(F::sr_model);
    item.sr = model.empty() || model == "auto" ? (named == nullptr ? "" : named->sr)
              : model == "none"                ? ""
                                               : model;
    item.base_size = item.size;
    const std::string& base = fields.text(F::base_resolution);
    if (item.sr.empty()) {
        if (!base.empty())
            check.problem(F::base_resolution,
                          fmt::format("base_resolution is {}, but no super-resolution stage "
                                      "follows (sr must be 540p_sr or 1080p_sr)",
                                      base));
        return;
    }
    if (!base.empty()) {
        item.base_size = size_of(base);
    } else if (named != nullptr && named->sr[0] != '\0') {
        item.base_size = named->base;
    } else {
        item.base_size = {nearest_side(item.size.width / 2), nearest_side(item.size.height / 2)};
        notes.add(check.at(F::resolution),
                  fmt::format(
                      "the base stage runs at {}x{}, half of {}; base_resolution sets another size",
                      item.base_size.width, item.base_size.height, resolution));
    }
    if (item.base_size.width > item.size.width || item.base_size.height > item.size.height)
        check.problem(
            F::base_resolution,
            fmt::format("base_resolution is {}x{} (at most the final {}x{})", item.base_size.width,
                        item.base_size.height, item.size.width, item.size.height));
}

/// Whole ones of `rate` a second. The addend keeps 1.16 s, which is 28.999… pictures in doubles, at 29.
Index count_in(double seconds, int rate) {
    return static_cast<Index>(std::floor(seconds * rate + 1e-6));
}

Length length_of_latents(int audio_latents) {
    return {4 * ((audio_latents - 1) / 4) + 1, audio_latents};
}

}  // namespace

Length length_of_frames(int frames) {
    const int latent_frames = (frames - 1 + 3) / 4 + 1;
    return {frames, 4 * (latent_frames - 1) + 1};
}

Length length_of_seconds(double seconds) {
    return length_of_latents(static_cast<int>(count_in(seconds, frames_per_second)) + 1);
}

Length length_of_sound(Index samples) {
    if (samples < samples_per_latent) return {};
    const Index fill = samples > driving_window ? samples_per_latent - 1 : 0;
    return length_of_latents(static_cast<int>((samples + fill) / samples_per_latent));
}

Index samples_of_seconds(double seconds) { return count_in(seconds, driving_sample_rate); }

ResolvedItem resolve_fields(const ItemFields& fields, const std::string& variant,
                            const std::filesystem::path& folder, const Where& where,
                            const std::string& negative_prompt, Problems& problems,
                            Problems& notes) {
    const Checker check{fields, where, problems};
    ResolvedItem resolved;
    resolved.where = where;
    Item& item = resolved.item;
    item.name = fields.text(F::name);
    item.prompt = fields.text(F::prompt);
    // In words that are the same for all items that miss it there: it is said once.
    if (item.prompt.find_first_not_of(" \t\r\n") == std::string::npos)
        check.problem(F::prompt, fields.has(F::prompt) ? "prompt is empty (must be text)"
                                                       : "an item without a prompt");
    item.image = check.file(F::image, folder);
    item.audio = check.file(F::audio, folder);
    resolve_task(check);
    resolve_sizes(check, item, notes);

    resolved.frames = fields.whole(F::frames, 0);
    resolved.seconds = resolved.frames > 0 ? 0 : fields.number(F::seconds, 5.0);
    resolved.seconds_given = fields.has(F::seconds);
    const Length length = resolved.frames > 0 ? length_of_frames(resolved.frames)
                                              : length_of_seconds(resolved.seconds);
    item.frames = length.frames;
    item.audio_latents = length.audio_latents;

    item.variant = variant;
    const bool guided = variant == "base";
    BaseSampling& base = item.base;
    base.steps = fields.whole(F::steps_base, guided ? 32 : 8);
    base.passes = fields.whole(F::passes, guided ? 2 : 1);
    base.shift = fields.number(F::shift, base.shift);
    base.guidance = fields.number(F::guidance_video, base.guidance);
    base.guidance_late = fields.number(F::guidance_late, base.guidance_late);
    base.guidance_until = fields.whole(F::guidance_until, base.guidance_until);
    base.audio_guidance = fields.number(F::guidance_audio, base.audio_guidance);
    if (base.passes == 1 && fields.has(F::guidance_video))
        notes.add(check.at(F::guidance_video),
                  "guidance has no effect with one pass (passes: 2 turns it on)");
    SrSampling& super = item.super;
    super.steps = fields.whole(F::steps_sr, super.steps);
    super.passes = fields.whole(F::sr_passes, super.passes);
    super.shift = fields.number(F::sr_shift, super.shift);
    super.guidance = fields.number(F::sr_guidance, super.guidance);
    super.trick_frames = fields.whole(F::sr_trick_frames, super.trick_frames);
    super.trick_guidance = fields.number(F::sr_trick_guidance, super.trick_guidance);
    super.noise_value = fields.whole(F::sr_noise_value, super.noise_value);
    super.audio_noise = fields.number(F::sr_audio_noise, super.audio_noise);
    item.decoder = fields.text(F::decoder) == "wan" ? VideoDecoder::wan : VideoDecoder::turbo;
    const Assignment* tiled = fields.at(F::decode_tiled);
    item.tiled_decode = tiled != nullptr && std::get<bool>(tiled->value);
    item.audio_posterior_mean = fields.text(F::audio_posterior) == "mean";
    // Where nothing reads a negative prompt it must not change the id.
    if (base.passes == 2 || (!item.sr.empty() && super.passes == 2)) {
        item.negative_prompt = fields.text(F::negative_prompt);
        if (item.negative_prompt.empty()) item.negative_prompt = negative_prompt;
    }
    return resolved;
}

}  // namespace gallop
