#include "farm/report.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>

#include <sys/resource.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/clip.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/history.hpp"
#include "farm/report_page.hpp"
#include "media/store.hpp"
#include "media/thumbnail.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
using State = ItemHistory::State;

constexpr std::size_t clips_a_script = 1000;
constexpr std::size_t most_clips = 100'000;
constexpr std::size_t most_failures = 200;       ///< of either kind
constexpr std::size_t most_prompt = 500;         ///< bytes of a prompt on the contact sheet
constexpr std::uint64_t log_bytes = 256U << 10;  ///< of a log's end are searched
constexpr double live_thumbnail_seconds = 5;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string text_at(const Json& event, const char* key) {
    const auto found = event.find(key);
    return found != event.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// Adds up what the journal says while it is read.
void add(const Json& event, ReportFigures& figures) {
    const std::string kind = text_at(event, "event");
    if (kind != "done" && kind != "failed") return;
    HostFigures& host = figures.hosts[text_at(event, "host")];
    if (const std::string device = text_at(event, "device"); !device.empty()) host.device = device;
    if (kind == "failed") {
        ++host.failed;
        return;
    }
    ++host.clips;
    if (const auto time = seconds_of_utc(text_at(event, "time"))) {
        figures.finished.push_back(*time);
        host.first = host.first == 0 ? *time : std::min(host.first, *time);
        host.last = std::max(host.last, *time);
    }
    const auto seconds = event.find("seconds");
    if (seconds == event.end() || !seconds->is_object()) return;
    for (const auto& [stage, spent] : seconds->items()) {
        if (!spent.is_number()) continue;
        if (stage == "total") host.seconds += spent.get<double>();
        StageFigures& sum = figures.stages[stage];
        ++sum.clips;
        sum.seconds += spent.get<double>();
    }
}

/// What a log says of an item: the lines up to the last one that names it, or its last lines.
std::string log_tail(const fs::path& run, const FailureStatus& failure) {
    const fs::path log(failure.log);
    if (log.empty() || log.is_absolute() ||
        std::any_of(log.begin(), log.end(), [](const fs::path& part) { return part == ".."; }))
        return "";
    try {
        const InputFile file(run / log);
        std::string text(static_cast<std::size_t>(std::min(log_bytes, file.size())), '\0');
        file.read(file.size() - text.size(), std::as_writable_bytes(std::span(text)));
        const std::size_t named =
            std::max(text.rfind(failure.id) + 1, text.rfind(failure.name) + 1);
        std::size_t end = named == 0 ? text.size() : std::min(text.find('\n', named), text.size());
        for (int after = 0; named != 0 && after < 3 && end < text.size(); ++after)
            end = std::min(text.find('\n', end + 1), text.size());
        std::size_t start = end;
        for (int lines = 0; lines < 16 && start != std::string::npos && start > 0; ++lines)
            start = text.rfind('\n', start - 1);
        start = start == std::string::npos ? 0 : start;
        return text.substr(start, end - start);
    } catch (const Error&) {  // no such log any more
        return "";
    }
}

void add_failures(const RunHistory& history, ReportFigures& figures) {
    const Survey& survey = figures.survey;
    for (const bool given_up : {true, false})
        for (const FailureStatus& failure : given_up ? survey.quarantined : survey.failing)
            figures.failures.push_back({failure, given_up, log_tail(history.directory(), failure)});
    const std::size_t all = survey.status.quarantined + survey.status.retried;
    figures.failures_left_out = all - std::min(all, figures.failures.size());
}

/// The contact sheet's data, in scripts beside the page: a page opened from disk may load scripts,
/// but nothing else.
class Sheet {
public:
    Sheet(const RunHistory& history, ReportFigures& figures, ReportCount& count,
          const ReportOptions& options)
        : history_(history), figures_(figures), count_(count), options_(options) {}

    void write() {
        for (std::size_t item = 0; item < history_.size(); ++item) {
            if (history_[item].state != State::done) continue;
            ++count_.clips;
            if (figures_.clips == most_clips) continue;
            add(item);
            if (rows_.size() == clips_a_script) write_script();
        }
        if (!rows_.empty()) write_script();
        // Of an earlier report with more clips.
        for (std::size_t number = figures_.data.size(); fs::remove(folder_ / name(number));)
            ++number;
    }

private:
    static std::string name(std::size_t number) { return fmt::format("clips-{:03}.js", number); }

    void add(std::size_t item) {
        const PlannedItem planned = history_.planned(item);
        const Json done = history_.event(history_[item].decided);
        const Item& what = planned.item;
        Json row = {{"id", what.id},
                    {"name", what.name},
                    {"prompt", what.prompt.substr(0, most_prompt)},
                    {"seed", what.seed},
                    {"size", fmt::format("{}×{}", what.size.width, what.size.height)},
                    {"duration", static_cast<double>(what.frames) / frames_per_second},
                    {"host", text_at(done, "host")},
                    {"seconds", done.value("seconds", Json::object()).value("total", 0.0)},
                    {"video", clip_path("..", what.id).generic_string()}};
        if (!planned.cell.is_null()) row["cell"] = planned.cell;
        rows_.push_back(std::move(row));
        ++figures_.clips;
    }

    /// The rows' contact strips: those that are there, and those that can be made in time.
    void add_strips() {
        std::atomic<std::size_t> next = 0;
        const auto work = [&] {
            ReportCount count;
            for (std::size_t i = next++; i < rows_.size(); i = next++) add_strip(rows_[i], count);
            return count;
        };
        std::vector<std::future<ReportCount>> workers;
        for (std::size_t i = 0; i < std::min(options_.threads, rows_.size()); ++i)
            workers.push_back(std::async(std::launch::async, work));
        for (std::future<ReportCount>& worker : workers) {
            const ReportCount count = worker.get();
            count_.made += count.made;
            count_.missing += count.missing;
        }
    }

    void add_strip(Json& row, ReportCount& count) const {
        const std::string id = row["id"];
        const std::string path =
            fmt::format("strips/{}/{}/{}.jpg", id.substr(0, 2), id.substr(2, 2), id);
        bool there = fs::exists(folder_ / path);
        try {
            if (!there && seconds_since(start_) < options_.thumbnail_seconds &&
                !options_.stop.stop_requested()) {
                write_jpeg(folder_ / path, contact_strip(clip_path(history_.directory(), id)));
                ++count.made;
                there = true;
            }
        } catch (const InputError& damaged) {
            log_warning("no picture of a clip for the report: {}", damaged.what());
        }
        if (there)
            row["strip"] = path;
        else
            ++count.missing;
    }

    void write_script() {
        add_strips();
        std::string text = "gallop_clips([\n";
        for (const Json& row : rows_) text += script_json(row) + ",\n";
        figures_.data.push_back(name(figures_.data.size()));
        write_atomically(folder_ / figures_.data.back(), text + "]);\n");
        rows_.clear();
    }

    const RunHistory& history_;
    ReportFigures& figures_;
    ReportCount& count_;
    const ReportOptions& options_;
    fs::path folder_ = history_.directory() / "report";
    Clock::time_point start_ = Clock::now();
    std::vector<Json> rows_;
};

bool is_newer_than(const fs::path& path, double seconds) {
    std::error_code missing;
    const auto written = fs::last_write_time(path, missing);
    return !missing &&
           fs::file_time_type::clock::now() - written < std::chrono::duration<double>(seconds);
}

}  // namespace

ReportCount write_report(const fs::path& run, const ReportOptions& options) {
    RunHistory history(run);
    ReportFigures figures;
    history.update([&](const Json& event, std::optional<std::size_t>) { add(event, figures); });
    figures.survey = survey(history, most_failures);
    figures.axes = history.config().sweep.is_object() ? history.config().sweep : Json::object();
    add_failures(history, figures);
    ReportCount count;
    Sheet(history, figures, count, options).write();
    write_atomically(run / "report" / "index.html", report_page(figures));
    return count;
}

LiveReport::LiveReport(const fs::path& run, double least_seconds, double most_seconds)
    : thread_([=](const std::stop_token& ended) {
          // Linux counts priorities by thread: rendering goes first.
          ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 3);
          const Clock::time_point start = Clock::now();
          std::mutex mutex;
          std::condition_variable_any clock;
          std::unique_lock hold(mutex);
          for (;;) {
              const double pause =
                  std::clamp(seconds_since(start) / 4, least_seconds, most_seconds);
              clock.wait_for(hold, ended, std::chrono::duration<double>(pause),
                             [] { return false; });
              if (ended.stop_requested()) return;
              if (is_newer_than(run / "report" / "index.html", pause / 2)) continue;
              try {
                  write_report(run, {live_thumbnail_seconds, 1, ended});
              } catch (const std::exception& failed) {
                  log_warning("no report this time: {}", failed.what());
              }
          }
      }) {}

}  // namespace gallop
