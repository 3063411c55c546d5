#include "farm/fields.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/check.hpp"
#include "core/files.hpp"
#include "farm/canonical_json.hpp"

namespace gallop {
namespace {

constexpr int largest_side = 8192;
constexpr double most_seconds = 600;
constexpr std::int64_t largest_seed = (std::int64_t{1} << 53) - 1;  // exact in canonical JSON

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

int nearest_multiple(std::int64_t side) {
    return static_cast<int>(std::clamp<std::int64_t>((side + 16) / 32 * 32, 32, largest_side));
}

/// Reads "WxH". Returns an empty text or what is wrong with it.
std::string read_size(std::string_view text, Size& size) {
    std::int64_t side[2] = {0, 0};
    const char* at = text.data();
    const char* const end = at + text.size();
    for (int i = 0; i < 2; ++i) {
        const auto [stop, failed] = std::from_chars(at, end, side[i]);
        if (failed != std::errc() || stop == at || *at == '-' ||
            (i == 0 ? stop == end || *stop != 'x' : stop != end))
            return fmt::format("is \"{}\" (must be 256p, 540p, 1080p, or WIDTHxHEIGHT)", text);
        at = stop + 1;
    }
    const Size near{nearest_multiple(side[0]), nearest_multiple(side[1])};
    if (near.width != side[0] || near.height != side[1])
        return fmt::format(
            "is {} (width and height must be multiples of 32 from 32 to {}); the nearest is {}x{}",
            text, largest_side, near.width, near.height);
    size = near;
    return {};
}

void read_guidance(Reader& in, ItemFields& fields) {
    constexpr Range range{0.0, 100.0};
    const Node* node = in.node("guidance");
    if (node->kind == Node::Kind::map) {
        Reader child = in.child("guidance");
        if (child.has("video")) fields.guidance = child.get("video", 5.0, range);
        if (child.has("late")) fields.guidance_late = child.get("late", 2.0, range);
        if (child.has("until")) fields.guidance_until = child.get("until", 500, Range{0, 1000});
        if (child.has("audio")) fields.audio_guidance = child.get("audio", 5.0, range);
        return;
    }
    const double value = in.get("guidance", 5.0, range);
    fields.guidance = fields.audio_guidance = value;
    fields.guidance_late = std::min(value, BaseSampling{}.guidance_late);
    fields.guidance_until.reset();
}

void read_sr(Reader& in, ItemFields& fields) {
    static const std::vector<std::string> models = {"auto", "none", "540p_sr", "1080p_sr"};
    const Node* node = in.node("sr");
    if (node->kind != Node::Kind::map) {
        fields.sr = in.choice("sr", fields.sr, models);
        return;
    }
    Reader child = in.child("sr");
    SrSampling& super = fields.super;
    fields.sr = child.choice("model", fields.sr, models);
    super.passes = child.get("passes", super.passes, Range{1, 2});
    super.shift = child.get("shift", super.shift, Range{0.1, 100.0});
    super.guidance = child.get("guidance", super.guidance, Range{0.0, 100.0});
    super.trick_frames = child.get("trick_frames", super.trick_frames, Range{0, 100000});
    super.trick_guidance = child.get("trick_guidance", super.trick_guidance, Range{0.0, 100.0});
    super.noise_value = child.get("noise_value", super.noise_value, Range{0, 999});
    super.audio_noise = child.get("audio_noise", super.audio_noise, Range{0.0, 1.0});
}

bool is_file(const std::filesystem::path& path) {
    std::error_code failed;
    return std::filesystem::is_regular_file(path, failed);
}

/// Collects the mistakes of one item.
struct Checker {
    const ItemFields& fields;
    const Where& item;
    std::vector<Remark>& problems;

    Where at(std::string_view key) const {
        const auto found = fields.set_at.find(key);
        return found == fields.set_at.end() ? item : found->second.where;
    }
    int layer(std::string_view key) const {
        const auto found = fields.set_at.find(key);
        return found == fields.set_at.end() ? 0 : found->second.layer;
    }
    void problem(std::string_view key, std::string text) const {
        problems.push_back({at(key), std::move(text)});
    }
    std::string file(const char* key, const std::string& written,
                     const std::filesystem::path& folder) const {
        if (written.empty()) return {};
        const std::filesystem::path path = (folder / written).lexically_normal();
        if (!is_file(path))
            problem(key, fmt::format("{} is \"{}\", but there is no such file ({})", key, written,
                                     path.string()));
        return path.string();
    }
};

void resolve_task(const Checker& check) {
    const ItemFields& fields = check.fields;
    if (!fields.task) return;
    // A task from the defaults yields to inputs that the item itself brings.
    const auto brought = [&](const char* key) { return check.layer(key) > check.layer("task"); };
    if (*fields.task == "t2av") {
        for (const auto& [key, value] :
             {std::pair{"image", &fields.image}, {"audio", &fields.audio}})
            if (!value->empty() && !brought(key))
                check.problem(
                    "task", fmt::format("task is t2av, but {0} is \"{1}\" (t2av takes text only); "
                                        "leave task out, or set {0} to \"\"",
                                        key, *value));
    } else {
        const bool image = *fields.task == "ti2av";
        if ((image ? fields.image : fields.audio).empty())
            check.problem("task", fmt::format("task is {} (needs {})", *fields.task,
                                              image ? "image" : "audio"));
        if (image && !fields.audio.empty() && !brought("audio"))
            check.problem(
                "task",
                "task is ti2av, but audio is given (a2v takes driving sound, with or without "
                "an image)");
    }
}

void resolve_sizes(const Checker& check, Item& item, std::vector<Remark>& notes) {
    const ItemFields& fields = check.fields;
    const Named* named = find_named(fields.resolution);
    if (named != nullptr) {
        item.size = named->size;
    } else if (std::string wrong = read_size(fields.resolution, item.size); !wrong.empty()) {
        check.problem("resolution", "resolution " + wrong);
    }
    item.sr = fields.sr == "auto"   ? (named == nullptr ? "" : named->sr)
              : fields.sr == "none" ? ""
                                    : fields.sr;
    item.base_size = item.size;
    if (item.sr.empty()) {
        if (fields.base_resolution)
            check.problem(
                "base_resolution",
                fmt::format("base_resolution is {}, but no super-resolution stage follows "
                            "(sr must be 540p_sr or 1080p_sr)",
                            *fields.base_resolution));
        return;
    }
    if (fields.base_resolution) {
        if (const Named* base = find_named(*fields.base_resolution))
            item.base_size = base->size;
        else if (std::string wrong = read_size(*fields.base_resolution, item.base_size);
                 !wrong.empty())
            check.problem("base_resolution", "base_resolution " + wrong);
    } else if (named != nullptr && named->sr[0] != '\0') {
        item.base_size = named->base;
    } else {
        item.base_size = {nearest_multiple(item.size.width / 2),
                          nearest_multiple(item.size.height / 2)};
        notes.push_back(
            {check.at("resolution"),
             fmt::format(
                 "the base stage runs at {}x{}, half of {}; base_resolution sets another size",
                 item.base_size.width, item.base_size.height, fields.resolution)});
    }
    if (item.base_size.width > item.size.width || item.base_size.height > item.size.height)
        check.problem(
            "base_resolution",
            fmt::format("base_resolution is {}x{} (at most the final {}x{})", item.base_size.width,
                        item.base_size.height, item.size.width, item.size.height));
}

}  // namespace

const std::vector<std::string>& item_field_names() {
    static const std::vector<std::string> names = {"name",
                                                   "prompt",
                                                   "negative_prompt",
                                                   "negative_prompt_file",
                                                   "image",
                                                   "audio",
                                                   "task",
                                                   "resolution",
                                                   "sr",
                                                   "base_resolution",
                                                   "seconds",
                                                   "frames",
                                                   "seed",
                                                   "steps",
                                                   "guidance",
                                                   "passes",
                                                   "shift",
                                                   "decoder",
                                                   "audio_posterior"};
    return names;
}

void read_fields(Reader& in, const std::filesystem::path& folder, ItemFields& fields) {
    ++fields.layers;
    for (const std::string& key : item_field_names())
        if (in.has(key)) fields.set_at[key] = {in.where(key), fields.layers};

    fields.name = in.get("name", fields.name);
    fields.prompt = in.get("prompt", fields.prompt);
    fields.negative_prompt = in.get("negative_prompt", fields.negative_prompt);
    const std::string file = in.get("negative_prompt_file", "");
    if (!file.empty()) {
        if (in.has("negative_prompt"))
            in.problem("negative_prompt_file",
                       "negative_prompt_file stands beside negative_prompt (one of the two)");
        try {
            fields.negative_prompt = read_text(folder / file, 1U << 16);
            if (!is_utf8(fields.negative_prompt) ||
                fields.negative_prompt.find('\0') != std::string::npos)
                in.problem("negative_prompt_file",
                           fmt::format("negative_prompt_file: {} is not UTF-8 text", file));
        } catch (const Error& failed) {
            in.problem("negative_prompt_file",
                       fmt::format("negative_prompt_file: {}", failed.what()));
        }
    }
    fields.image = in.get("image", fields.image);
    fields.audio = in.get("audio", fields.audio);
    if (in.has("task")) fields.task = in.choice("task", "t2av", {"t2av", "ti2av", "a2v"});
    fields.resolution = in.get("resolution", fields.resolution);
    if (in.has("sr")) read_sr(in, fields);
    if (in.has("base_resolution")) fields.base_resolution = in.get("base_resolution", "");
    if (in.has("seconds") && in.has("frames"))
        in.problem("frames", "frames stands beside seconds (one of the two)");
    if (in.has("seconds")) {
        fields.seconds = in.get("seconds", fields.seconds, Range{0.001, most_seconds});
        fields.frames.reset();
    }
    if (in.has("frames"))
        fields.frames = in.get("frames", 125, Range{1, static_cast<int>(most_seconds) * 25});
    if (in.has("seed"))
        fields.seed = static_cast<std::uint64_t>(
            in.get("seed", std::int64_t{42}, Range{std::int64_t{0}, largest_seed}));
    if (in.has("steps")) {
        Reader child = in.child("steps");
        if (child.has("base")) fields.steps = child.get("base", 8, Range{1, 1000});
        fields.super.steps = child.get("sr", fields.super.steps, Range{1, 1000});
    }
    if (in.has("guidance")) read_guidance(in, fields);
    if (in.has("passes")) fields.passes = in.get("passes", 1, Range{1, 2});
    if (in.has("shift")) fields.shift = in.get("shift", 5.0, Range{0.1, 100.0});
    fields.decoder = in.choice("decoder", fields.decoder, {"turbo", "wan"});
    fields.posterior = in.choice("audio_posterior", fields.posterior, {"sample", "mean"});
}

Length length_of_frames(int frames) {
    const int latent_frames = (frames - 1 + 3) / 4 + 1;
    return {frames, 4 * (latent_frames - 1) + 1};
}

namespace {

Length length_of_latents(int audio_latents) {
    return {4 * ((audio_latents - 1) / 4) + 1, audio_latents};
}

}  // namespace

Length length_of_seconds(double seconds) {
    // The addend keeps 1.16 s, which is 28.999… in doubles, at 29.
    return length_of_latents(static_cast<int>(std::floor(seconds * 25 + 1e-6)) + 1);
}

Length length_of_sound(std::int64_t samples) {
    if (samples < 2048) return {};
    return length_of_latents(static_cast<int>(samples / 2048));
}

ResolvedItem resolve_fields(const ItemFields& fields, const std::string& variant,
                            const std::filesystem::path& folder, const Where& where,
                            std::vector<Remark>& problems, std::vector<Remark>& notes) {
    const Checker check{fields, where, problems};
    ResolvedItem resolved;
    resolved.where = where;
    Item& item = resolved.item;
    item.name = fields.name;
    item.prompt = fields.prompt;
    item.negative_prompt = fields.negative_prompt;
    if (item.prompt.find_first_not_of(" \t\r\n") == std::string::npos)
        check.problem("prompt", fmt::format("item \"{}\" has no prompt", fields.name));
    item.image = check.file("image", fields.image, folder);
    item.audio = check.file("audio", fields.audio, folder);
    resolve_task(check);
    resolve_sizes(check, item, notes);

    resolved.frames = fields.frames.value_or(0);
    resolved.seconds = fields.frames ? 0 : fields.seconds;
    const Length length =
        fields.frames ? length_of_frames(*fields.frames) : length_of_seconds(fields.seconds);
    item.frames = length.frames;
    item.audio_latents = length.audio_latents;

    item.variant = variant;
    const bool guided = variant == "base";
    BaseSampling& base = item.base;
    base.steps = fields.steps.value_or(guided ? 32 : 8);
    base.passes = fields.passes.value_or(guided ? 2 : 1);
    base.shift = fields.shift.value_or(base.shift);
    base.guidance = fields.guidance.value_or(base.guidance);
    base.guidance_late = fields.guidance_late.value_or(base.guidance_late);
    base.guidance_until = fields.guidance_until.value_or(base.guidance_until);
    base.audio_guidance = fields.audio_guidance.value_or(base.audio_guidance);
    if (base.passes == 1 && fields.set_at.contains("guidance"))
        notes.push_back(
            {check.at("guidance"), "guidance has no effect with one pass (passes: 2 turns it on)"});
    item.super = fields.super;
    item.decoder = fields.decoder == "wan" ? VideoDecoder::wan : VideoDecoder::turbo;
    item.audio_posterior_mean = fields.posterior == "mean";
    return resolved;
}

}  // namespace gallop
