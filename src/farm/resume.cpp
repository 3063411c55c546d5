#include "farm/resume.hpp"

#include <algorithm>

#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/time_text.hpp"
#include "media/store.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using coordinator::Record;
using Json = nlohmann::json;

/// What the journal says of a finished item; most are.
struct Finished {
    double seconds = -1;                  ///< below 0: not finished
    std::uint64_t clip = 0, latents = 0;  ///< bytes; 0: no such file
};

std::uint64_t bytes_of(const Json& event, const char* file) {
    const auto found = event.find(file);
    return found == event.end() || !found->is_object() ? 0
                                                       : found->value("bytes", std::uint64_t{0});
}

/// Throws DiskError when the file cannot be looked at: it may be as it was.
bool is_whole(const fs::path& path, std::uint64_t bytes) {
    std::error_code failed;
    const auto size = fs::file_size(path, failed);
    if (failed && is_disk_errno(failed.value()))
        throw_file_error(path, "cannot look at", failed.value());
    return !failed && size == bytes;
}

}  // namespace

RunStart load_run(const fs::path& directory) {
    RunHistory history(directory);
    return load_run(history);
}

RunStart load_run(RunHistory& history, const RunHistory::Sink& also) {
    const fs::path& directory = history.directory();
    std::vector<coordinator::WorkItem> items;
    for (const PlanRow& row : history.plan().rows)
        items.push_back({row.seconds, row.bucket, row.gpus, coordinator::ItemState::open});
    RunStart start{
        directory, history.config(), history.plan(), coordinator::Ledger(std::move(items)), 1, 0};

    std::vector<Finished> finished(history.size());
    history.update([&](const Json& event, std::optional<std::size_t> item) {
        if (also) also(event, item);
        Record record = record_of(
            event, item ? static_cast<coordinator::ItemIndex>(*item) : coordinator::no_item);
        if (record.what == Record::What::failed) ++start.failed_tries;
        if (record.what == Record::What::reopened && item) finished[*item] = {};
        if (record.what != Record::What::done) return start.ledger.apply(record);
        if (item)
            finished[*item] = {record.seconds, bytes_of(event, "clip"), bytes_of(event, "latents")};
    });
    start.attempt = history.attempt() + 1;
    start.read = history.read_event();
    if (history.damaged_lines() > 0)
        log_warning("damaged lines of the journal are ignored lines={}", history.damaged_lines());

    for (std::size_t i = 0; i < finished.size(); ++i) {
        const Finished& one = finished[i];
        if (one.seconds < 0) continue;
        const std::string id = id_text(start.plan.rows[i].id);
        if (!is_whole(clip_path(directory, id), one.clip) ||
            (one.latents > 0 && !is_whole(latents_path(directory, id), one.latents))) {
            log_warning("files of a finished item are gone or changed id={}", id);
            start.reopened.push_back(static_cast<coordinator::ItemIndex>(i));
            continue;
        }
        Record done;
        done.what = Record::What::done;
        done.item = static_cast<coordinator::ItemIndex>(i);
        done.seconds = one.seconds;
        start.ledger.apply(done);
    }
    return start;
}

}  // namespace gallop
