#include "farm/driver.hpp"

#include <algorithm>
#include <array>

#include <unistd.h>

#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/run_lock.hpp"
#include "farm/time_text.hpp"
#include "media/store.hpp"

namespace gallop {
namespace {

using coordinator::Record;
using Json = nlohmann::json;
using Key = std::pair<int, int>;

constexpr double ping_seconds = 0.5;
constexpr double last_moments = 20;  // of a job, for ending what runs and writing what is left

coordinator::FailureKind kind_of(FailureKind kind) {
    return coordinator::failure_kind(name_of(kind));
}

double total(const StageSeconds& seconds) {
    for (const auto& [stage, spent] : seconds.stages)
        if (stage == "total") return spent;
    return 0;
}

}  // namespace

void journal_reopened(const RunStart& start, Journal& journal) {
    journal.append(start.read);
    for (const coordinator::ItemIndex item : start.reopened)
        journal.append({{"event", "reopened"},
                        {"id", id_text(start.plan.rows[item].id)},
                        {"time", utc_text()}});
}

Driver::Driver(RunStart start, Link& link, Journal& journal, bool terminal, double now)
    : start_(std::move(start)),
      link_(link),
      journal_(journal),
      coordinator_(coordinator_options(start_.config, start_.directory), start_.ledger),
      line_(terminal),
      pace_(now),
      failed_tries_(start_.failed_tries),
      next_show_(now) {
    journal_.append({{"event", "attempt"},
                     {"n", start_.attempt},
                     {"host", host_name()},
                     {"pid", ::getpid()},
                     {"ranks", link.size()},
                     {"version", GALLOP_VERSION},
                     {"time", utc_text()}});
    journal_reopened(start_, journal_);
}

void Driver::say(int rank, const message::Message& message) {
    link_.send(rank, message::to_text(message));
}

void Driver::tell(const coordinator::Event& event, double now) {
    coordinator_.handle(event, now);
    for (const coordinator::Action& action : coordinator_.take_actions()) act(action);
}

void Driver::handle(int rank, const message::Message& message, double now) {
    const auto leased = [&](std::uint32_t item) {
        if (item >= start_.plan.rows.size())
            throw Error(fmt::format("item {} of {}", item, start_.plan.rows.size()));
        return item;
    };
    if (const auto* join = std::get_if<message::Join>(&message)) {
        on(rank, *join, now);
    } else if (const auto* beat = std::get_if<message::Beat>(&message)) {
        on(rank, *beat, now);
    } else if (const auto* ready = std::get_if<message::Ready>(&message)) {
        on(rank, *ready, now);
    } else if (const auto* gone = std::get_if<message::Gone>(&message)) {
        log_warning("renderer gone rank={} slot={}{} reason=\"{}\"", rank, gone->slot,
                    gone->for_good ? " for good" : "", gone->error);
        progress_.erase(Key{rank, gone->slot});
        if (rounds_.erase(Key{rank, gone->slot}) > 0)
            tell(coordinator::SlotGone{rank, gone->slot}, now);
    } else if (const auto* begun = std::get_if<message::Begun>(&message)) {
        progress_[{rank, begun->slot}] = {begun->slot, leased(begun->item), "", 0, 0, 0};
        tell(coordinator::ItemStarted{rank, begun->slot, begun->item}, now);
    } else if (const auto* done = std::get_if<message::Done>(&message)) {
        leased(done->item);
        on(rank, *done, now);
    } else if (const auto* failed = std::get_if<message::Failed>(&message)) {
        leased(failed->item);
        on(rank, *failed, now);
    } else if (const auto* returned = std::get_if<message::Returned>(&message)) {
        for (const std::uint32_t item : returned->items) {
            forget_progress({rank, returned->slot}, item);
            tell(coordinator::ItemReturned{rank, returned->slot, leased(item), returned->lost},
                 now);
        }
    } else if (const auto* leaving = std::get_if<message::Leaving>(&message)) {
        std::erase_if(progress_, [&](const auto& entry) { return entry.first.first == rank; });
        std::erase_if(rounds_, [&](const auto& entry) { return entry.first.first == rank; });
        leaving_orderly_ = true;
        tell(coordinator::AgentLeft{rank, leaving->why, true}, now);
        leaving_orderly_ = false;
    } else {
        throw Error("a message that is not for the coordinator");
    }
}

/// Of an item that ended; the slot may have begun the next.
void Driver::forget_progress(const std::pair<int, int>& slot, std::uint32_t item) {
    const auto shown = progress_.find(slot);
    if (shown != progress_.end() && shown->second.item == item) progress_.erase(shown);
}

void Driver::on(int rank, const message::Join& join, double now) {
    if (join.numerics != start_.config.numerics)
        throw Error(fmt::format("its numerics version is {} (the run's is {})", join.numerics,
                                start_.config.numerics));
    devices_[rank] = join.device;
    std::erase_if(progress_, [&](const auto& entry) { return entry.first.first == rank; });
    std::erase_if(rounds_, [&](const auto& entry) { return entry.first.first == rank; });
    tell(coordinator::AgentJoined{rank, join.host, join.device, join.slots, join.gpus}, now);
    lost_.erase(rank);  // last: who joins anew while it is among us is lost first
}

void Driver::on(int rank, const message::Beat& beat, double now) {
    tell(coordinator::AgentHeard{rank}, now);
    for (const message::SlotProgress& progress : beat.slots) {
        const auto known = progress_.find({rank, progress.slot});
        if (known == progress_.end() || known->second.item != progress.item) continue;
        known->second = progress;
        if (rounds_.contains({rank, progress.slot}))
            tell(coordinator::ItemProgress{rank, progress.slot, progress.item, fraction(progress)},
                 now);
    }
}

void Driver::on(int rank, const message::Ready& ready, double now) {
    rounds_[{rank, ready.slot}] = ready.round;
    devices_[rank] = ready.device;
    tell(coordinator::SlotReady{rank, ready.slot, ready.gpus}, now);
}

void Driver::on(int rank, const message::Done& done, double now) {
    if (done.id != id_of_item(done.item))
        throw Error(fmt::format("item {} is done under the id {}", done.item, done.id));
    forget_progress({rank, done.slot}, done.item);
    done_ = &done;
    // What was found on disk says nothing about how long rendering takes.
    tell(coordinator::ItemDone{rank, done.slot, done.item, done.adopted ? 0 : total(done.seconds)},
         now);
    done_ = nullptr;
    last_failures_.erase(done.item);
}

void Driver::on(int rank, const message::Failed& failed, double now) {
    forget_progress({rank, failed.slot}, failed.item);
    failed_ = &failed;
    tell(coordinator::ItemFailed{rank, failed.slot, failed.item, kind_of(failed.why), failed.error},
         now);
    failed_ = nullptr;
}

void Driver::expel(int rank, const std::string& why, double now) {
    log_error("rank {} is given up: {}", rank, why);
    lost_.insert(rank);
    tell(coordinator::AgentLeft{rank, why, false}, now);
    say(rank, message::Stop{});
}

void Driver::stop(const std::string& why, double seconds_left, double now) {
    tell(coordinator::StopAsked{why, seconds_left}, now);
}

void Driver::stop_soon(const std::string& why, double now) {
    const double reserve = start_.config.limits.walltime_reserve_seconds;
    // Without a job's end to go by, the signal came as early as the reserve says.
    const double left = job_ends_ < coordinator::forever ? job_ends_ - now : reserve;
    stop(why, std::max(0.0, left - last_moments), now);
}

void Driver::job_ends_in(double seconds, double now) {
    job_ends_ = now + seconds;
    const double usable = seconds - start_.config.limits.walltime_reserve_seconds;
    log_info("the job ends in {:.0f} s; nothing begins in its last {:.0f} s", seconds,
             start_.config.limits.walltime_reserve_seconds);
    tell(coordinator::TimeLeft{std::max(0.0, usable)}, now);
}

bool Driver::step(double now) {
    if (finished_) return false;
    // What was said while we were away may still be on its way.
    if (last_step_ > 0 && now - last_step_ > 3) blind_until_ = now + 2;
    last_step_ = now;
    if (const std::string trouble = journal_.trouble(); !trouble.empty())
        stop("the journal cannot be written: " + trouble, 0, now);
    look_at_disk(now);
    if (now >= blind_until_) coordinator_.tick(now);
    const std::vector<coordinator::Action> actions = coordinator_.take_actions();
    for (const coordinator::Action& action : actions) act(action);
    if (now >= next_ping_) {
        next_ping_ = now + ping_seconds;
        static const std::string ping = message::to_text(message::Ping{});
        for (int rank = 0; rank < link_.size(); ++rank)
            if (!lost(rank)) link_.send(rank, ping);
    }
    show(now);
    return !actions.empty();
}

void Driver::act(const coordinator::Action& action) {
    if (const auto* lease_action = std::get_if<coordinator::Lease>(&action)) {
        lease(*lease_action);
    } else if (const auto* revoke = std::get_if<coordinator::Revoke>(&action)) {
        say(revoke->agent, message::Revoke{revoke->slot, revoke->items, revoke->begun});
    } else if (const auto* restart = std::get_if<coordinator::RestartSlot>(&action)) {
        say(restart->agent, message::Restart{restart->slot, restart->item, restart->why});
    } else if (const auto* regroup = std::get_if<coordinator::Regroup>(&action)) {
        say(regroup->agent,
            message::Regroup{{regroup->slots.begin(), regroup->slots.end()}, regroup->gpus});
    } else if (const auto* drain = std::get_if<coordinator::DrainAgent>(&action)) {
        log_warning("rank {} is drained: {}", drain->agent, drain->why);
    } else if (const auto* reset = std::get_if<coordinator::ResetAgent>(&action)) {
        say(reset->agent, message::Reset{});
    } else if (const auto* stop = std::get_if<coordinator::StopAgent>(&action)) {
        say(stop->agent, message::Stop{});
    } else if (const auto* one = std::get_if<Record>(&action)) {
        record(*one);
    } else if (const auto* pause = std::get_if<coordinator::PauseIntake>(&action)) {
        paused_ = true;
        why_ = pause->why;
        log_warning("paused: {}", pause->why);
    } else if (std::holds_alternative<coordinator::ResumeIntake>(action)) {
        paused_ = false;
        why_.clear();
        log_info("resumed");
    } else if (const auto* notice = std::get_if<coordinator::Notice>(&action)) {
        log_warning("rank {}: {}", notice->agent, notice->text);
    } else if (const auto* finish = std::get_if<coordinator::Finished>(&action)) {
        finished_ = true;
        outcome_ = finish->outcome;
        why_ = finish->why;
        at_limit_ = finish->at_limit;
    }
}

void Driver::lease(const coordinator::Lease& lease) {
    std::vector<message::Task> tasks;
    for (const coordinator::LeaseItem& one : lease.items) {
        const PlanRow& row = start_.plan.rows[one.item];
        tasks.push_back({one.item, row.offset, row.bytes, id_of_item(one.item), one.attempt,
                         one.seconds, one.tiled_decode});
    }
    const auto round = rounds_.find({lease.agent, lease.slot});
    if (round == rounds_.end()) return;  // gone meanwhile; the coordinator has been told
    for (const message::Lease& part : message::leases(lease.slot, round->second, tasks))
        say(lease.agent, part);
}

std::string Driver::id_of_item(coordinator::ItemIndex item) const {
    return id_text(start_.plan.rows[item].id);
}

void Driver::record(const Record& record) {
    const bool of_item = record.item != coordinator::no_item;
    Json line = journal_event(record, of_item ? id_of_item(record.item) : std::string());
    using What = Record::What;
    if (record.what == What::done && done_ != nullptr && done_->item == record.item) {
        line["device"] = devices_[record.agent];
        line.update(done_details(*done_, start_.plan.rows[record.item].gpus));
        names_.erase(record.item);
    } else if (record.what == What::failed) {
        line["device"] = devices_[record.agent];
        if (failed_ != nullptr && failed_->item == record.item) line["log"] = failed_->log;
        ++failed_tries_;
    } else if (record.what == What::quarantined) {
        line["error"] = last_failures_[record.item].error;
    } else if (record.what == What::lost && record.agent != coordinator::no_agent &&
               !leaving_orderly_) {
        lost_.insert(record.agent);
        link_.forget(record.agent);
        log_warning("rank {} on {} is lost: {}", record.agent, record.host, record.text);
    }
    journal_.append(line);
    if (record.what == What::failed || record.what == What::quarantined) note_failure(record, line);
}

double Driver::fraction(const message::SlotProgress& progress) const {
    const auto& buckets = start_.config.buckets;
    const std::uint16_t bucket = start_.plan.rows[progress.item].bucket;
    if (bucket >= buckets.size()) return 0;
    static constexpr std::array order = {"load", "text", "image", "audio", "base", "sr", "decode"};
    const auto place = [](const std::string& stage) {
        return std::find(order.begin(), order.end(), stage) - order.begin();
    };
    double before = 0;
    double all = 0;
    for (const auto& [stage, seconds] : buckets[bucket].stages) {
        all += seconds;
        if (place(stage) < place(progress.stage)) before += seconds;
        if (stage == progress.stage && progress.steps > 0)
            before += seconds * progress.step / progress.steps;
    }
    return all > 0 ? std::min(before / all, 1.0) : 0;
}

coordinator::CoordinatorOptions coordinator_options(const RunConfig& config,
                                                    const std::filesystem::path& directory) {
    coordinator::CoordinatorOptions options;
    options.order =
        config.schedule.order == Schedule::Order::manifest  ? coordinator::Order::manifest
        : config.schedule.order == Schedule::Order::preview ? coordinator::Order::preview
                                                            : coordinator::Order::longest_first;
    options.chunk_seconds = config.schedule.chunk_seconds;
    options.silent_seconds = config.schedule.silent_seconds;
    options.attempts = config.retry.attempts;
    options.other_host = config.retry.other_host;
    options.on_oom.clear();
    for (const std::string& step : config.retry.on_oom)
        if (step == "tiled_decode")
            options.on_oom.push_back(coordinator::OomStep::tiled_decode);
        else if (step == "split")
            options.on_oom.push_back(coordinator::OomStep::split);
    if (config.retry.stop_after_failed > 0)
        options.stop_after_failed = {static_cast<double>(config.retry.stop_after_failed), false};
    else if (config.retry.stop_after_failed_share > 0)
        options.stop_after_failed = {config.retry.stop_after_failed_share * 100, true};
    if (config.limits.gpu_hours > 0) options.gpu_seconds = config.limits.gpu_hours * 3600;
    std::error_code failed;
    const auto disk = std::filesystem::space(directory, failed);
    options.pause_below = config.limits.disk_pause_below;
    if (options.pause_below == 0 && !failed) options.pause_below = disk.capacity / 100;
    options.resume_above = config.limits.disk_resume_above;
    if (options.resume_above == 0) options.resume_above = 2 * options.pause_below;
    // A mark of the manifest may be below what is 1 % of this disk.
    options.resume_above = std::max(options.resume_above, options.pause_below);
    return options;
}

}  // namespace gallop
