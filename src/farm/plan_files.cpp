#include "farm/plan_files.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <pwd.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "farm/canonical_json.hpp"
#include "farm/config_fields.hpp"
#include "farm/plan.hpp"
#include "farm/run_json.hpp"
#include "farm/run_lock.hpp"
#include "farm/time_text.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::string user_name() {
    const ::passwd* entry = ::getpwuid(::geteuid());
    return entry == nullptr ? std::to_string(::geteuid()) : entry->pw_name;
}

/// What a run makes before its plan is whole, were it killed there.
constexpr std::array<std::string_view, 5> own_files = {
    "HEARTBEAT", "SUPERVISOR", "items.lock.jsonl", "duplicates.jsonl", "logs"};

/// The folder of a plan holds nothing but what a plan, or a lock, has left there.
const fs::path& refuse_foreign(const fs::path& directory, bool extend) {
    std::error_code failed;
    fs::create_directories(directory, failed);
    if (is_disk_errno(failed.value()))
        throw_file_error(directory, "cannot be made", failed.value());
    if (failed) throw_input_error("{}: cannot be made ({})", directory.string(), failed.message());
    if (extend) return directory;
    if (fs::exists(directory / "run.json", failed))
        throw_input_error(
            "{}: holds a plan already (run it, extend it with --extend, or choose another --out)",
            directory.string());
    for (const auto& entry : fs::directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        if (is_lock_file(name)) continue;
        if (std::find(own_files.begin(), own_files.end(), name) != own_files.end()) continue;
        if (name.starts_with('.') && name.ends_with(".tmp")) {
            fs::remove(entry.path(), failed);  // of a plan that was killed
            continue;
        }
        throw_input_error(
            "{}: holds \"{}\" but no run.json (needs an empty or new folder, or that of an earlier "
            "run)",
            directory.string(), name);
    }
    return directory;
}

}  // namespace

PlanFiles::Growing::Growing(const fs::path& path)
    : file(path), descriptor(::open(file.path().c_str(), O_WRONLY | O_CLOEXEC)) {
    if (!descriptor) throw_file_error(file.path(), "cannot open", errno);
}

void PlanFiles::Growing::flush(std::size_t beyond) {
    if (buffer.size() <= beyond) return;
    sha.update(buffer);
    write_all(descriptor.get(), buffer, file.path());
    bytes += buffer.size();
    buffer.clear();
}

void PlanFiles::Growing::copy(const fs::path& from, std::uint64_t size) {
    const InputFile source(from);
    for (std::uint64_t at = 0; at < size;) {
        buffer.resize(std::min<std::uint64_t>(1U << 20, size - at));
        source.read(at, std::as_writable_bytes(std::span(buffer)));
        at += buffer.size();
        flush(0);
    }
}

PlanFiles::PlanFiles(const fs::path& directory, const std::optional<RunConfig>& earlier)
    : directory_(refuse_foreign(directory, earlier.has_value())),
      lock_(directory / "items.lock.jsonl"),
      duplicates_(directory / "duplicates.jsonl") {
    if (!earlier) return;
    lock_.copy(directory / "items.lock.jsonl", earlier->lock_bytes);
}

void PlanFiles::add_item(const std::function<void(std::string&)>& write, const Id128& id,
                         PlanRow& first) {
    const std::size_t start = lock_.buffer.size();
    write(lock_.buffer);
    if (first.bytes == 0) {
        first.id = id;
        first.offset = lock_.bytes + start;
        first.bytes = static_cast<std::uint32_t>(lock_.buffer.size() - start - 1);
    }
    lock_.flush(1U << 20);
}

void PlanFiles::add_duplicate(const Id128& id, std::string_view name) {
    duplicates_.buffer += "{\"id\":\"" + id_text(id) + "\",\"name\":";
    append_json_text(name, duplicates_.buffer);
    duplicates_.buffer += "}\n";
    duplicates_.flush(1U << 20);
}

void PlanFiles::commit(RunConfig& config) {
    lock_.flush(0);
    duplicates_.flush(0);
    config.lock_bytes = lock_.bytes;
    config.lock_sha256 = to_hex(lock_.sha.finish());
    // First, so that nobody takes the run for finished while items of it are open.
    std::error_code failed;
    fs::remove(directory_ / "COMPLETE", failed);
    if (failed) throw_file_error(directory_ / "COMPLETE", "cannot be removed", failed.value());
    duplicates_.file.commit();
    lock_.file.commit();
    Json run = run_json(config);
    run["versions"] = {{"gallop", GALLOP_VERSION}};
    run["host"] = host_name();
    run["user"] = user_name();
    run["created"] = utc_text();
    write_atomically(directory_ / "run.json",
                     run.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void refuse_other_request(const RunConfig& earlier, const RunRequest& now) {
    for (const ConfigField& field : config_fields()) {
        const bool fixed = field.path == "name" || field.path == "model.variant" ||
                           field.path == "model.precision" ||
                           field.path.starts_with("model.fp8.") ||
                           (field.path.starts_with("outputs.") && field.path != "outputs.root");
        if (!fixed || field.get(earlier) == field.get(now)) continue;
        throw_input_error(
            "{} is {}, but the run was planned with {} (an extension only adds items); plan into a "
            "new folder",
            field.path, to_text(field.get(now)), to_text(field.get(earlier)));
    }
}

void refuse_changed_model(const RunConfig& config, const fs::path& digest_cache) {
    if (config.numerics != numerics_version)
        throw_input_error(
            "the run was planned with numerics version {}, this program has {}: it would render "
            "other pixels for the same items; finish it with the program that planned it, or plan "
            "into a new folder",
            config.numerics, numerics_version);
    std::vector<std::string> networks;
    for (const auto& [part, digest] : config.weights)
        if (part != "shared") networks.push_back(part);
    const WeightsDigests now = digest_model(config.model, networks, digest_cache);
    for (const auto& [part, digest] : config.weights) {
        const auto found = now.find(part);
        if (found != now.end() && found->second == digest) continue;
        throw_input_error(
            "{}: its {} has changed since the run was planned: the remaining clips would not "
            "belong "
            "to the finished ones; put the model back, or plan into a new folder",
            config.model.path,
            part == "shared" ? "text encoder or a decoder" : fmt::format("network {}", part));
    }
    if (!config.model.arch.empty() && digest_file(config.model.arch) != config.arch_digest)
        throw_input_error(
            "{}: the architecture file has changed since the run was planned; put it back, or plan "
            "into a new folder",
            config.model.arch);
}

}  // namespace gallop
