#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "farm/coordinator.hpp"
#include "farm/journal.hpp"
#include "farm/link.hpp"
#include "farm/messages.hpp"
#include "farm/pace.hpp"
#include "farm/plan_index.hpp"
#include "farm/progress_line.hpp"
#include "farm/status.hpp"

namespace gallop {

/// What is known of a run when it begins or goes on.
struct RunStart {
    std::filesystem::path directory;
    RunConfig config;
    PlanIndex plan;
    coordinator::Ledger ledger;
    int attempt = 1;
    std::size_t failed_tries = 0;  ///< of earlier attempts
    nlohmann::json read = {};      ///< RunHistory::read_event
    /// Finished items whose files are gone or changed.
    std::vector<coordinator::ItemIndex> reopened = {};
};

/// Says in a journal how much of the others had been read, without which nobody could tell which of
/// their lines a `retry` or `reopened` of this one takes back, and which items are open again.
void journal_reopened(const RunStart& start, Journal& journal);

/// Connects the coordinator with the world: agents' messages become its events, its actions become
/// messages and lines of the journal; it is told of the disk and the clock; the status is written.
/// Lives on rank 0. Times: seconds since any moment.
class Driver {
public:
    /// `terminal`: progress as a live line.
    Driver(RunStart start, Link& link, Journal& journal, bool terminal, double now);

    /// A message of an agent. Throws Error when it makes no sense.
    void handle(int rank, const message::Message& message, double now);
    /// An agent that talks nonsense is treated as gone.
    void expel(int rank, const std::string& why, double now);
    void stop(const std::string& why, double seconds_left, double now);
    /// Stops, but lets end what can in the time that is left of the job.
    void stop_soon(const std::string& why, double now);
    /// The job that the run belongs to ends in so many seconds.
    void job_ends_in(double seconds, double now);
    /// Whatever is due. True when something happened.
    bool step(double now);

    bool finished() const { return finished_; }
    coordinator::Outcome outcome() const { return outcome_; }
    const std::string& why() const { return why_; }
    /// Stopped by a limit that another attempt would meet at once.
    bool at_limit() const { return at_limit_; }
    /// Writes the status of the end. The journal has been flushed.
    void sign_off(double now);
    /// Whether a rank was given up and has not come back: it will not say goodbye.
    bool lost(int rank) const { return lost_.contains(rank); }

private:
    void forget_progress(const std::pair<int, int>& slot, std::uint32_t item);
    void on(int rank, const message::Join& join, double now);
    void on(int rank, const message::Beat& beat, double now);
    void on(int rank, const message::Ready& ready, double now);
    void on(int rank, const message::Done& done, double now);
    void on(int rank, const message::Failed& failed, double now);
    void tell(const coordinator::Event& event, double now);
    void say(int rank, const message::Message& message);
    void act(const coordinator::Action& action);
    void lease(const coordinator::Lease& lease);
    void record(const coordinator::Record& record);
    void note_failure(const coordinator::Record& record, const nlohmann::json& line);
    double fraction(const message::SlotProgress& progress) const;
    void look_at_disk(double now);
    void show(double now);
    RunStatus status(double now);
    const std::string& name_of_item(coordinator::ItemIndex item);
    std::string id_of_item(coordinator::ItemIndex item) const;

    RunStart start_;
    Link& link_;
    Journal& journal_;
    coordinator::Coordinator coordinator_;
    ProgressLine line_;
    Pace pace_;

    /// The message whose consequences are being recorded; it knows more than the coordinator does.
    const message::Done* done_ = nullptr;
    const message::Failed* failed_ = nullptr;
    bool leaving_orderly_ = false;
    std::map<std::pair<int, int>, message::SlotProgress> progress_;  ///< by rank and slot
    std::map<std::pair<int, int>, int> rounds_;                      ///< of ready slots
    std::map<int, std::string> devices_;                             ///< by rank
    std::set<int> lost_;
    std::unordered_map<coordinator::ItemIndex, FailureStatus> last_failures_;  ///< of open items
    std::unordered_map<coordinator::ItemIndex, std::string> names_;            ///< of items on show
    std::vector<FailureStatus> failures_;
    std::size_t failed_tries_ = 0;
    std::uint64_t disk_free_ = 0;
    double next_disk_ = 0, next_show_ = 0, next_ping_ = 0;
    bool paused_ = false;
    double job_ends_ = coordinator::forever;
    double last_step_ = 0;
    double blind_until_ = 0;  ///< after a stall of our own nobody else is called silent
    bool finished_ = false;
    bool at_limit_ = false;
    coordinator::Outcome outcome_ = coordinator::Outcome::stopped;
    std::string why_;
};

/// The options of a run's coordinator.
coordinator::CoordinatorOptions coordinator_options(const RunConfig& config,
                                                    const std::filesystem::path& directory);

/// A record as a line of the journal, without what only messages know.
nlohmann::json journal_event(const coordinator::Record& record, const std::string& id);

/// What only the message knows of a finished item, for the same line: its files, the seconds of its
/// stages, and `tiled`, `strips` and `gpus` where they are not the plan's, for they change bytes.
nlohmann::json done_details(const message::Done& done, int planned_gpus);

/// The reverse: what a line says to the coordinator's ledger. `item`: of the plan, or no_item.
coordinator::Record record_of(const nlohmann::json& event, coordinator::ItemIndex item);

}  // namespace gallop
