#include "farm/journals.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/journal.hpp"
#include "farm/run_lock.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t most_at_once = 4U << 20;

bool is_journal(const std::string& name) {
    return name == "journal.jsonl" || (name.starts_with("journal-") && name.ends_with(".jsonl"));
}

}  // namespace

std::size_t JournalFollower::read_new(const Sink& sink) {
    std::error_code failed;
    for (fs::directory_iterator entry(run_, failed), end; !failed && entry != end;
         entry.increment(failed)) {
        const std::string name = entry->path().filename().string();
        if (is_journal(name)) read_.try_emplace(name, 0);
    }
    if (failed) throw Error(fmt::format("{}: cannot list: {}", run_.string(), failed.message()));
    std::size_t events = 0;
    for (auto& [name, from] : read_) events += read_file(run_ / name, from, sink);
    return events;
}

std::size_t JournalFollower::read_file(const fs::path& path, std::uint64_t& from,
                                       const Sink& sink) {
    // Opened anew each time: that is when a network file system looks for what others wrote.
    const InputFile file(path);
    std::size_t events = 0;
    std::string text;
    std::uint64_t most = most_at_once;
    while (from < file.size()) {
        text.resize(static_cast<std::size_t>(std::min(most, file.size() - from)));
        file.read(from, std::as_writable_bytes(std::span(text)));
        JournalContent content = read_journal(text);
        if (content.damaged_lines > 0)
            log_warning("journal's damaged lines ignored path={} lines={}", path.string(),
                        content.damaged_lines);
        damaged_ += content.damaged_lines;
        for (const nlohmann::json& event : content.events) sink(event);
        events += content.events.size();
        from += content.whole_bytes;
        if (content.whole_bytes > 0) continue;
        if (text.size() < most) break;  // the last line has no end yet
        most *= 2;
    }
    return events;
}

fs::path own_journal_path(const fs::path& run) {
    for (int i = 1;; ++i) {
        const fs::path path =
            run / (i == 1 ? fmt::format("journal-{}-{}.jsonl", host_name(), ::getpid())
                          : fmt::format("journal-{}-{}-{}.jsonl", host_name(), ::getpid(), i));
        const Handle<int, detail::close_descriptor, -1> made(
            ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
        if (made) return path;
        if (errno != EEXIST)
            throw Error(fmt::format("{}: cannot create: {}", path.string(), std::strerror(errno)));
    }
}

}  // namespace gallop
