#include "tests/farm/simulator.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <time.h>

#include "tests/farm/simulation.hpp"

namespace gallop::test::simulation {

double cpu_seconds() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Simulator::Simulator(const Scenario& scenario)
    : s_(scenario), random_(scenario.seed), nodes_(scenario.nodes.size()) {
    on_disk_.assign(s_.items.size(), false);
    done_records_.assign(s_.items.size(), 0);
    inflicted_.resize(s_.items.size());
    renders_.resize(s_.items.size());
    double work = 0;
    double speed = 0;
    for (const SimItem& item : s_.items) work += item.seconds * item.gpus;
    for (const SimNode& node : s_.nodes) speed += node.speed * node.gpus;
    usual_ = work / speed;
    limit_ = 100 * usual_ + 100000;
}

SimReport Simulator::run() {
    report_.lower_bound = lower_bound(s_);
    for (int i = 0; i < s_.restarts; ++i) later(usual_ * uniform(), What::restart);
    for (int i = 0; i < s_.stops; ++i) later(usual_ * uniform(), What::stop);
    for (int i = 0; i < s_.disk_full; ++i) later(usual_ * uniform(), What::disk);
    begin_attempt();
    while (!over_ && report_.broken.size() < most_broken) step();
    measure();
    return report_;
}

void Simulator::begin_attempt() {
    ++report_.attempts;
    if (report_.attempts > 60) {
        broken("sixty attempts and no end; last: " + report_.last_why);
        return;
    }
    std::vector<WorkItem> items;
    items.reserve(s_.items.size());
    for (const SimItem& one : s_.items)
        items.push_back({one.planned, one.bucket, one.gpus, ItemState::open});
    Ledger ledger(std::move(items));
    for (const Record& record : journal_) ledger.apply(record);
    coordinator_ = std::make_unique<Coordinator>(s_.options, std::move(ledger));
    holder_.clear();
    known_round_.clear();
    lost_lives_.clear();
    for (auto& set : renders_) set.clear();
    disk_full_ = false;
    for (std::uint32_t n = 0; n < nodes_.size(); ++n) {
        Node& node = nodes_[n];
        ++node.life;
        node.alive = false;
        node.cut_until = node.last_up = node.last_down = 0;
        node.up.clear();
        node.up_round.clear();
        node.down.clear();
        node.slots.clear();
        happen(now_ + s_.nodes[n].start + 0.01 * uniform(), What::join, n, 0, node.life);
    }
    // Clips that the journal doesn't know: verified and adopted, or rendered again.
    for (ItemIndex i = 0; i < s_.items.size(); ++i)
        if (on_disk_[i] && coordinator_->ledger().item(i).state != ItemState::done) {
            if (chance(0.3)) {
                on_disk_[i] = false;
            } else {
                ++report_.adopted;
                tell(ItemDone{no_agent, 0, i, 0});
            }
        }
    act();
    if (!over_)
        happen(now_ + s_.tick, What::tick, 0, 0, static_cast<std::uint64_t>(report_.attempts));
}

void Simulator::crash_all() {
    std::size_t kept = journal_.size();
    if (chance(0.7)) kept -= std::min<std::size_t>(kept, static_cast<std::size_t>(20 * uniform()));
    if (chance(0.1)) kept = static_cast<std::size_t>(static_cast<double>(kept) * uniform());
    for (std::size_t i = kept; i < journal_.size(); ++i)
        if (journal_[i].what == Record::What::done) --done_records_[journal_[i].item];
    journal_.resize(kept);
    begin_attempt();
}

void Simulator::tell(const Event& event) {
    ++report_.events;
    measured([&] { coordinator_->handle(event, now_); });
}

void Simulator::act() {
    if (coordinator_->finished() && reported_ == report_.attempts) return;
    for (Action& action : coordinator_->take_actions())
        std::visit([this](auto& one) { carry_out(one); }, action);
}

void Simulator::carry_out(Lease& lease) {
    ++report_.leases;
    if (lease.items.empty()) broken("an empty lease");
    for (const LeaseItem& one : lease.items) {
        if (holder_.count(one.item) > 0)
            broken(fmt::format("item {} is leased to two: {}.{} and {}.{}", one.item,
                               holder_[one.item].first, holder_[one.item].second, lease.agent,
                               lease.slot));
        if (coordinator_->ledger().item(one.item).state != ItemState::open)
            broken(fmt::format("item {} is leased though it is not open", one.item));
        holder_[one.item] = {lease.agent, lease.slot};
    }
    send_down(lease.agent, lease, known_round_[{lease.agent, lease.slot}]);
}

void Simulator::carry_out(Record& record) {
    journal_.push_back(record);
    if (record.item == s_.watched || record.item == no_item)
        watch(fmt::format("record {} item {} agent {} slot {} try {} {} {}",
                          record_name(record.what), record.item, record.agent, record.slot,
                          record.attempt, record.host, record.text));
    switch (record.what) {
        case Record::What::done:
            if (++done_records_[record.item] > 1)
                broken(fmt::format("item {} is done twice", record.item));
            if (!on_disk_[record.item])
                broken(fmt::format("item {} is done without a clip", record.item));
            report_.makespan = now_;
            break;
        case Record::What::lost:
            forget_holder(record.agent);
            lost_lives_.insert({record.agent, known_life_[record.agent]});
            break;
        case Record::What::joined: known_life_[record.agent] = joining_life_; break;
        case Record::What::drained: ++report_.drained; break;
        case Record::What::quarantined:
            if (record.text.empty()) broken(fmt::format("item {} has no reason", record.item));
            break;
        default: break;
    }
}

void Simulator::carry_out(Finished& finished) {
    reported_ = report_.attempts;
    report_.last_why = finished.why;
    if (finished.outcome == Outcome::stopped) {
        // What is to be done again begins after a while, like a requeued job.
        for (Node& node : nodes_) {
            ++node.life;
            node.alive = false;
        }
        happen(now_ + 5, What::restart, 1);
        return;
    }
    over_ = true;
    check_end(finished.outcome);
}

void Simulator::forget_holder(int agent) {
    for (auto one = holder_.begin(); one != holder_.end();)
        one = one->second.first == agent ? holder_.erase(one) : std::next(one);
}

void Simulator::note(const Event& event) {
    const auto drop = [this](int agent, int slot, ItemIndex item) {
        const auto one = holder_.find(item);
        if (one != holder_.end() && one->second == std::pair{agent, slot}) holder_.erase(one);
    };
    if (const auto* done = std::get_if<ItemDone>(&event)) {
        holder_.erase(done->item);
    } else if (const auto* failed = std::get_if<ItemFailed>(&event)) {
        drop(failed->agent, failed->slot, failed->item);
    } else if (const auto* returned = std::get_if<ItemReturned>(&event)) {
        drop(returned->agent, returned->slot, returned->item);
    } else if (const auto* gone = std::get_if<SlotGone>(&event)) {
        for (auto one = holder_.begin(); one != holder_.end();)
            one = one->second == std::pair{gone->agent, gone->slot} ? holder_.erase(one)
                                                                    : std::next(one);
    } else if (const auto* joined = std::get_if<AgentJoined>(&event)) {
        forget_holder(joined->agent);
    }
}

void Simulator::step() {
    const Happening next = happenings_.top();
    happenings_.pop();
    now_ = next.at;
    if (now_ > limit_) {
        tell_of_open();
        over_ = true;
        return;
    }
    const bool this_attempt = next.token == static_cast<std::uint64_t>(report_.attempts);
    switch (next.what) {
        case What::up:
            if (this_attempt) deliver_up(next.node);
            break;
        case What::down:
            if (this_attempt) deliver_down(next.node);
            break;
        case What::tick:
            if (!this_attempt) return;
            tick();
            happen(now_ + s_.tick, What::tick, 0, 0, next.token);
            break;
        case What::join:
        case What::revive:
            if (nodes_[next.node].life == next.token && reported_ != report_.attempts)
                join(next.node);
            break;
        case What::beat:
            if (nodes_[next.node].life != next.token || !nodes_[next.node].alive) return;
            send_up(next.node, AgentHeard{static_cast<int>(next.node)});
            happen(now_ + s_.heartbeat, What::beat, next.node, 0, next.token);
            break;
        case What::ready:
        case What::end:
        case What::half: happen_to_slot(next); break;
        case What::restart:
            if (next.node == 1 && reported_ == report_.attempts)
                begin_attempt();
            else if (next.node == 0 && reported_ != report_.attempts)
                crash_all();
            return;
        case What::stop:
            if (reported_ != report_.attempts)
                tell(StopAsked{"asked", chance(0.3) ? 0 : usual_ * 0.1 * uniform()});
            break;
        case What::disk:
            disk_full_ = !disk_full_;
            tell(DiskFree{disk_full_ ? 0 : std::uint64_t{1} << 60});
            if (disk_full_) later(20 + 50 * uniform(), What::disk);
            break;
    }
    act();
}

void Simulator::happen_to_slot(const Happening& next) {
    if (!nodes_[next.node].alive) return;
    SimSlot* slot = find(next.node, static_cast<int>(next.slot));
    if (slot == nullptr || slot->token != next.token) return;
    const int agent = static_cast<int>(next.node);
    if (next.what == What::ready) {
        slot->up = true;
        slot->round = ++rounds_;
        send_up(next.node, SlotReady{agent, slot->number, slot->gpus}, slot->round);
    } else if (next.what == What::half) {
        send_up(next.node, ItemProgress{agent, slot->number, slot->current.lease.item, 0.5});
    } else {
        end_item(next.node, *slot);
    }
}

}  // namespace gallop::test::simulation

namespace gallop::test {

SimReport simulate(const Scenario& scenario) { return simulation::Simulator(scenario).run(); }

}  // namespace gallop::test
