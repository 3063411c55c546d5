#include "farm/plan_index.hpp"

#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "core/check.hpp"
#include "core/clip.hpp"
#include "core/files.hpp"
#include "farm/canonical_json.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t longest_line = 1U << 20;

[[noreturn]] void damaged(const fs::path& path, const std::string& why) {
    throw_input_error(
        "{}: {} (must be as it was planned); restore the file, or plan into a new folder",
        path.string(), why);
}

/// Walks over the members of a JSON object without building anything. A plan is only ever read
/// after its digest was found right, so malformed text means that this is no plan at all.
class Members {
public:
    explicit Members(std::string_view text) : text_(text) {
        whole_ = text.size() >= 2 && text.front() == '{' && text.back() == '}';
    }

    /// The next member; false at the end, or when the text is malformed (see whole()).
    bool next(std::string_view& key, std::string_view& value) {
        if (!whole_ || text_[at_] == '}') return false;
        ++at_;                                                         // '{' or ','
        if (at_ + 1 == text_.size()) return whole_ = at_ == 1, false;  // {}
        const std::size_t key_start = at_;
        if (!skip_string() || text_[at_] != ':') return whole_ = false;
        key = text_.substr(key_start + 1, at_ - key_start - 2);
        const std::size_t value_start = ++at_;
        if (!skip_value() || (text_[at_] != ',' && at_ + 1 != text_.size())) return whole_ = false;
        value = text_.substr(value_start, at_ - value_start);
        return true;
    }
    bool whole() const { return whole_; }

private:
    bool skip_string() {
        if (text_[at_] != '"') return false;
        for (++at_; at_ < text_.size(); ++at_) {
            if (text_[at_] == '\\')
                ++at_;
            else if (text_[at_] == '"')
                return ++at_ < text_.size();
        }
        return false;
    }
    bool skip_value() {
        int depth = 0;
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '"') {
                if (!skip_string()) return false;
                if (depth == 0) return true;
                continue;
            }
            if (depth == 0 && (c == ',' || c == '}')) return true;
            if (c == '{' || c == '[') ++depth;
            if (c == '}' || c == ']') --depth;
            ++at_;
            if (depth == 0 && (c == '}' || c == ']')) return at_ < text_.size();
        }
        return false;
    }

    std::string_view text_;
    std::size_t at_ = 0;
    bool whole_;
};

template <class T>
std::optional<T> number(std::string_view text) {
    T value{};
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc() || end != text.data() + text.size()) return {};
    return value;
}

std::string_view unquoted(std::string_view text) {
    return text.size() >= 2 && text.front() == '"' ? text.substr(1, text.size() - 2)
                                                   : std::string_view();
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

bool read_id(std::string_view text, std::array<std::uint8_t, 16>& id) {
    if (text.size() != 32) return false;
    for (std::size_t i = 0; i < 16; ++i) {
        const int high = hex_digit(text[2 * i]);
        const int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        id[i] = static_cast<std::uint8_t>(high << 4 | low);
    }
    return true;
}

/// What scheduling needs of a line. False when it is not a line of a plan.
bool read_row(std::string_view line, const std::map<std::string, std::uint16_t, std::less<>>& known,
              PlanRow& row) {
    Members members(line);
    std::string_view key;
    std::string_view value;
    int found = 0;
    while (members.next(key, value)) {
        if (key == "bucket") {
            const auto bucket = known.find(unquoted(value));
            if (bucket == known.end()) return false;
            row.bucket = bucket->second;
        } else if (key == "gpus") {
            const auto gpus = number<int>(value);
            if (!gpus || *gpus < 1 || *gpus > 64) return false;
            row.gpus = static_cast<std::uint8_t>(*gpus);
        } else if (key == "id") {
            if (!read_id(unquoted(value), row.id)) return false;
        } else if (key == "predicted") {
            const auto seconds = number<double>(value);
            if (!seconds || !(*seconds >= 0) || !std::isfinite(*seconds)) return false;
            row.seconds = static_cast<float>(*seconds);
        } else {
            continue;
        }
        ++found;
    }
    return members.whole() && found == 4;
}

Size size_from(const Json& value) { return {value.at(0).get<int>(), value.at(1).get<int>()}; }

Item item_of(const Json& line, const RunConfig& config) {
    const Json& from = line.at("item");
    Item item;
    item.name = line.at("name");
    item.id = line.at("id");
    item.prompt = from.at("prompt");
    const std::string negative = from.at("negative_prompt");
    if (!negative.empty()) item.negative_prompt = config.texts.at(negative);
    if (line.contains("paths")) {
        item.image = line["paths"].value("image", "");
        item.audio = line["paths"].value("audio", "");
    }
    item.seed = from.at("seed");
    item.variant = from.at("variant");
    item.base_size = size_from(from.at("base_size"));
    item.size = size_from(from.at("size"));
    item.frames = from.at("frames");
    item.audio_latents = from.at("audio_latents");
    if (!item.audio.empty())
        item.audio_samples =
            from.value("audio_samples", Index{item.audio_latents} * samples_per_latent);
    const Json& base = from.at("base");
    item.base = {base.at("steps"),         base.at("passes"),        base.at("shift"),
                 base.at("guidance"),      base.at("guidance_late"), base.at("guidance_until"),
                 base.at("audio_guidance")};
    if (const Json& sr = from.at("sr"); !sr.is_null()) {
        item.sr = sr.at("model");
        item.super = {sr.at("steps"),       sr.at("passes"),       sr.at("shift"),
                      sr.at("guidance"),    sr.at("trick_frames"), sr.at("trick_guidance"),
                      sr.at("noise_value"), sr.at("audio_noise")};
    }
    item.decoder = from.at("decoder") == "wan" ? VideoDecoder::wan : VideoDecoder::turbo;
    item.audio_posterior_mean = from.at("audio_posterior") == "mean";
    item.tiled_decode = line.value("tiled", false);
    return item;
}

std::string place_of(const fs::path& run, std::uint64_t offset) {
    return fmt::format("{}: byte {}", (run / "items.lock.jsonl").string(), offset);
}

std::string read_line(const fs::path& run, const RunConfig& config, std::uint64_t offset,
                      std::uint32_t bytes) {
    if (offset > config.lock_bytes || bytes > config.lock_bytes - offset || bytes > longest_line)
        throw_input_error("{}: no item stands there", place_of(run, offset));
    std::string line(bytes, '\0');
    InputFile(run / "items.lock.jsonl").read(offset, std::as_writable_bytes(std::span(line)));
    return line;
}

}  // namespace

const char* name_of(Precision precision) {
    switch (precision) {
        case Precision::fp32: return "fp32";
        case Precision::bf16: return "bf16";
        case Precision::fp8: return "fp8";
    }
    return "?";
}

std::string precision_text(const ModelRequest& model) {
    const std::string name = name_of(model.precision);
    return model.precision == Precision::fp8 ? name + " " + to_text(model.fp8) : name;
}

std::string id_of(const Json& resolved) {
    return digest_text(canonical_json(resolved)).substr(0, 32);
}

std::array<std::uint8_t, 16> id_bytes(std::string_view id) {
    std::array<std::uint8_t, 16> bytes{};
    if (!read_id(id, bytes)) throw_input_error("\"{}\" is no id (must be 32 hex digits)", id);
    return bytes;
}

std::string id_text(const std::array<std::uint8_t, 16>& id) { return to_hex(id); }

Json item_constants(const RunConfig& config, const std::string& variant, const std::string& sr) {
    Json weights = {{variant, config.weights.at(variant)}, {"shared", config.weights.at("shared")}};
    if (!sr.empty()) weights[sr] = config.weights.at(sr);
    return {{"arch", config.arch_digest},
            {"numerics", config.numerics},
            {"precision", precision_text(config.model)},
            {"weights", weights}};
}

PlanIndex read_plan_index(const fs::path& run) {
    return read_plan_index(run, read_run_config(run));
}

PlanIndex read_plan_index(const fs::path& run, const RunConfig& config) {
    const fs::path path = run / "items.lock.jsonl";
    PlanIndex index;
    std::map<std::string, std::uint16_t, std::less<>> known;
    for (const Bucket& bucket : config.buckets) {
        known.emplace(bucket.name, static_cast<std::uint16_t>(index.buckets.size()));
        index.buckets.push_back(bucket.name);
    }
    const InputFile file(path);
    if (file.size() < config.lock_bytes)
        damaged(path, fmt::format("holds {} bytes of {}", file.size(), config.lock_bytes));
    index.rows.reserve(config.items);
    Sha256 sha;
    std::vector<char> block(longest_line * 4);
    std::size_t kept = 0;  // the start of a line that goes on in the next block
    std::uint64_t at = 0;  // of the block in the file
    while (at + kept < config.lock_bytes) {
        const auto fresh = static_cast<std::size_t>(
            std::min<std::uint64_t>(block.size() - kept, config.lock_bytes - at - kept));
        const auto piece = std::as_writable_bytes(std::span(block).subspan(kept, fresh));
        file.read(at + kept, piece);
        sha.update(piece);
        const std::string_view text(block.data(), kept + fresh);
        std::size_t start = 0;
        for (std::size_t end; (end = text.find('\n', start)) != std::string_view::npos;
             start = end + 1) {
            PlanRow row{};
            row.offset = at + start;
            row.bytes = static_cast<std::uint32_t>(end - start);
            if (!read_row(text.substr(start, end - start), known, row))
                damaged(path, fmt::format("line {} is not an item", index.rows.size() + 1));
            index.rows.push_back(row);
        }
        kept = text.size() - start;
        if (kept > longest_line)
            damaged(path, fmt::format("line {} is too long", index.rows.size() + 1));
        std::copy(text.begin() + static_cast<std::ptrdiff_t>(start), text.end(), block.begin());
        at += start;
    }
    if (kept != 0 || index.rows.size() != config.items ||
        to_hex(sha.finish()) != config.lock_sha256)
        damaged(path, "its content has changed");
    return index;
}

PlannedItem parse_lock_line(std::string_view line, const RunConfig& config,
                            const std::string& place) {
    try {
        const Json json = Json::parse(line);
        PlannedItem planned;
        planned.item = item_of(json, config);
        planned.bucket = json.at("bucket");
        planned.predicted = json.at("predicted");
        planned.gpus = json.at("gpus");
        planned.cell = json.value("cell", Json());
        planned.resolved = json.at("item");
        planned.resolved.update(item_constants(config, planned.item.variant, planned.item.sr));
        if (id_of(planned.resolved) != planned.item.id)
            throw_input_error("{}: item {} does not agree with its id (the plan was changed)",
                              place, planned.item.id);
        return planned;
    } catch (const Json::exception& wrong) {
        throw_input_error("{}: not an item of a plan ({})", place, wrong.what());
    } catch (const std::out_of_range&) {
        throw_input_error("{}: an item with a text or a network that run.json does not know",
                          place);
    }
}

PlannedItem read_planned_item(const fs::path& run, const RunConfig& config, std::uint64_t offset,
                              std::uint32_t bytes) {
    return parse_lock_line(read_line(run, config, offset, bytes), config, place_of(run, offset));
}

std::string read_planned_name(const fs::path& run, const RunConfig& config, std::uint64_t offset,
                              std::uint32_t bytes) {
    const Json line = Json::parse(read_line(run, config, offset, bytes), nullptr, false);
    const auto name = line.find("name");
    if (name == line.end() || !name->is_string())
        throw_input_error("{}: not an item of a plan", place_of(run, offset));
    return *name;
}

}  // namespace gallop
