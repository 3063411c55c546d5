#include "farm/index.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/clip.hpp"
#include "core/file_errors.hpp"
#include "farm/canonical_json.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t buffer_bytes = 1U << 20;

/// Further names of items, by id. Holds places, not names: 32 bytes each.
class Duplicates {
public:
    explicit Duplicates(const fs::path& path) : path_(path) {
        if (!fs::exists(path)) return;
        const InputFile file(path);
        std::string block;
        std::uint64_t at = 0;
        while (at + block.size() < file.size()) {
            const std::size_t kept = block.size();
            block.resize(kept + static_cast<std::size_t>(std::min<std::uint64_t>(
                                    buffer_bytes, file.size() - at - kept)));
            file.read(at + kept, std::as_writable_bytes(std::span(block)).subspan(kept));
            std::size_t start = 0;
            for (std::size_t end; (end = block.find('\n', start)) != std::string::npos;
                 start = end + 1) {
                const Json row = Json::parse(block.substr(start, end - start), nullptr, false);
                if (row.is_object() && row.contains("id") && row["id"].is_string())
                    places_.push_back({id_bytes(row["id"].get<std::string>()), at + start,
                                       static_cast<std::uint32_t>(end - start)});
            }
            at += start;
            block.erase(0, start);
        }
        std::stable_sort(places_.begin(), places_.end(),
                         [](const Place& a, const Place& b) { return a.id < b.id; });
    }
    /// Adds an item's further names, in the order of the manifest.
    void append(const std::array<std::uint8_t, 16>& id, std::vector<std::string>& names) const {
        const auto first =
            std::lower_bound(places_.begin(), places_.end(), id,
                             [](const Place& place, const auto& key) { return place.id < key; });
        for (auto at = first; at != places_.end() && at->id == id; ++at) {
            std::string line(at->bytes, '\0');
            InputFile(path_).read(at->offset, std::as_writable_bytes(std::span(line)));
            const Json row = Json::parse(line, nullptr, false);
            if (row.is_object()) names.push_back(row.value("name", ""));
        }
    }

private:
    struct Place {
        std::array<std::uint8_t, 16> id;
        std::uint64_t offset;
        std::uint32_t bytes;
    };
    fs::path path_;
    std::vector<Place> places_;
};

}  // namespace

void for_each_clip(const RunHistory& history, const std::function<void(const ClipRecord&)>& sink) {
    const Duplicates duplicates(history.directory() / "duplicates.jsonl");
    for (std::size_t item = 0; item < history.size(); ++item) {
        if (history[item].state != ItemHistory::State::done) continue;
        ClipRecord clip{item, history.planned(item), {}, history.event(history[item].decided)};
        clip.names.push_back(clip.planned.item.name);
        duplicates.append(history.plan().rows[item].id, clip.names);
        sink(clip);
    }
}

Json describe_clip(const ClipRecord& clip) {
    const Item& item = clip.planned.item;
    Json row = {{"id", item.id},
                {"names", clip.names},
                {"prompt", item.prompt},
                {"seed", item.seed},
                {"width", item.size.width},
                {"height", item.size.height},
                {"frames", item.frames},
                {"frames_per_second", frames_per_second},
                {"duration", static_cast<double>(item.frames) / frames_per_second},
                {"variant", item.variant},
                {"clip", clip.done.value("clip", Json::object())}};
    if (!item.sr.empty()) row["sr"] = item.sr;
    if (!clip.planned.cell.is_null()) row["cell"] = clip.planned.cell;
    if (clip.done.contains("latents")) row["latents"] = clip.done["latents"];
    return row;
}

std::size_t write_index(const RunHistory& history) {
    TextFile file(history.directory() / "index.jsonl");
    std::size_t rows = 0;
    for_each_clip(history, [&](const ClipRecord& clip) {
        Json row = describe_clip(clip);
        row["seconds"] = clip.done.value("seconds", Json::object());
        for (const char* key : {"host", "device", "time"})
            if (clip.done.contains(key)) row[key] = clip.done[key];
        row["failed_tries"] = history[clip.item].tries;
        file.write(canonical_json(row) + "\n");
        ++rows;
    });
    file.commit();
    return rows;
}

TextFile::TextFile(const fs::path& path)
    : file_(path), descriptor_(::open(file_.path().c_str(), O_WRONLY | O_CLOEXEC)) {
    if (!descriptor_) throw_file_error(file_.path(), "cannot open", errno);
}

void TextFile::write(std::string_view text) {
    buffer_ += text;
    if (buffer_.size() >= buffer_bytes) flush();
}

void TextFile::flush() {
    write_all(descriptor_.get(), buffer_, file_.path());
    buffer_.clear();
}

void TextFile::commit() {
    flush();
    descriptor_.reset();
    file_.commit();
}

}  // namespace gallop
