#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "farm/plan_index.hpp"

namespace gallop {

/// A line of one of a run's journals.
struct JournalPlace {
    static constexpr std::uint64_t none = ~std::uint64_t{0};
    std::uint64_t offset = none;
    std::uint32_t bytes = 0;  ///< without the line's end
    std::uint32_t file = 0;   ///< index into the history's journals
};

/// What the journal says of one item.
struct ItemHistory {
    enum class State : std::uint8_t { open, leased, done, quarantined };
    State state = State::open;
    std::uint8_t tries = 0;  ///< failed ones that count, since the last `retry`
    JournalPlace decided;    ///< the line that says done or quarantined
    JournalPlace failed;     ///< the line of the last failed try
};

/// An agent of the latest attempt, as the journal knows it.
struct AgentHistory {
    std::string host, device;
    int slots = 0;
    std::string state = "working";  ///< or "drained", "lost"
    std::size_t done = 0, failed = 0;
};

/// A run read from its plan and its journals alone. Memory: some 100 bytes an item; events stream.
class RunHistory {
public:
    /// Takes each event as it is read; `item`: of the plan, where the event is about one.
    using Sink = std::function<void(const nlohmann::json& event, std::optional<std::size_t> item)>;

    /// Reads the plan, no journal yet. Throws InputError when the folder is no run directory.
    explicit RunHistory(std::filesystem::path run);

    /// Reads what the journals have gained since the last call: whole lines only; a damaged line is
    /// counted and passed over. Returns the number of events.
    std::size_t update(const Sink& sink = {});

    const std::filesystem::path& directory() const { return run_; }
    const RunConfig& config() const { return config_; }
    const PlanIndex& plan() const { return plan_; }
    std::size_t size() const { return plan_.rows.size(); }
    const ItemHistory& operator[](std::size_t item) const { return items_[item]; }

    /// The item with an id.
    std::optional<std::size_t> find(std::string_view id) const;
    /// The item that a person means: by id, by the start of one (four digits at least), or by name.
    /// Throws InputError when there is none or there are several.
    std::size_t resolve(std::string_view word) const;
    /// Everything of an item. Throws as `read_planned_item`.
    PlannedItem planned(std::size_t item) const;
    /// An event again, from disk; null for none.
    nlohmann::json event(const JournalPlace& place) const;

    std::size_t count(ItemHistory::State state) const;
    int attempt() const { return attempt_; }
    bool ended() const { return !outcome_.empty(); }
    const std::string& outcome() const { return outcome_; }  ///< of the latest attempt, once ended
    const std::string& paused() const { return paused_; }    ///< why, while intake is paused
    const std::string& latest() const { return latest_; }    ///< time of the latest timed event
    std::size_t failed_tries() const { return failed_tries_; }
    std::size_t rendered_here() const { return rendered_here_; }
    std::size_t damaged_lines() const { return damaged_lines_; }
    /// An event that says how much of each journal has been read. Lines of `retry` and `reopened` that
    /// follow it in the same journal speak of that, and of nothing that came later: clocks of hosts
    /// differ, and their journals are read one after the other.
    nlohmann::json read_event() const;
    const std::map<int, AgentHistory>& agents() const { return agents_; }

private:
    /// How much of each journal, by name, the writer of some lines had read.
    using Mark = std::map<std::string, std::uint64_t>;
    static constexpr std::uint32_t no_mark = ~std::uint32_t{0};
    struct Read {
        std::filesystem::path path;
        std::uint64_t offset = 0;
        std::uint32_t mark = no_mark;  ///< the latest of its lines
    };
    std::size_t update(std::uint32_t file, const Sink& sink);
    bool before(const JournalPlace& place, std::uint32_t mark) const;
    bool overruled(const nlohmann::json& event, JournalPlace place, std::size_t item);
    void fold(const nlohmann::json& event, JournalPlace place, std::optional<std::size_t> item);
    void fold_run(const std::string& kind, const nlohmann::json& event);

    std::filesystem::path run_;
    RunConfig config_;
    PlanIndex plan_;
    std::vector<std::uint32_t> by_id_;  ///< items in the order of their ids
    std::vector<ItemHistory> items_;
    std::vector<Read> journals_;
    std::vector<std::uint32_t> leased_;  ///< in the latest attempt, some of them settled since
    std::vector<Mark> marks_;
    std::map<std::uint32_t, std::uint32_t> forgiven_;  ///< items, and the mark of the latest pardon
    std::map<int, AgentHistory> agents_;
    std::string outcome_, paused_, latest_;
    int attempt_ = 0;
    std::size_t failed_tries_ = 0, rendered_here_ = 0, damaged_lines_ = 0;
};

/// The journals of a run directory: the coordinator's, then those of attached processes by name.
std::vector<std::filesystem::path> journal_files(const std::filesystem::path& run);

/// Seconds since 1970 of "2026-11-22T06:48:01Z"; nothing for anything else.
std::optional<std::int64_t> seconds_of_utc(const std::string& text);

}  // namespace gallop
