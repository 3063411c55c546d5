#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/files.hpp"
#include "farm/journal.hpp"
#include "media/h5.hpp"
#include "media/mp4_facts.hpp"
#include "model/checkpoint.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* inspect_help = R"(gallop inspect FILE|FOLDER [--json]

Says what a file holds: the tensors, parameters and bytes of a checkpoint (safetensors, sharded or single,
also .zst; torch .pth, .pt, .ckpt), of a whole model folder, the latents and attributes of an HDF5 file, the
streams of an MP4 (all of it is decoded), the events of a journal, the state of a run directory.

  --json                  prints one JSON object
)";

Json shape_json(const Shape& shape) { return Json(std::vector<Index>(shape.begin(), shape.end())); }

Json checkpoint_json(const fs::path& path) {
    const Checkpoint checkpoint = Checkpoint::open(path);
    Json tensors = Json::array();
    Index parameters = 0;
    std::uint64_t bytes = 0;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
        tensors.push_back({{"name", tensor.name},
                           {"dtype", std::string(name_of(tensor.type))},
                           {"shape", shape_json(tensor.shape)},
                           {"bytes", tensor.bytes}});
        parameters += tensor.shape.numel();
        bytes += tensor.bytes;
    }
    Json files = Json::array();
    for (const fs::path& file : checkpoint.files()) files.push_back(file.string());
    return {{"kind", "checkpoint"},
            {"path", path.string()},
            {"tensors", tensors},
            {"parameters", parameters},
            {"bytes", bytes},
            {"files", std::move(files)},
            {"absent_shards", checkpoint.absent_shards()},
            {"metadata", checkpoint.metadata()}};
}

constexpr const char* known_kinds =
    "safetensors, also .zst; torch .pth, .pt, .ckpt; a model folder; HDF5 latents; MP4; a journal; "
    "a run directory";

/// Whether a file's first bytes are those of a zip archive, of zstd, or of a safetensors header.
bool begins_like_checkpoint(std::string_view start) {
    return start.starts_with("PK\x03\x04") || start.starts_with("\x28\xb5\x2f\xfd") ||
           start[8] == '{';
}

/// Bytes as text, "?" for what is none.
std::string printable(std::string_view bytes) {
    std::string text(bytes);
    for (char& c : text)
        if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
    return text;
}

bool looks_like_checkpoint(const fs::path& path) {
    if (fs::is_directory(path)) {
        for (const char* name :
             {"model.safetensors.index.json", "model.safetensors", "model.safetensors.zst"})
            if (fs::exists(path / name)) return true;
        return false;
    }
    const std::string name = path.filename().string();
    for (const char* suffix : {".safetensors", ".safetensors.zst", ".pth", ".pt", ".ckpt"})
        if (name.ends_with(suffix)) return true;
    return false;
}

Json latents_json(const fs::path& path) {
    const LatentsFile file = read_latents(path);
    Json data = Json::object();
    for (const auto& [name, tensor] : {std::pair{"video_base", &file.video_base},
                                       {"video_final", &file.video_final},
                                       {"audio", &file.audio}})
        if (tensor->defined()) data[name] = shape_json(tensor->shape());
    Json attributes = Json::object();
    for (const auto& [name, value] : file.attributes)
        std::visit([&, key = &name](const auto& held) { attributes[*key] = held; }, value);
    return {{"kind", "latents"},
            {"path", path.string()},
            {"dtype", std::string(name_of(file.stored))},
            {"data", data},
            {"attributes", attributes}};
}

Json clip_json(const fs::path& path) {
    const Mp4Facts facts = read_mp4(path);
    return {{"kind", "clip"},
            {"path", path.string()},
            {"bytes", facts.bytes},
            {"video",
             {{"codec", facts.video_codec},
              {"pix_fmt", facts.pix_fmt},
              {"width", facts.width},
              {"height", facts.height},
              {"frames", facts.frames},
              {"frames_per_second", facts.frames_per_second},
              {"seconds", facts.video_seconds},
              {"matrix", facts.color_matrix},
              {"primaries", facts.color_primaries},
              {"transfer", facts.color_transfer},
              {"range", facts.color_range}}},
            {"audio",
             {{"codec", facts.audio_codec},
              {"sample_rate", facts.sample_rate},
              {"channels", facts.channels},
              {"samples", facts.samples},
              {"seconds", facts.audio_seconds}}},
            {"tags", facts.tags}};
}

Json journal_json(const fs::path& path) {
    const JournalContent content = read_journal(read_text(path, std::uint64_t{1} << 32));
    if (content.events.empty() && content.damaged_lines > 0)
        throw_input_error("{}: none of its {} lines is one of a run's journal (known: {})",
                          path.string(), content.damaged_lines, known_kinds);
    Json counts = Json::object();
    for (const Json& event : content.events) {
        const std::string kind = event.value("event", "?");
        counts[kind] = counts.value(kind, 0) + 1;
    }
    return {{"kind", "journal"},
            {"path", path.string()},
            {"events", counts},
            {"damaged_lines", content.damaged_lines},
            {"truncated", content.truncated}};
}

Json run_json(const fs::path& path) {
    Json result = {{"kind", "run"}, {"path", path.string()}};
    for (const auto& [key, name] : {std::pair{"run", "run.json"}, {"status", "status.json"}})
        if (fs::exists(path / name)) {
            Json content = Json::parse(read_text(path / name), nullptr, false);
            result[key] = content.is_discarded() ? Json("not JSON: damaged") : std::move(content);
        }
    if (fs::exists(path / "journal.jsonl"))
        result["journal"] = journal_json(path / "journal.jsonl");
    return result;
}

Json model_json(const fs::path& path) {
    Json parts = Json::array();
    Index parameters = 0;
    std::vector<fs::path> found;
    std::string other;  // a file that is none
    for (auto entry = fs::recursive_directory_iterator(path);
         entry != fs::recursive_directory_iterator(); ++entry) {
        if (!looks_like_checkpoint(entry->path())) {
            if (entry->is_regular_file()) other = entry->path().string();
            continue;
        }
        found.push_back(entry->path());
        if (entry->is_directory()) entry.disable_recursion_pending();
    }
    std::sort(found.begin(), found.end());
    if (found.empty())
        throw_input_error("{}: a folder {} (known: {})", path.string(),
                          other.empty()
                              ? "without a file in it"
                              : fmt::format("with {}, but without a checkpoint or a run", other),
                          known_kinds);
    for (const fs::path& part : found) {
        Json one = checkpoint_json(part);
        parameters += one["parameters"].get<Index>();
        one["tensors"] = one["tensors"].size();
        one.erase("files");
        one.erase("absent_shards");
        one.erase("metadata");
        parts.push_back(std::move(one));
    }
    return {
        {"kind", "model"}, {"path", path.string()}, {"parts", parts}, {"parameters", parameters}};
}

Json inspect_path(const fs::path& path) {
    if (fs::is_directory(path)) {
        if (fs::exists(path / "run.json")) return run_json(path);
        return looks_like_checkpoint(path) ? checkpoint_json(path) : model_json(path);
    }
    const InputFile file(path);
    std::array<char, 12> head{};
    file.read(0, std::as_writable_bytes(std::span(head))
                     .first(std::min<std::size_t>(file.size(), head.size())));
    const std::string_view start(head.data(), head.size());
    if (start.starts_with("\x89HDF\r\n\x1a\n")) return latents_json(path);
    if (start.substr(4, 4) == "ftyp") return clip_json(path);
    if (path.extension() == ".jsonl") return journal_json(path);
    if (looks_like_checkpoint(path) || begins_like_checkpoint(start)) return checkpoint_json(path);
    throw_input_error("{}: {} (known: {})", path.string(),
                      file.size() == 0
                          ? "an empty file"
                          : fmt::format("none of the known files; it begins with \"{}\"",
                                        printable(start.substr(0, file.size()))),
                      known_kinds);
}

/// 15299419152 → "15,299,419,152".
std::string grouped(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
    return text;
}

void print_text(const Json& facts) {
    const std::string kind = facts["kind"];
    if (kind == "checkpoint") {
        for (const Json& tensor : facts["tensors"])
            fmt::print("{} {} {}\n", tensor["name"].get<std::string>(),
                       tensor["dtype"].get<std::string>(), tensor["shape"].dump());
        fmt::print("{} tensors, {} parameters, {} bytes in {} file{}\n",
                   grouped(facts["tensors"].size()),
                   grouped(facts["parameters"].get<std::uint64_t>()),
                   grouped(facts["bytes"].get<std::uint64_t>()), facts["files"].size(),
                   facts["files"].size() == 1 ? "" : "s");
        for (const Json& shard : facts["absent_shards"])
            fmt::print("{} is not there\n", shard.get<std::string>());
    } else if (kind == "model") {
        for (const Json& part : facts["parts"])
            fmt::print("{}: {} tensors, {} parameters, {} bytes\n", part["path"].get<std::string>(),
                       grouped(part["tensors"].get<std::uint64_t>()),
                       grouped(part["parameters"].get<std::uint64_t>()),
                       grouped(part["bytes"].get<std::uint64_t>()));
        fmt::print("{} parameters in all\n", grouped(facts["parameters"].get<std::uint64_t>()));
    } else {
        // One fact a line, nested names joined by dots.
        const Json flat = facts.flatten();
        for (const auto& [name, value] : flat.items()) {
            std::string key = name.substr(1);
            std::replace(key.begin(), key.end(), '/', '.');
            fmt::print("{} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
        }
    }
}

int inspect(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("json", "");
    const Values values = parse("inspect", arguments, options, {"FILE"});
    const fs::path path = text_of(values, "FILE");
    if (!fs::exists(path)) throw_input_error("{}: no such file or folder", path.string());
    const Json facts = inspect_path(path);
    if (values.contains("json"))
        fmt::print("{}\n", facts.dump(2, ' ', false, Json::error_handler_t::replace));
    else
        print_text(facts);
    return done;
}

}  // namespace

const Command inspect_command = {"inspect", inspect_help, inspect};

}  // namespace gallop::cli
