#include "farm/run_directory.hpp"

#include <chrono>
#include <ctime>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/canonical_json.hpp"
#include "farm/run_json.hpp"
#include "farm/run_lock.hpp"
#include "farm/time_text.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

void refuse_foreign(const fs::path& directory) {
    for (const auto& entry : fs::directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        if (name != "LOCK" && name != "items.lock.jsonl" && name != "duplicates.jsonl" &&
            !(name.starts_with('.') && name.ends_with(".tmp")))
            throw_input_error(
                "{}: holds \"{}\" but no run.json (needs an empty or new folder, or that of an "
                "earlier run)",
                directory.string(), name);
    }
}

/// Where two plans part, in words.
std::string difference(const Json& before, const Json& now) {
    for (const auto& [key, value] : now.items()) {
        if (!before.contains(key) || before[key] == value) continue;
        if (key == "items") return "its items are others";
        if (value.is_object() && before[key].is_object())
            return fmt::format("its {} differ: {} then, {} now", key, before[key].dump(),
                               value.dump());
        return fmt::format("its {} was {}, now {}", key, before[key].dump(), value.dump());
    }
    return "its run.json is of another version";
}

}  // namespace

void sweep(const fs::path& directory) {
    std::vector<fs::path> left;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with('.') && name.ends_with(".tmp") && entry.is_regular_file())
            left.push_back(entry.path());
    }
    for (const fs::path& path : left) {
        std::error_code failed;
        fs::remove(path, failed);
        log_info("removed a half-written file path={}", path.string());
    }
}

std::string utc_text() {
    const auto now = std::chrono::system_clock::now();
    const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

void prepare_run_directory(const Plan& plan, const fs::path& directory) {
    const fs::path run_file = directory / "run.json";
    const Json config = frozen_config(plan);
    if (fs::exists(run_file)) {
        const Json before = Json::parse(read_text(run_file), nullptr, false);
        const Json was = before.is_object() ? before.value("frozen", Json()) : Json();
        if (was != config)
            throw_input_error("{}: holds another run: {}; choose another --out", directory.string(),
                              difference(was, config));
        sweep(directory);
        return;
    }
    refuse_foreign(directory);
    sweep(directory);
    write_atomically(directory / "items.lock.jsonl", lock_text(plan));
    std::string duplicates;
    for (const DuplicateName& one : plan.duplicates)
        duplicates += canonical_json({{"id", one.id}, {"name", one.name}}) + "\n";
    write_atomically(directory / "duplicates.jsonl", duplicates);
    Json run = run_json(run_config_of(plan));
    run["frozen"] = config;
    run["versions"] = {{"gallop", GALLOP_VERSION}};
    run["host"] = host_name();
    run["created"] = utc_text();
    write_atomically(run_file, run.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace gallop
