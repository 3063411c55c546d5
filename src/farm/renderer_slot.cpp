#include "farm/renderer_slot.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <sys/socket.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/group.hpp"
#include "core/log.hpp"
#include "media/store.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

constexpr double longest_pause = 30;  // seconds before a renderer that keeps falling is tried again

/// Removes what a process that was killed left half-written of an item.
void remove_leftovers(const fs::path& directory, const std::string& id, ::pid_t pid) {
    for (const fs::path& path : {clip_path(directory, id), latents_path(directory, id)}) {
        const std::string prefix = fmt::format(".{}.{}.", path.filename().string(), pid);
        std::error_code failed;
        for (fs::directory_iterator entry(path.parent_path(), failed), end; !failed && entry != end;
             entry.increment(failed)) {
            const std::string name = entry->path().filename().string();
            std::error_code gone;
            if (name.starts_with(prefix) && name.ends_with(".tmp")) fs::remove(entry->path(), gone);
        }
    }
}

/// An empty folder of this machine where the members of a group find one another.
fs::path make_rendezvous() {
    std::string name = (fs::temp_directory_path() / "gallop-group-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw_file_error(name, "cannot make", errno);
    return name;
}

}  // namespace

RendererSlot::RendererSlot(const RendererPolicy& policy, int number,
                           std::vector<std::size_t> devices, Say say)
    : policy_(policy), number_(number), devices_(std::move(devices)), say_(std::move(say)) {}

RendererSlot::~RendererSlot() { take_down(); }

std::string RendererSlot::log_path() const {
    return fmt::format("logs/{}-{}.log", policy_.log_name, number_);
}

std::string RendererSlot::blame(std::size_t member, const std::string& text) const {
    return devices_.size() == 1 ? text : fmt::format("member {} of the group: {}", member, text);
}

RendererCommand RendererSlot::command(std::size_t member) const {
    RendererCommand made;
    made.arguments = policy_.arguments;
    const auto add = [&](const char* name, const std::string& value) {
        made.arguments.emplace_back(name);
        made.arguments.push_back(value);
    };
    add("--run", policy_.directory.string());
    add("--slot", std::to_string(number_));
    if (devices_.size() > 1) {
        add("--rank", std::to_string(member));
        add("--size", std::to_string(devices_.size()));
        add("--rendezvous", rendezvous_.string());
        made.environment = group_environment();
    }
    // Its own device comes first; the others' stay visible, or they could not be reached.
    std::string visible;
    for (std::size_t i = 0; i < devices_.size(); ++i) {
        const std::string& device = policy_.devices[devices_[(member + i) % devices_.size()]];
        if (!device.empty()) visible += (visible.empty() ? "" : ",") + device;
    }
    if (!visible.empty()) made.environment.emplace_back("CUDA_VISIBLE_DEVICES", visible);
    made.log = policy_.directory / log_path();
    return made;
}

void RendererSlot::start(double now) {
    started_ = now;
    try {
        if (devices_.size() > 1) rendezvous_ = make_rendezvous();
        for (std::size_t i = 0; i < devices_.size(); ++i) {
            Member& member = members_.emplace_back();
            member.heard = member.ticked = now;
            member.process = std::make_unique<RendererProcess>(command(i));
        }
    } catch (const std::exception& failed) {
        fall({FailureKind::error, failed.what()}, now);
    }
}

void RendererSlot::take_down() {
    for (Member& member : members_) {
        if (!member.process) continue;
        const ::pid_t pid = member.process->pid();
        member.process->end();
        for (const auto* work : {&finishing_, &work_})
            if (*work && pid > 0) remove_leftovers(policy_.directory, (*work)->task.id, pid);
    }
    members_.clear();
    if (!rendezvous_.empty()) {
        std::error_code failed;
        fs::remove_all(rendezvous_, failed);
        rendezvous_.clear();
    }
    queue_.clear();
    work_.reset();
    finishing_.reset();
}

void RendererSlot::fail(const Work& work, const Failure& failure) {
    say_(message::Failed{number_, work.task.item, work.task.id, work.task.attempt, failure.kind,
                         shortened(failure.error, 1500), log_path()});
}

/// Falls over an item, which fails: the `guilty` one, or what the devices are at, or else what is left.
/// The other one is given back.
void RendererSlot::break_down(const Failure& failure, double now, const Work* guilty) {
    if (guilty == nullptr && (work_ || finishing_)) guilty = work_ ? &*work_ : &*finishing_;
    for (const auto* work : {&finishing_, &work_}) {
        if (!*work) continue;
        if (guilty == &**work)
            fail(**work, failure);
        else
            say_(message::Returned{number_, {(*work)->task.item}, true});
    }
    fall(failure, now);
}

void RendererSlot::fall(const Failure& failure, double now) {
    log_warning("renderer fell slot={} kind={} reason=\"{}\"", number_, name_of(failure.kind),
                failure.error);
    trouble_ = failure;
    // The run is not wrong when what was read before is away.
    if (round_ > 0 && failure.kind == FailureKind::input) trouble_.kind = FailureKind::crash;
    take_down();
    ++falls_;
    if (!announced_) ++bad_starts_;
    // A request that is wrong from the start stays wrong; anything else may pass, even that what was
    // read before is not there.
    gone_for_good_ = bad_starts_ > 0 && ((failure.kind == FailureKind::input && round_ == 0) ||
                                         bad_starts_ >= policy_.bad_starts);
    if (announced_ || gone_for_good_)
        say_(message::Gone{number_, gone_for_good_, failure.kind, shortened(failure.error, 1500)});
    announced_ = false;
    start_at_ =
        now + (falls_ < 2 ? 0 : std::min(longest_pause, std::ldexp(0.5, std::min(falls_, 9) - 2)));
}

void RendererSlot::lease(const message::Lease& lease, double now) {
    if (!announced_ || lease.round != round_) return;  // the coordinator has been told
    queue_.insert(queue_.end(), lease.items.begin(), lease.items.end());
    feed(now);
}

void RendererSlot::feed(double now) {
    if (!announced_ || work_ || queue_.empty()) return;
    work_.emplace(Work{queue_.front(), now, {}, {}, {}, {}});
    queue_.pop_front();
    say_(message::Begun{number_, work_->task.item});
    for (std::size_t i = 0; i < members_.size(); ++i) {
        members_[i].finished = false;
        members_[i].ticked = now;
        if (members_[i].process->send(message::Lease{number_, 0, {work_->task}})) continue;
        const Failure failure = members_[i].process->end();
        return break_down({failure.kind, blame(i, failure.error)}, now);
    }
}

void RendererSlot::revoke(const message::Revoke& revoke, double now) {
    message::Returned returned{number_, {}, false};
    for (const std::uint32_t item : revoke.items) {
        const auto waiting =
            std::find_if(queue_.begin(), queue_.end(),
                         [&](const message::Task& task) { return task.item == item; });
        if (waiting != queue_.end()) {
            queue_.erase(waiting);
            returned.items.push_back(item);
        } else if (revoke.begun && work_ && work_->task.item == item && !work_->revoked) {
            work_->revoked = now;
            // A group's members would leave at different steps and wait for one another.
            if (members_.size() > 1)
                work_->revoked = now - policy_.abandon_seconds;
            else
                members_[0].process->send(message::Revoke{number_, {item}, true});
        }
    }
    if (!returned.items.empty()) say_(returned);
}

void RendererSlot::restart(const message::Restart& restart, double now) {
    for (const auto* work : {&finishing_, &work_})
        if (*work && (*work)->task.item == restart.item)
            return break_down({FailureKind::hung, restart.why}, now, &**work);
}

bool RendererSlot::step(double now) {
    if (gone_for_good_) return false;
    if (!up()) {
        if (now < start_at_) return false;
        start(now);
        return true;
    }
    bool happened = false;
    for (std::size_t i = 0; i < members_.size(); ++i) {  // `read` may take all of them down
        while (i < members_.size() && read(i, now)) happened = true;
    }
    if (up()) watch(now);
    if (up()) feed(now);
    return happened;
}

bool RendererSlot::read(std::size_t member, double now) {
    Failure failure;
    try {
        message::Message message;
        switch (members_[member].process->receive(message)) {
            case RendererProcess::Got::nothing: return false;
            case RendererProcess::Got::message: on(member, message, now); return true;
            case RendererProcess::Got::end: failure = members_[member].process->end(); break;
        }
    } catch (const Error& nonsense) {
        failure = {FailureKind::crash,
                   fmt::format("the renderer talks nonsense: {}", nonsense.what())};
    }
    failure.error = blame(member, failure.error);
    break_down(failure, now);
    return true;
}

void RendererSlot::on(std::size_t member, const message::Message& message, double now) {
    Member& from = members_[member];
    from.heard = now;
    if (const auto* pulse = std::get_if<message::Pulse>(&message)) {
        if (pulse->ticks != from.ticks) from.ticked = now;
        from.ticks = pulse->ticks;
        if (member == 0 && work_) work_->pulse = *pulse;
    } else if (const auto* ready = std::get_if<message::Ready>(&message)) {
        on_ready(member, *ready);
    } else if (const auto* broken = std::get_if<message::Broken>(&message)) {
        fall({broken->why, blame(member, broken->error)}, now);
    } else if (const auto* finishing = std::get_if<message::Finishing>(&message)) {
        on_finishing(member, *finishing, now);
    } else if (const auto* done = std::get_if<message::Done>(&message)) {
        on_done(member, *done, now);
    } else if (const auto* failed = std::get_if<message::Failed>(&message)) {
        on_failed(member, *failed, now);
    } else if (const auto* returned = std::get_if<message::Returned>(&message)) {
        if (!work_ || returned->items != std::vector{work_->task.item})
            throw Error("it gives back what it does not have");
        say_(message::Returned{number_, returned->items, false});
        work_.reset();
        feed(now);
    } else {
        throw Error("a message that is not for agents");
    }
}

void RendererSlot::on_ready(std::size_t member, const message::Ready& ready) {
    if (members_[member].ready) throw Error("it is ready twice");
    members_[member].ready = true;
    if (!std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.ready; }))
        return;
    announced_ = true;
    bad_starts_ = 0;
    ++round_;
    say_(message::Ready{number_, round_, static_cast<int>(members_.size()), ready.device});
}

void RendererSlot::on_finishing(std::size_t member, const message::Finishing& finishing,
                                double now) {
    if (member != 0 || finishing_ || !work_ || finishing.item != work_->task.item)
        throw Error("it finishes what it was not asked for");
    members_[member].finished = true;
    work_->finishing = now;
    advance(now);
}

void RendererSlot::on_done(std::size_t member, const message::Done& done, double now) {
    if (member == 0 && finishing_ && done.id == finishing_->task.id) {
        say_done(*finishing_, done);
        return finishing_.reset();
    }
    if (!work_ || done.item != work_->task.item || done.id != work_->task.id)
        throw Error("it has done what it was not asked for");
    members_[member].finished = true;
    if (member == 0) work_->done = done;
    advance(now);
}

/// Turns to the next item once all members are done with this one.
void RendererSlot::advance(double now) {
    if (!std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.finished; }))
        return;
    if (work_->done)
        say_done(*work_, std::move(*work_->done));
    else
        finishing_ = std::move(work_);
    work_.reset();
    feed(now);
}

void RendererSlot::say_done(const Work& work, message::Done done) {
    done.slot = number_;
    done.attempt = work.task.attempt;
    falls_ = 0;
    say_(done);
}

void RendererSlot::on_failed(std::size_t member, const message::Failed& failed, double now) {
    const Failure failure{failed.why, blame(member, failed.error)};
    const bool files = member == 0 && finishing_ && failed.item == finishing_->task.item;
    std::optional<Work>& work = files ? finishing_ : work_;
    if (!work || failed.item != work->task.item)
        throw Error("it has failed at what it was not asked for");
    // The members of a group no longer agree on where they are; a lost device or memory in pieces
    // needs a new process, too.
    if ((members_.size() > 1 && !files) || failed.why == FailureKind::crash ||
        failed.why == FailureKind::out_of_memory)
        return break_down(failure, now, &*work);
    fail(*work, failure);
    work.reset();
    feed(now);
}

void RendererSlot::watch(double now) {
    // First, for the next item may wait for these files.
    if (finishing_ && now - *finishing_->finishing > policy_.stalled_seconds) {
        const double spent = now - *finishing_->finishing;
        return break_down({FailureKind::hung, fmt::format("its files take {:.0f} s", spent)}, now,
                          &*finishing_);
    }
    for (std::size_t i = 0; i < members_.size(); ++i) {
        const Member& member = members_[i];
        std::string why;
        if (now - member.heard > policy_.silent_seconds)
            why = fmt::format("no heartbeat for {:.0f} s", now - member.heard);
        else if (!member.ready && now - started_ > policy_.start_seconds)
            why = fmt::format("not ready after {:.0f} s", now - started_);
        else if (work_ && !member.finished &&
                 now - member.ticked > std::max(policy_.stalled_seconds, 3 * work_->task.seconds))
            why = fmt::format("no progress for {:.0f} s", now - member.ticked);
        if (!why.empty()) return break_down({FailureKind::hung, blame(i, why)}, now);
    }
    if (finishing_) return;  // nothing that is asked back is worth its files
    if (!work_ || !work_->revoked || now - *work_->revoked < policy_.abandon_seconds) return;
    say_(message::Returned{number_, {work_->task.item}, false});
    fall({FailureKind::hung, "it did not give back an item in time"}, now);
}

void RendererSlot::add_descriptors(std::vector<pollfd>& all) const {
    for (const Member& member : members_)
        if (member.process) all.push_back({member.process->descriptor(), POLLIN, 0});
}

std::optional<message::SlotProgress> RendererSlot::progress(double now) const {
    if (!work_) return {};
    return message::SlotProgress{number_,           work_->task.item,   work_->pulse.stage,
                                 work_->pulse.step, work_->pulse.steps, now - work_->since};
}

void RendererSlot::ask_to_stop() {
    for (Member& member : members_) member.process->send(message::Stop{});
}

bool RendererSlot::stopped() const {
    return std::all_of(members_.begin(), members_.end(), [](const Member& member) {
        char byte = 0;
        return ::recv(member.process->descriptor(), &byte, 1, MSG_DONTWAIT) == 0;
    });
}

void RendererSlot::close() { take_down(); }

void RendererSlot::dissolve(double now) {
    if (announced_) say_(message::Gone{number_, false, FailureKind::error, "regrouped"});
    announced_ = false;
    gone_for_good_ = true;
    take_down();
    start_at_ = now;
}

}  // namespace gallop
