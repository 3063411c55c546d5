#include "farm/history.hpp"

#include <algorithm>
#include <ctime>
#include <numeric>

#include "core/check.hpp"
#include "core/files.hpp"
#include "farm/journal.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using State = ItemHistory::State;

constexpr std::size_t block_bytes = 1U << 20;

std::string text_of(const Json& event, const char* key) {
    const auto found = event.find(key);
    return found != event.end() && found->is_string() ? found->get<std::string>() : std::string();
}

int number_of(const Json& event, const char* key, int fallback) {
    const auto found = event.find(key);
    return found != event.end() && found->is_number_integer() ? found->get<int>() : fallback;
}

bool is_hex(std::string_view word) {
    return word.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

std::vector<fs::path> journal_files(const fs::path& run) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(run)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("journal-") && name.ends_with(".jsonl")) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    files.insert(files.begin(), run / "journal.jsonl");
    return files;
}

std::optional<std::int64_t> seconds_of_utc(const std::string& text) {
    std::tm parts{};
    const char* end = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
    if (end == nullptr || (*end != 'Z' && *end != '.')) return {};
    return ::timegm(&parts);
}

RunHistory::RunHistory(fs::path run)
    : run_(std::move(run)),
      config_(read_run_config(run_)),
      plan_(read_plan_index(run_, config_)),
      by_id_(plan_.rows.size()),
      items_(plan_.rows.size()) {
    std::iota(by_id_.begin(), by_id_.end(), 0U);
    std::sort(by_id_.begin(), by_id_.end(),
              [&](auto a, auto b) { return plan_.rows[a].id < plan_.rows[b].id; });
}

std::size_t RunHistory::update(const Sink& sink) {
    for (const fs::path& path : journal_files(run_)) {
        const auto known = [&](const Read& read) { return read.path == path; };
        if (std::none_of(journals_.begin(), journals_.end(), known)) journals_.push_back({path, 0});
    }
    std::size_t events = 0;
    for (std::uint32_t file = 0; file < journals_.size(); ++file) events += update(file, sink);
    return events;
}

std::size_t RunHistory::update(std::uint32_t file, const Sink& sink) {
    Read& read = journals_[file];
    if (!fs::exists(read.path)) return 0;
    const InputFile in(read.path);
    std::size_t events = 0;
    std::string block;
    // `block` holds the bytes from `read.offset` on; it grows until it holds a whole line.
    while (read.offset + block.size() < in.size()) {
        const std::size_t kept = block.size();
        block.resize(kept + static_cast<std::size_t>(std::min<std::uint64_t>(
                                block_bytes, in.size() - read.offset - kept)));
        in.read(read.offset + kept, std::as_writable_bytes(std::span(block)).subspan(kept));
        std::size_t start = 0;
        for (std::size_t end; (end = block.find('\n', start)) != std::string::npos;
             start = end + 1) {
            const JournalContent line =
                read_journal(std::string_view(block).substr(start, end + 1 - start));
            damaged_lines_ += line.damaged_lines;
            for (const Json& event : line.events) {
                const std::string id = text_of(event, "id");
                const auto item = id.empty() ? std::nullopt : find(id);
                const JournalPlace place{read.offset + start,
                                         static_cast<std::uint32_t>(end - start), file};
                if (item && overruled(event, place, *item)) continue;
                if (text_of(event, "event") == "read") {
                    read.mark = static_cast<std::uint32_t>(marks_.size());
                    Mark& mark = marks_.emplace_back();
                    const Json journals = event.value("journals", Json());
                    for (const auto& [name, bytes] : journals.items())
                        if (bytes.is_number_unsigned()) mark[name] = bytes.get<std::uint64_t>();
                }
                fold(event, place, item);
                if (sink) sink(event, item);
                ++events;
            }
        }
        read.offset += start;
        block.erase(0, start);
    }
    return events;
}

Json RunHistory::read_event() const {
    Json journals = Json::object();
    for (const Read& read : journals_) journals[read.path.filename().string()] = read.offset;
    return {{"event", "read"}, {"journals", std::move(journals)}};
}

/// Whether the writer of the mark had read the line there.
bool RunHistory::before(const JournalPlace& place, std::uint32_t mark) const {
    if (place.offset == JournalPlace::none) return true;
    if (mark == no_mark) return false;
    const auto known = marks_[mark].find(journals_[place.file].path.filename().string());
    return known != marks_[mark].end() && place.offset < known->second;
}

/// Journals of several processes are read one after the other: what a line says of an item may be
/// older than the `retry` or `reopened` in another that takes it back, or newer though read before.
bool RunHistory::overruled(const Json& event, JournalPlace place, std::size_t item) {
    const std::string kind = text_of(event, "event");
    const auto key = static_cast<std::uint32_t>(item);
    if (kind == "retry" || kind == "reopened") {
        const std::uint32_t mark = journals_[place.file].mark;
        const JournalPlace& decided = items_[item].decided;
        if (decided.file != place.file && !before(decided, mark)) return true;
        forgiven_[key] = mark;
        return false;
    }
    const auto forgiven = forgiven_.find(key);
    return forgiven != forgiven_.end() && before(place, forgiven->second);
}

void RunHistory::fold(const Json& event, JournalPlace place, std::optional<std::size_t> item) {
    const std::string kind = text_of(event, "event");
    if (std::string time = text_of(event, "time"); time > latest_) latest_ = std::move(time);
    if (!item) return fold_run(kind, event);
    ItemHistory& history = items_[*item];
    if (kind == "reopened") {
        history = {};
        return;
    }
    const auto agent = agents_.find(number_of(event, "agent", 0));
    if (kind == "done") {
        history.state = State::done;
        history.decided = place;
        if (!event.value("adopted", false)) ++rendered_here_;
        if (agent != agents_.end()) ++agent->second.done;
    } else if (kind == "failed") {
        if (history.state != State::done) history.state = State::open;
        history.failed = place;
        // A full disk is nobody's fault.
        if (text_of(event, "kind") != "disk" && history.tries < 255) ++history.tries;
        ++failed_tries_;
        if (agent != agents_.end()) ++agent->second.failed;
    } else if (history.state == State::done) {
        return;  // nothing takes a finished clip back
    } else if (kind == "leased") {
        history.state = State::leased;
        leased_.push_back(static_cast<std::uint32_t>(*item));
    } else if (kind == "released") {
        if (history.state == State::leased) history.state = State::open;
    } else if (kind == "quarantined") {
        history.state = State::quarantined;
        history.decided = place;
    } else if (kind == "retry") {
        history = {};
    }
}

void RunHistory::fold_run(const std::string& kind, const Json& event) {
    const auto agent = agents_.find(number_of(event, "agent", -1));
    if (kind == "attempt" || kind == "ended") {
        for (const std::uint32_t item : leased_)
            if (items_[item].state == State::leased) items_[item].state = State::open;
        leased_.clear();
        paused_.clear();
    }
    if (kind == "attempt") {
        attempt_ = number_of(event, "n", attempt_ + 1);
        rendered_here_ = 0;
        outcome_.clear();
        agents_.clear();
    } else if (kind == "ended") {
        outcome_ = text_of(event, "outcome");
    } else if (kind == "joined") {
        AgentHistory& joined = agents_[number_of(event, "agent", 0)];
        joined.host = text_of(event, "host");
        joined.device = text_of(event, "device");
        joined.slots = number_of(event, "slots", 1);
        joined.state = "working";
    } else if (kind == "drained" || kind == "lost") {
        if (agent != agents_.end()) agent->second.state = kind;
    } else if (kind == "paused") {
        paused_ = text_of(event, "reason");
        if (paused_.empty()) paused_ = "no reason given";
    } else if (kind == "resumed") {
        paused_.clear();
    }
}

std::optional<std::size_t> RunHistory::find(std::string_view id) const {
    if (id.size() != 32 || !is_hex(id)) return {};
    const auto wanted = id_bytes(id);
    const auto found =
        std::lower_bound(by_id_.begin(), by_id_.end(), wanted,
                         [&](auto item, const auto& key) { return plan_.rows[item].id < key; });
    if (found == by_id_.end() || plan_.rows[*found].id != wanted) return {};
    return *found;
}

std::size_t RunHistory::resolve(std::string_view word) const {
    if (const auto whole = find(word)) return *whole;
    std::vector<std::size_t> found;
    if (word.size() >= 4 && word.size() < 32 && is_hex(word))
        for (const std::uint32_t item : by_id_)
            if (id_text(plan_.rows[item].id).starts_with(word)) found.push_back(item);
    if (found.empty()) {
        // The lock is canonical JSON: a name stands in it in one way only.
        const std::string wanted = fmt::format(
            "\"name\":{}",
            Json(std::string(word)).dump(-1, ' ', false, Json::error_handler_t::replace));
        const InputFile lock(run_ / "items.lock.jsonl");
        std::string line;
        for (std::size_t item = 0; item < plan_.rows.size(); ++item) {
            line.resize(plan_.rows[item].bytes);
            lock.read(plan_.rows[item].offset, std::as_writable_bytes(std::span(line)));
            if (line.find(wanted) != std::string::npos && planned(item).item.name == word)
                found.push_back(item);
        }
    }
    if (found.empty())
        throw_input_error("{}: no item \"{}\" (an id, the start of one, or a name)", run_.string(),
                          word);
    if (found.size() > 1)
        throw_input_error("{}: \"{}\" means {} items, {} and {} among them; give more of the id",
                          run_.string(), word, found.size(), id_text(plan_.rows[found[0]].id),
                          id_text(plan_.rows[found[1]].id));
    return found[0];
}

PlannedItem RunHistory::planned(std::size_t item) const {
    const PlanRow& row = plan_.rows[item];
    return read_planned_item(run_, config_, row.offset, row.bytes);
}

Json RunHistory::event(const JournalPlace& place) const {
    if (place.offset == JournalPlace::none) return {};
    std::string line(place.bytes + 1, '\n');
    InputFile(journals_[place.file].path)
        .read(place.offset, std::as_writable_bytes(std::span(line.data(), place.bytes)));
    JournalContent content = read_journal(line);
    if (content.events.empty())
        throw Error(fmt::format("{}: the line at byte {} has changed",
                                journals_[place.file].path.string(), place.offset));
    return std::move(content.events[0]);
}

std::size_t RunHistory::count(State state) const {
    return static_cast<std::size_t>(
        std::count_if(items_.begin(), items_.end(),
                      [&](const ItemHistory& item) { return item.state == state; }));
}

}  // namespace gallop
