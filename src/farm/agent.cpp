#include "farm/agent.hpp"

#include <algorithm>
#include <set>

#include <unistd.h>

#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/run_config.hpp"
#include "farm/run_lock.hpp"

namespace gallop {
namespace {

constexpr std::size_t slots_a_beat = 16;  // a message stays below its bound

}  // namespace

Agent::Agent(AgentOptions options, Say say) : options_(std::move(options)), say_(std::move(say)) {
    form_slots();
}

void Agent::add_slot(int number, std::vector<std::size_t> devices) {
    slots_.push_back(
        std::make_unique<RendererSlot>(options_.renderers, number, std::move(devices), say_));
}

void Agent::form_slots() {
    const auto size = static_cast<std::size_t>(std::max(options_.gpus_per_slot, 1));
    const std::size_t devices = options_.renderers.devices.size();
    for (std::size_t first = 0; first + size <= devices; first += size) {
        std::vector<std::size_t> own;
        for (std::size_t i = 0; i < size; ++i) own.push_back(first + i);
        add_slot(next_number_++, std::move(own));
    }
    if (slots_.empty())
        throw_input_error("{} devices on this node (an item needs {})", devices, size);
}

void Agent::begin(double now) {
    silence_ = Silence(now);
    next_beat_ = now;
    say_(message::Join{host_name(), ::getpid(), options_.device, static_cast<int>(slots_.size()),
                       static_cast<int>(options_.renderers.devices.size()), numerics_version});
}

RendererSlot* Agent::find(int number) const {
    for (const auto& slot : slots_)
        if (slot->number() == number) return slot.get();
    return nullptr;
}

bool Agent::idle(int slot) const {
    const RendererSlot* const found = find(slot);
    return found != nullptr && found->idle();
}

void Agent::handle(const message::Message& message, double now) {
    silence_.heard(now);
    if (std::holds_alternative<message::Ping>(message)) return;
    if (std::holds_alternative<message::Stop>(message)) return leave("asked to stop", now);
    if (std::holds_alternative<message::Reset>(message)) return reset(now);
    if (stopping_until_ > 0) return;
    // A slot that is no more: the coordinator is being told.
    const auto with = [&](int slot, const auto& act) {
        if (RendererSlot* const found = find(slot)) act(*found);
    };
    if (const auto* lease = std::get_if<message::Lease>(&message))
        with(lease->slot, [&](RendererSlot& slot) { slot.lease(*lease, now); });
    else if (const auto* revoke = std::get_if<message::Revoke>(&message))
        with(revoke->slot, [&](RendererSlot& slot) { slot.revoke(*revoke, now); });
    else if (const auto* restart = std::get_if<message::Restart>(&message))
        with(restart->slot, [&](RendererSlot& slot) { slot.restart(*restart, now); });
    else if (const auto* wanted = std::get_if<message::Regroup>(&message))
        regroup(*wanted, now);
    else
        throw Error("a message that is not for agents");
}

void Agent::regroup(const message::Regroup& wanted, double now) {
    std::vector<std::size_t> devices;
    std::set<int> numbers;  // free for the new slots
    for (auto slot = slots_.begin(); slot != slots_.end();) {
        const auto number = static_cast<std::uint32_t>((*slot)->number());
        if (std::find(wanted.slots.begin(), wanted.slots.end(), number) == wanted.slots.end()) {
            ++slot;
            continue;
        }
        (*slot)->dissolve(now);
        devices.insert(devices.end(), (*slot)->devices().begin(), (*slot)->devices().end());
        numbers.insert((*slot)->number());
        slot = slots_.erase(slot);
    }
    std::sort(devices.begin(), devices.end());
    const auto take = [&](std::size_t size) {
        const int number = numbers.empty() ? next_number_++ : *numbers.begin();
        numbers.erase(number);
        const auto end = devices.begin() + static_cast<std::ptrdiff_t>(size);
        add_slot(number, {devices.begin(), end});
        devices.erase(devices.begin(), end);
    };
    const auto size = static_cast<std::size_t>(std::max(wanted.gpus, 1));
    while (devices.size() >= size) take(size);
    while (!devices.empty()) take(1);  // what no group could be made of
}

void Agent::reset(double now) {
    log_warning("the coordinator had given this agent up; joining anew");
    slots_.clear();
    next_number_ = 0;
    form_slots();
    begin(now);
}

void Agent::leave(const std::string& why, double now) {
    if (stopping_until_ > 0) return;
    leaving_because_ = why;
    stopping_until_ = now + options_.stop_seconds;
    for (const auto& slot : slots_) slot->ask_to_stop();
}

bool Agent::step(double now) {
    if (finished_) return false;
    if (stopping_until_ > 0) {
        const bool all = std::all_of(slots_.begin(), slots_.end(),
                                     [](const auto& slot) { return slot->stopped(); });
        if (!all && now < stopping_until_) return false;
        for (const auto& slot : slots_) slot->close();
        say_(message::Leaving{leaving_because_});
        return finished_ = true;
    }
    bool happened = false;
    for (const auto& slot : slots_)
        while (slot->step(now)) happened = true;
    if (now >= next_beat_) beat(now);
    const double silent = silence_.look(now);
    const auto gone = [](const auto& slot) { return slot->gone_for_good(); };
    if (std::all_of(slots_.begin(), slots_.end(), gone)) {
        trouble_ = slots_.front()->trouble();
        leave("no renderer can be started: " + shortened(trouble_.error, 1000), now);
    } else if (silent > options_.lonely_seconds) {
        trouble_ = {FailureKind::lost,
                    fmt::format("no word of the coordinator for {:.0f} s", silent)};
        leave(trouble_.error, now);
    }
    return happened;
}

void Agent::beat(double now) {
    next_beat_ = now + options_.beat_seconds;
    message::Beat beat;
    for (const auto& slot : slots_) {
        if (const auto progress = slot->progress(now)) beat.slots.push_back(*progress);
        if (beat.slots.size() < slots_a_beat) continue;
        say_(beat);
        beat.slots.clear();
    }
    say_(beat);
}

void Agent::add_descriptors(std::vector<pollfd>& all) const {
    for (const auto& slot : slots_) slot->add_descriptors(all);
}

}  // namespace gallop
