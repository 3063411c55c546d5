#include "farm/export.hpp"

#include <cstdio>
#include <optional>

#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "farm/index.hpp"
#include "farm/tar.hpp"
#include "media/digest.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A clip as it goes into a shard.
struct Sample {
    std::string key;
    std::string json;
    fs::path clip, latents;  ///< latents: empty for none
    std::uint64_t clip_bytes = 0, latents_bytes = 0;

    std::uint64_t bytes() const {
        return tar_member_bytes(key + ".mp4", clip_bytes) +
               tar_member_bytes(key + ".json", json.size()) +
               (latents.empty() ? 0 : tar_member_bytes(key + ".h5", latents_bytes));
    }
};

/// Writes samples into shards as they come.
class ShardWriter {
public:
    ShardWriter(const RunHistory& history, const WebDatasetOptions& options)
        : options_(options), name_(history.config().name) {}

    void add(Sample sample) {
        const std::uint64_t bytes = sample.bytes();
        if (!samples_.empty() && bytes_ + bytes + frame_bytes > options_.shard_bytes) write_shard();
        bytes_ += bytes;
        samples_.push_back(std::move(sample));
        ++count_.clips;
    }

    ExportCount finish() {
        if (!samples_.empty()) write_shard();
        const Json index = {{"wids_version", 1}, {"name", name_}, {"shardlist", shards_}};
        write_atomically(options_.out / "index.json", index.dump(1) + "\n");
        remove_surplus();
        return count_;
    }

private:
    /// Of an archive's beginning and end.
    static constexpr std::uint64_t frame_bytes = 2048;

    std::string shard_name(std::size_t number) const {
        return fmt::format("{}-{:06}.tar", name_, number);
    }

    void write_shard() {
        Sha256 sha;
        for (const Sample& sample : samples_)
            sha.update(
                fmt::format("{}\n{}\n{}\n", sample.json, sample.clip_bytes, sample.latents_bytes));
        const std::string content = "gallop " + to_hex(sha.finish());
        const std::string name = shard_name(count_.shards);
        const fs::path path = options_.out / name;
        std::error_code missing;
        if (tar_comment(path) == content && fs::file_size(path, missing) == bytes_ + frame_bytes) {
            ++count_.kept;
        } else {
            TarWriter tar(path, content);
            for (const Sample& sample : samples_) {
                tar.add_file(sample.key + ".mp4", sample.clip);
                tar.add(sample.key + ".json", sample.json);
                if (!sample.latents.empty()) tar.add_file(sample.key + ".h5", sample.latents);
            }
            const std::uint64_t written = tar.finish();
            CHECK(written == bytes_ + frame_bytes, "{} has {} bytes, not {}: a file has changed",
                  path.string(), written, bytes_ + frame_bytes);
            log_info("wrote {} clips={} bytes={}", path.string(), samples_.size(), written);
        }
        shards_.push_back({{"url", name},
                           {"nsamples", samples_.size()},
                           {"filesize", bytes_ + frame_bytes},
                           {"sha256", digest_file(path)}});
        ++count_.shards;
        samples_.clear();
        bytes_ = 0;
    }

    /// Shards of an earlier export that this one has not got any more.
    void remove_surplus() const {
        for (std::size_t number = count_.shards;; ++number) {
            const fs::path path = options_.out / shard_name(number);
            const auto comment = tar_comment(path);
            if (!comment || !comment->starts_with("gallop ")) return;
            fs::remove(path);
            log_info("removed a shard of an earlier export path={}", path.string());
        }
    }

    const WebDatasetOptions& options_;
    std::string name_;
    std::vector<Sample> samples_;
    std::uint64_t bytes_ = 0;
    Json shards_ = Json::array();
    ExportCount count_;
};

/// The path of a file that the journal tells of, once it is seen to be there in its size.
fs::path checked_file(const fs::path& run, const Json& row, std::uint64_t& bytes) {
    const fs::path path = run / row.at("path").get<std::string>();
    bytes = row.at("bytes").get<std::uint64_t>();
    std::error_code missing;
    const std::uint64_t found = fs::file_size(path, missing);
    if (missing || found != bytes)
        throw_input_error(
            "{}: {} (the journal says {} bytes); `gallop verify` finds all such files",
            path.string(), missing ? "is not there" : fmt::format("has {} bytes", found), bytes);
    return path;
}

}  // namespace

ExportCount export_webdataset(const RunHistory& history, const WebDatasetOptions& options) {
    fs::create_directories(options.out);
    ShardWriter shards(history, options);
    for_each_clip(history, [&](const ClipRecord& clip) {
        Sample sample;
        sample.key = clip.planned.item.id;
        Json row = describe_clip(clip);
        row["resolved"] = clip.planned.resolved;
        sample.json = canonical_json(row);
        sample.clip = checked_file(history.directory(), clip.done.at("clip"), sample.clip_bytes);
        if (options.latents && clip.done.contains("latents"))
            sample.latents =
                checked_file(history.directory(), clip.done["latents"], sample.latents_bytes);
        shards.add(std::move(sample));
    });
    return shards.finish();
}

std::string csv_field(std::string_view text) {
    if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
    std::string quoted = "\"";
    for (const char c : text) {
        if (c == '"') quoted += '"';
        quoted += c;
    }
    return quoted + '"';
}

std::size_t export_csv(const RunHistory& history, const std::string& out) {
    std::optional<TextFile> file;
    if (out != "-") file.emplace(out);
    const auto write_row = [&](const std::vector<std::string>& fields) {
        std::string line;
        for (std::size_t i = 0; i < fields.size(); ++i)
            line += (i == 0 ? "" : ",") + csv_field(fields[i]);
        line += "\r\n";
        if (file)
            file->write(line);
        else
            fmt::print("{}", line);
    };
    std::vector<std::string> axes;
    if (history.config().sweep.is_object())
        for (const auto& [axis, values] : history.config().sweep.items()) axes.push_back(axis);
    std::vector<std::string> header = {
        "id",     "name",           "prompt",       "seed",    "width",
        "height", "frames",         "duration",     "variant", "sr",
        "clip",   "clip_bytes",     "clip_sha256",  "latents", "host",
        "device", "render_seconds", "failed_tries", "time"};
    for (const std::string& axis : axes) header.push_back("cell." + axis);
    write_row(header);
    std::size_t clips = 0;
    for_each_clip(history, [&](const ClipRecord& clip) {
        const Json row = describe_clip(clip);
        const auto text = [](const Json& from, const char* key) {
            const auto found = from.find(key);
            if (found == from.end() || found->is_null()) return std::string();
            return found->is_string() ? found->get<std::string>() : found->dump();
        };
        const Json seconds = clip.done.value("seconds", Json::object());
        const Json latents = clip.done.value("latents", Json::object());
        std::vector<std::string> fields = {text(row, "id"),
                                           clip.names.front(),
                                           text(row, "prompt"),
                                           text(row, "seed"),
                                           text(row, "width"),
                                           text(row, "height"),
                                           text(row, "frames"),
                                           text(row, "duration"),
                                           text(row, "variant"),
                                           text(row, "sr"),
                                           text(row["clip"], "path"),
                                           text(row["clip"], "bytes"),
                                           text(row["clip"], "sha256"),
                                           text(latents, "path"),
                                           text(clip.done, "host"),
                                           text(clip.done, "device"),
                                           text(seconds, "total"),
                                           std::to_string(history[clip.item].tries),
                                           text(clip.done, "time")};
        const Json cell = row.value("cell", Json::object());
        for (const std::string& axis : axes) fields.push_back(text(cell, axis.c_str()));
        write_row(fields);
        ++clips;
    });
    if (file) file->commit();
    return clips;
}

}  // namespace gallop
