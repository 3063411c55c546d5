#include "farm/attach.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <map>
#include <set>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"
#include "farm/blame.hpp"
#include "farm/driver.hpp"
#include "farm/index.hpp"
#include "farm/lease_folder.hpp"
#include "farm/report.hpp"
#include "farm/resume.hpp"
#include "farm/run_directory.hpp"
#include "farm/shared_queue.hpp"
#include "farm/shared_status.hpp"
#include "farm/time_text.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;
using coordinator::ItemState;
using coordinator::Outcome;
using coordinator::Record;
using What = Record::What;
using Json = nlohmann::json;

/// A lease outlives this many silences of an agent: caches of network file systems hide touches.
constexpr double silences_a_lease = 4;
constexpr double look_seconds = 1;            ///< between looks at the others' journals while idle
constexpr double other_host_seconds = 5;      ///< that a failed item waits for another host
constexpr int suspect_streak = 3;             ///< failures in a row, then this process rests
constexpr int longest_rest = 4;               ///< doublings
constexpr double disk_pause_seconds = 10;     ///< after the disk refused something
constexpr double finish_before_seconds = 20;  ///< the job's end

/// A journal that no other process writes, in a folder where any number of them do. Another
/// container on this host may have the same process number.
fs::path own_journal(const fs::path& run) {
    for (int i = 1;; ++i) {
        const std::string name = fmt::format("journal-{}-{}-{}.jsonl", host_name(), ::getpid(), i);
        const Handle<int, detail::close_descriptor, -1> made(
            ::open((run / name).c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
        if (made) return run / name;
        if (errno != EEXIST) throw_file_error(run / name, "cannot create", errno);
    }
}

class Attached {
public:
    Attached(const fs::path& directory, ServeOptions options, const StopSignals& signals)
        : directory_(directory),
          share_(directory),
          signals_(signals),
          history_(directory),
          start_(load_run(history_,
                          [this](const Json& event, std::optional<std::size_t> item) {
                              if (item) blame_.apply(event, *item);
                          })),
          policy_(coordinator_options(start_.config, directory)),
          journal_(own_journal(directory)),
          lease_seconds_(silences_a_lease * start_.config.schedule.silent_seconds),
          leases_(directory, lease_seconds_),
          queue_(start_.plan, start_.config.schedule.order, process_name(host_name(), ::getpid())) {
        share_.confirm();
        if (!start_.reopened.empty()) journal_reopened(start_, journal_);
        terminal_ = options.terminal;
        options.agent.renderers.directory = directory;
        for (const PlanRow& row : start_.plan.rows)
            options.agent.gpus_per_slot = std::max<int>(options.agent.gpus_per_slot, row.gpus);
        agent_.emplace(std::move(options.agent),
                       [this](const message::Message& said) { heard_.push_back(said); });
        const double left = job_seconds_left();
        if (left < coordinator::forever)
            job_ends_ = seconds_now() + left - start_.config.limits.walltime_reserve_seconds;
    }

    ServeResult run() {
        agent_->begin(seconds_now());
        look();
        std::error_code ignored;
        if (start_.ledger.open() > 0) fs::remove(directory_ / "COMPLETE", ignored);
        shown_.emplace(history_, terminal_, seconds_now());
        report_.emplace(directory_);
        while (!agent_->finished()) turn();
        for (const auto& [item, held] : held_) release(item, held.slot, "the process ends");
        return finish();
    }

private:
    struct Held {
        int slot;
        std::string name;
        double since;
    };
    struct FailedHere {
        double until = 0;    ///< when this process may try it again
        bool input = false;  ///< the request looked wrong
    };

    void turn() {
        const double now = seconds_now();
        bool happened = agent_->step(now);
        for (std::vector<message::Message> heard; !heard_.empty(); heard.clear()) {
            heard.swap(heard_);
            happened = true;
            for (const message::Message& message : heard) hear(message, now);
        }
        if (now >= next_beat_) {
            share_.beat();
            agent_->handle(message::Ping{}, now);
            next_beat_ = now + look_seconds / 2;
        }
        heed(now);
        if (!stopping_) feed(now);
        if (now >= shown_->due()) {
            look();
            shown_->show(own_slots(now), now);
        }
        if (happened) return;
        std::vector<pollfd> all = {{signals_.descriptor(), POLLIN, 0}};
        agent_->add_descriptors(all);
        ::poll(all.data(), all.size(), 50);
    }

    /// What this process's renderers do.
    std::vector<SlotStatus> own_slots(double now) {
        std::vector<SlotStatus> all;
        for (const auto& [slot, ready] : ready_) {
            SlotStatus one;
            one.agent = static_cast<int>(::getpid());
            one.slot = slot;
            double since = -coordinator::forever;
            for (const auto& [item, held] : held_) {
                if (held.slot != slot || held.since < since) continue;  // of another the files
                since = held.since;
                one.id = id_of(item);
                one.name = held.name;
                one.seconds = now - held.since;
                one.predicted = start_.plan.rows[item].seconds;
                if (const auto known = progress_.find(slot);
                    known != progress_.end() && known->second.item == item) {
                    one.stage = known->second.stage;
                    one.step = known->second.step;
                    one.steps = known->second.steps;
                }
            }
            all.push_back(std::move(one));
        }
        return all;
    }

    /// Signals, the clock of the job, and the disk under the journal.
    void heed(double now) {
        const double reserve = start_.config.limits.walltime_reserve_seconds;
        if (const StopSignals::Asked asked = signals_.asked(); asked != heeded_) {
            heeded_ = asked;
            if (asked == StopSignals::Asked::now)
                stop("asked by a signal", now, now);
            else
                stop("asked by SIGUSR1", now,
                     now + std::min(reserve, job_seconds_left() - finish_before_seconds));
        }
        if (now >= job_ends_) {
            job_ends_ = coordinator::forever;
            stop("the job's time is nearly up", now, now + reserve - finish_before_seconds);
        }
        if (const std::string trouble = journal_.trouble(); !trouble.empty() && !revoked_)
            stop("the journal cannot be written: " + trouble, now, now);
        if (!stopping_) return;
        if (!held_.empty() && now >= stop_at_ && !revoked_) {
            revoked_ = true;
            for (const auto& [item, held] : held_)
                agent_->handle(message::Revoke{held.slot, {item}, true}, now);
        }
        if (held_.empty()) end(now);
    }

    void stop(const std::string& why, double now, double at) {
        if (stopping_ && at > now) return;
        if (!stopping_) {
            log_info("stopping why=\"{}\"", why);
            why_ = why;
            stop_at_ = at;
        }
        stopping_ = true;
        if (!revoked_) stop_at_ = std::min(stop_at_, at);
    }

    void end(double now) {
        if (ending_) return;
        ending_ = true;
        agent_->handle(message::Stop{}, now);
    }

    /// Takes items for the slots that wait.
    void feed(double now) {
        if (start_.ledger.open() == 0) return end(now);
        look_for_blame(now);
        if (const std::string reached = reached_limit(policy_, start_.ledger); !reached.empty())
            return stop(reached, now, coordinator::forever);
        if (stopping_ || now < feed_at_) return;
        std::error_code failed;
        const auto space = fs::space(directory_, failed);
        if (!failed && space.available < policy_.pause_below) {
            if (!paused_) log_warning("disk nearly full, waiting bytes={}", space.available);
            paused_ = true;
            feed_at_ = now + disk_pause_seconds;
            return;
        }
        paused_ = false;
        bool hungry = false;
        for (const auto& [slot, ready] : ready_)
            if (agent_->idle(slot) && !take(slot, ready, now)) hungry = true;
        if (!hungry) return;
        feed_at_ = now + look_seconds;
        look();
    }

    /// Whether memory ran out on an item before, and tiles are what the run does about it.
    bool tiled_after(const coordinator::Trouble* trouble) const {
        return trouble != nullptr && trouble->count(coordinator::FailureKind::out_of_memory) > 0 &&
               std::find(policy_.on_oom.begin(), policy_.on_oom.end(),
                         coordinator::OomStep::tiled_decode) != policy_.on_oom.end();
    }

    /// Leases an item to a slot; false when there is none to be had now.
    bool take(int slot, const message::Ready& ready, double now) {
        const auto wanted = [&](std::uint32_t item) {
            if (start_.ledger.item(item).state != ItemState::open || held_.contains(item) ||
                start_.ledger.item(item).gpus > ready.gpus)
                return false;
            const auto failed = failed_here_.find(item);
            return failed == failed_here_.end() || now >= failed->second.until;
        };
        try {
            while (const auto item = queue_.next(now, wanted)) {
                const std::string id = id_of(*item);
                if (!leases_.claim(id)) {
                    queue_.pass_over(*item, now + start_.config.schedule.silent_seconds);
                    continue;
                }
                look();  // somebody may have decided it before we got it
                if (start_.ledger.item(*item).state != ItemState::open) {
                    leases_.finish(id);
                    continue;
                }
                const PlanRow& row = start_.plan.rows[*item];
                const coordinator::Trouble* trouble = start_.ledger.trouble(*item);
                const int attempt = trouble == nullptr ? 1 : trouble->tries() + 1;
                Record record{.what = What::leased, .item = *item, .slot = slot};
                record.attempt = attempt;
                record.predicted = row.seconds;
                write(record);
                held_[*item] = {slot, name_of_item(row), now};
                agent_->handle(
                    message::Lease{slot,
                                   ready.round,
                                   {{*item, row.offset, row.bytes, id, attempt,
                                     static_cast<double>(row.seconds), tiled_after(trouble)}}},
                    now);
                return true;
            }
        } catch (const DiskError& refused) {
            log_warning("{}", refused.what());
            feed_at_ = now + disk_pause_seconds;
        }
        return false;
    }

    /// What everybody has written since the last look, this process too.
    void look() {
        try {
            journal_.flush();
        } catch (const DiskError& refused) {
            log_warning("{}", refused.what());  // the next turn stops the run
        }
        history_.update([this](const Json& event, std::optional<std::size_t> item) {
            start_.ledger.apply(record_of(
                event, item ? static_cast<coordinator::ItemIndex>(*item) : coordinator::no_item));
            if (item) blame_.apply(event, *item);
        });
    }

    void hear(const message::Message& message, double now) {
        if (const auto* join = std::get_if<message::Join>(&message)) {
            Record record{.what = What::joined, .slots = join->slots};
            record.text = join->device;
            write(record);
        } else if (const auto* ready = std::get_if<message::Ready>(&message)) {
            ready_[ready->slot] = *ready;
            device_ = ready->device;
        } else if (const auto* gone = std::get_if<message::Gone>(&message)) {
            log_warning("renderer gone slot={} reason=\"{}\"", gone->slot, gone->error);
            ready_.erase(gone->slot);
        } else if (const auto* beat = std::get_if<message::Beat>(&message)) {
            for (const message::SlotProgress& one : beat->slots) progress_[one.slot] = one;
        } else if (const auto* done = std::get_if<message::Done>(&message)) {
            on(*done);
        } else if (const auto* failed = std::get_if<message::Failed>(&message)) {
            on(*failed, now);
        } else if (const auto* returned = std::get_if<message::Returned>(&message)) {
            for (const std::uint32_t item : returned->items) on_returned(item, returned->lost);
        } else if (const auto* leaving = std::get_if<message::Leaving>(&message)) {
            if (why_.empty() && start_.ledger.open() > 0) why_ = leaving->why;
        }
    }

    void on(const message::Done& done) {
        Record record{.what = What::done, .item = done.item, .slot = done.slot};
        record.attempt = done.attempt;
        record.predicted = start_.plan.rows[done.item].seconds;
        Json more = done_details(done, start_.plan.rows[done.item].gpus);
        more["device"] = device_;
        write(record, more);
        streak_ = 0;
        failed_here_.erase(done.item);
        settle(done.item);
    }

    void on(const message::Failed& failed, double now) {
        Record record{.what = What::failed, .item = failed.item, .slot = failed.slot};
        record.attempt = failed.attempt;
        record.kind = coordinator::failure_kind(name_of(failed.why));
        record.text = failed.error;
        write(record, {{"device", device_}, {"log", failed.log}});
        look();
        FailureStatus failure{.id = failed.id,
                              .name = name_of_item(start_.plan.rows[failed.item]),
                              .kind = std::string(name_of(failed.why)),
                              .error = failed.error,
                              .reason = "",
                              .host = host_name(),
                              .log = failed.log,
                              .time = ""};
        log_failure(failure);
        if (failed.why == FailureKind::disk) feed_at_ = now + disk_pause_seconds;
        if (failed.why != FailureKind::out_of_memory) fared_badly(failed, now);
        if (failed.why != FailureKind::disk && given_up(failed.item, failure)) return;
        leases_.give_back(failed.id);
        held_.erase(failed.item);
    }

    void on_returned(std::uint32_t item, bool lost) {
        const auto held = held_.find(item);
        if (held == held_.end()) return;
        const Held was = std::move(held->second);
        held_.erase(held);
        if (!lost) return release(item, was.slot, "given back");
        write_released(item, was.slot, "its renderer ended over another item", lost);
        look();
        FailureStatus failure;
        failure.id = id_of(item);
        failure.name = was.name;
        failure.host = host_name();
        if (!given_up(item, std::move(failure))) leases_.give_back(id_of(item));
    }

    /// Quarantines an item if it is not to be tried again.
    bool given_up(std::uint32_t item, FailureStatus failure) {
        const std::string why = verdict(item);
        if (why.empty()) return false;
        Record record{.what = What::quarantined, .item = item};
        record.attempt = start_.ledger.trouble(item)->tries();
        record.text = why;
        write(record, {{"error", failure.error}});
        failure.reason = why;
        log_failure(failure);
        settle(item);
        return true;
    }

    /// An item failed here: others go first with it, and what fails all the time rests.
    void fared_badly(const message::Failed& failed, double now) {
        const double wait = failed.why == FailureKind::input ? lease_seconds_
                            : start_.config.retry.other_host ? other_host_seconds
                                                             : 0;
        failed_here_[failed.item] = {now + wait, failed.why == FailureKind::input};
        if (++streak_ < suspect_streak || leases_.only_host()) return;
        const int doublings = std::min(streak_ - suspect_streak, longest_rest);
        feed_at_ = std::max(feed_at_, now + std::ldexp(policy_.suspect_seconds, doublings));
    }

    /// What failed here and was decided elsewhere.
    void look_for_blame(double now) {
        std::erase_if(failed_here_, [&](const auto& failed) {
            const ItemState state = start_.ledger.item(failed.first).state;
            // Another host says so, too: the request is wrong, and this host is not.
            if (state == ItemState::quarantined && failed.second.input) {
                streak_ = 0;
                feed_at_ = 0;
            }
            return state != ItemState::open;
        });
        const std::string here = process_name(host_name(), ::getpid());
        if (blame_.of(here) >= Blame::too_much && blame_.drives_out(here, leases_.elsewhere()))
            stop(fmt::format("{:.0f} items that failed here were done elsewhere", blame_.of(here)),
                 now, coordinator::forever);
    }

    /// Why an item is not to be tried again; empty if it is. That a request is wrong takes two hosts'
    /// word, or this one's if no other has a process here.
    std::string verdict(std::uint32_t item) {
        const coordinator::Trouble* trouble = start_.ledger.trouble(item);
        if (trouble == nullptr) return {};
        const auto said = std::find_if(trouble->failures.begin(), trouble->failures.end(),
                                       [](const coordinator::Trouble::Failure& one) {
                                           return one.kind == coordinator::FailureKind::input;
                                       });
        if (said != trouble->failures.end() &&
            (trouble->hosts(coordinator::FailureKind::input) > 1 ||
             (start_.ledger.host_name(said->host) == host_name() && leases_.only_host())))
            return "the request is wrong";
        if (policy_.other_host && trouble->hosts() >= 2) return "failed on two hosts";
        if (const int failed = trouble->tries() - trouble->losses; failed >= policy_.attempts)
            return fmt::format("failed {} times (retry.attempts)", failed);
        return coordinator::too_often_lost(*trouble, policy_.attempts);
    }

    /// The item is decided. The lease may go only when the journal that says so is on disk.
    void settle(std::uint32_t item) {
        held_.erase(item);
        look();
        if (start_.ledger.item(item).state != ItemState::open) leases_.finish(id_of(item));
    }

    void release(std::uint32_t item, int slot, const std::string& why) {
        write_released(item, slot, why, false);
        leases_.give_back(id_of(item));
    }

    void write_released(std::uint32_t item, int slot, const std::string& why, bool lost) {
        Record record{.what = What::released, .item = item, .slot = slot};
        if (lost) record.kind = coordinator::FailureKind::lost;
        record.text = why;
        write(record);
    }

    /// Appends to the journal; `look` brings it into the ledger, like everybody's.
    void write(Record record, const Json& more = Json::object()) {
        record.agent = static_cast<int>(::getpid());
        record.host = host_name();
        Json line = journal_event(
            record, record.item == coordinator::no_item ? std::string() : id_of(record.item));
        line.update(more);
        journal_.append(line);
    }

    std::string id_of(std::uint32_t item) const { return id_text(start_.plan.rows[item].id); }

    std::string name_of_item(const PlanRow& row) const {
        return read_planned_name(directory_, start_.config, row.offset, row.bytes);
    }

    ServeResult finish() {
        ServeResult result;
        result.why = why_;
        if (!agent_->trouble().error.empty()) result.trouble = agent_->trouble();
        report_.reset();
        try {
            journal_.flush();
            look();
            if (start_.ledger.open() > 0) {
                if (leases_.alone()) shown_->sign_off();
                return result;
            }
            result.outcome =
                start_.ledger.quarantined() > 0 ? Outcome::quarantined : Outcome::complete;
            if (!fs::exists(directory_ / "COMPLETE")) {
                const std::string word =
                    result.outcome == Outcome::complete ? "complete" : "quarantined";
                write({.what = What::ended, .text = word});
                journal_.flush();
                look();
                write_index(history_);
                sign_complete(directory_, word);
                shown_->sign_off();
                write_report(directory_);
            }
            // What the dead have left, and who came late.
            std::error_code ignored;
            fs::remove_all(directory_ / "leases", ignored);
            for (const char* folder : {"clips", "latents"})
                if (fs::exists(directory_ / folder)) sweep(directory_ / folder);
        } catch (const DiskError& refused) {
            log_error("{}", refused.what());
            result.outcome = Outcome::stopped;
            if (result.why.empty()) result.why = refused.what();
        }
        return result;
    }

    fs::path directory_;
    RunShare share_;
    const StopSignals& signals_;
    RunHistory history_;
    Blame blame_;
    RunStart start_;
    coordinator::CoordinatorOptions policy_;
    Journal journal_;
    double lease_seconds_;
    LeaseFolder leases_;
    SharedQueue queue_;
    std::optional<Agent> agent_;
    std::optional<SharedStatus> shown_;
    std::optional<LiveReport> report_;
    bool terminal_ = false;

    std::vector<message::Message> heard_;
    std::map<int, message::Ready> ready_;              ///< slots that can take items
    std::map<std::uint32_t, Held> held_;               ///< items that are rendered here
    std::map<int, message::SlotProgress> progress_;    ///< by slot
    std::map<std::uint32_t, FailedHere> failed_here_;  ///< open items
    int streak_ = 0;                                   ///< failures since it last did one
    std::string device_;
    double next_beat_ = 0;
    double feed_at_ = 0;
    double job_ends_ = coordinator::forever;
    double stop_at_ = coordinator::forever;
    bool stopping_ = false;
    bool ending_ = false;
    bool paused_ = false;
    bool revoked_ = false;
    StopSignals::Asked heeded_ = StopSignals::Asked::nothing;
    std::string why_;
};

}  // namespace

ServeResult attach(const fs::path& directory, ServeOptions options, const StopSignals& signals) {
    return Attached(directory, std::move(options), signals).run();
}

}  // namespace gallop
