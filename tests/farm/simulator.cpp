#include "tests/farm/simulator.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <queue>
#include <random>
#include <set>
#include <unordered_map>

#include <fmt/format.h>
#include <time.h>

#include "farm/coordinator.hpp"

namespace gallop::test {
namespace {

using namespace coordinator;

constexpr std::size_t most_broken = 5;  // invariants told of one run

struct Task {
    LeaseItem lease;
    double begun = 0;
};

/// Of this thread: the machine may be busy with other things.
double cpu_seconds() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// A renderer or a group.
struct SimSlot {
    int number = 0;
    int gpus = 1;
    int round = 0;  ///< of its renderers: leases to an earlier round are void
    bool up = false;
    bool busy = false;
    Task current;
    std::deque<Task> queue;
    std::uint64_t token = 0;  ///< of what is to happen to `current`; changes when that is void
    double last_end = 0;
    std::uint32_t bucket = 0;
};

struct Node {
    bool alive = false;
    std::uint64_t life = 0;             ///< grows with each death and restart
    double cut_until = 0;               ///< no message passes before
    double last_up = 0, last_down = 0;  ///< delivery of the latest message in each direction
    std::vector<SimSlot> slots;
    std::deque<Event> up;      ///< to the coordinator
    std::deque<int> up_round;  ///< of SlotReady; of AgentJoined its life
    std::deque<std::pair<Action, int>> down;
};

struct Happening {
    enum class What : std::uint8_t {
        join,
        ready,
        end,
        half,
        up,
        down,
        beat,
        tick,
        revive,
        restart,
        stop,
        disk
    };
    double at;
    std::uint64_t turn;
    What what;
    std::uint32_t node = 0;
    std::uint32_t slot = 0;
    std::uint64_t token = 0;

    bool operator<(const Happening& other) const {
        return at != other.at ? at > other.at : turn > other.turn;
    }
};

class Simulator {
public:
    explicit Simulator(const Scenario& scenario)
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

    SimReport run() {
        report_.lower_bound = lower_bound(s_);
        for (int i = 0; i < s_.restarts; ++i) later(usual_ * uniform(), What::restart);
        for (int i = 0; i < s_.stops; ++i) later(usual_ * uniform(), What::stop);
        for (int i = 0; i < s_.disk_full; ++i) later(usual_ * uniform(), What::disk);
        begin_attempt();
        while (!over_ && report_.broken.size() < most_broken) step();
        measure();
        return report_;
    }

private:
    using What = Happening::What;

    double uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }
    bool chance(double p) { return p > 0 && uniform() < p; }
    void broken(std::string text) {
        report_.broken.push_back(
            fmt::format("t={:.2f} attempt {}: {}", now_, report_.attempts, text));
    }

    void watch(const std::string& text) const {
        if (s_.watched != no_item) fmt::print("{:9.3f} {}\n", now_, text);
    }

    std::uint64_t happen(double at, What what, std::uint32_t node = 0, std::uint32_t slot = 0,
                         std::uint64_t token = 0) {
        happenings_.push({at, ++turn_, what, node, slot, token});
        return turn_;
    }
    void later(double after, What what) { happen(now_ + after, what); }

    // ---- attempts

    void begin_attempt() {
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

    /// Everything dies; the journal loses its tail.
    void crash_all() {
        std::size_t kept = journal_.size();
        if (chance(0.7))
            kept -= std::min<std::size_t>(kept, static_cast<std::size_t>(20 * uniform()));
        if (chance(0.1)) kept = static_cast<std::size_t>(static_cast<double>(kept) * uniform());
        for (std::size_t i = kept; i < journal_.size(); ++i)
            if (journal_[i].what == Record::What::done) --done_records_[journal_[i].item];
        journal_.resize(kept);
        begin_attempt();
    }

    // ---- the coordinator and its driver

    /// One call in so many is timed, for the clock costs as much as the call.
    template <class Call>
    void measured(Call&& call) {
        constexpr int stride = 17;
        if (++calls_ % stride != 0) return call();
        const double begin = cpu_seconds();
        call();
        report_.coordinator_seconds += stride * (cpu_seconds() - begin);
    }

    void tell(const Event& event) {
        ++report_.events;
        measured([&] { coordinator_->handle(event, now_); });
    }

    void act() {
        if (coordinator_->finished() && reported_ == report_.attempts) return;
        for (Action& action : coordinator_->take_actions())
            std::visit([this](auto& one) { carry_out(one); }, action);
    }

    void carry_out(Lease& lease) {
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
    void carry_out(Revoke& one) { send_down(one.agent, one, 0); }
    void carry_out(RestartSlot& one) { send_down(one.agent, one, 0); }
    void carry_out(Regroup& one) { send_down(one.agent, one, 0); }
    void carry_out(DrainAgent& one) { (void)one; }
    void carry_out(ResetAgent& one) { send_down(one.agent, one, 0); }
    void carry_out(StopAgent& one) { send_down(one.agent, one, 0); }
    void carry_out(PauseIntake&) {}
    void carry_out(ResumeIntake&) {}
    void carry_out(Notice&) {}
    void carry_out(Record& record) {
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
    void carry_out(Finished& finished) {
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

    void forget_holder(int agent) {
        for (auto one = holder_.begin(); one != holder_.end();)
            one = one->second.first == agent ? holder_.erase(one) : std::next(one);
    }

    /// As the driver sees it: who holds what, by messages alone.
    void note(const Event& event) {
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

    // ---- messages

    double delay() { return s_.longest_delay * uniform(); }

    void send_up(std::uint32_t n, Event event, int round = 0) {
        Node& node = nodes_[n];
        node.up.push_back(std::move(event));
        node.up_round.push_back(round);
        node.last_up = std::max({node.last_up, now_ + delay(), node.cut_until});
        happen(node.last_up, What::up, n, 0, static_cast<std::uint64_t>(report_.attempts));
    }

    void send_down(int agent, Action action, int round) {
        Node& node = nodes_[static_cast<std::size_t>(agent)];
        node.down.emplace_back(std::move(action), round);
        node.last_down = std::max({node.last_down, now_ + delay(), node.cut_until});
        happen(node.last_down, What::down, static_cast<std::uint32_t>(agent), 0,
               static_cast<std::uint64_t>(report_.attempts));
    }

    void deliver_up(std::uint32_t n) {
        Node& node = nodes_[n];
        const Event event = std::move(node.up.front());
        const int round = node.up_round.front();
        node.up.pop_front();
        node.up_round.pop_front();
        if (const auto* ready = std::get_if<SlotReady>(&event))
            known_round_[{ready->agent, ready->slot}] = round;
        if (std::holds_alternative<AgentJoined>(event))
            joining_life_ = static_cast<std::uint64_t>(round);
        note(event);
        tell(event);
        // What doesn't matter when it is said twice is said twice now and then.
        if (chance(s_.nonsense) &&
            (std::holds_alternative<ItemDone>(event) ||
             std::holds_alternative<ItemStarted>(event) ||
             std::holds_alternative<ItemFailed>(event) || std::holds_alternative<SlotGone>(event)))
            tell(event);
    }

    // ---- an agent

    void deliver_down(std::uint32_t n) {
        Node& node = nodes_[n];
        auto [action, round] = std::move(node.down.front());
        node.down.pop_front();
        if (!node.alive) return;
        if (const auto* lease = std::get_if<Lease>(&action)) {
            SimSlot* slot = find(n, lease->slot);
            if (slot == nullptr || !slot->up || slot->round != round) return;
            for (const LeaseItem& one : lease->items) slot->queue.push_back({one, 0});
            if (!slot->busy) begin_next(n, *slot);
        } else if (const auto* revoke = std::get_if<Revoke>(&action)) {
            give_back(n, *revoke);
        } else if (const auto* restart = std::get_if<RestartSlot>(&action)) {
            SimSlot* slot = find(n, restart->slot);
            if (slot == nullptr || !slot->up) return;
            if (slot->busy && slot->current.lease.item == restart->item)
                fail(n, *slot, FailureKind::hung);
            end_slot(n, *slot, true);
        } else if (const auto* regroup = std::get_if<Regroup>(&action)) {
            form_groups(n, *regroup);
        } else if (std::holds_alternative<ResetAgent>(action)) {
            join(n);
        } else if (std::holds_alternative<StopAgent>(action)) {
            node.alive = false;
            ++node.life;
            drop_renders(n);
            send_up(n, AgentLeft{static_cast<int>(n), "stopped", true});
        }
    }

    void join(std::uint32_t n) {
        Node& node = nodes_[n];
        const SimNode& plan = s_.nodes[n];
        drop_renders(n);
        node.alive = true;
        ++node.life;
        const int agent = static_cast<int>(n);
        send_up(n, AgentJoined{agent, plan.host, "sim", plan.gpus, plan.gpus},
                static_cast<int>(node.life));
        node.slots.assign(static_cast<std::size_t>(plan.gpus), SimSlot());
        for (int i = 0; i < plan.gpus; ++i) {
            SimSlot& slot = node.slots[static_cast<std::size_t>(i)];
            slot.number = i;
            slot.round = ++rounds_;
            happen(now_ + s_.load_seconds * (0.5 + uniform()), What::ready, n,
                   static_cast<std::uint32_t>(i), token_for(slot));
        }
        happen(now_ + s_.heartbeat * uniform(), What::beat, n, 0, node.life);
    }

    std::uint64_t token_for(SimSlot& slot) { return slot.token = ++tokens_; }

    SimSlot* find(std::uint32_t n, int number) {
        for (SimSlot& slot : nodes_[n].slots)
            if (slot.number == number) return &slot;
        return nullptr;
    }

    void begin_next(std::uint32_t n, SimSlot& slot) {
        if (slot.queue.empty() || slot.busy) return;
        slot.current = slot.queue.front();
        slot.queue.pop_front();
        slot.busy = true;
        slot.current.begun = now_;
        const ItemIndex index = slot.current.lease.item;
        const SimItem& item = s_.items[index];
        if (slot.bucket != item.bucket + 1U) ++report_.switches;
        slot.bucket = item.bucket + 1U;
        if (index == s_.watched) watch(fmt::format("begins on {}.{}", n, slot.number));
        check_alone(n, index);
        send_up(n, ItemStarted{static_cast<int>(n), slot.number, index});
        speak_nonsense(n);
        double seconds = item.seconds / s_.nodes[n].speed;
        ending_[{n, slot.number}] = ending(n, item, slot.current.lease, seconds);
        if (ending_[{n, slot.number}] == Ending::hang) return;
        const std::uint64_t token = token_for(slot);
        happen(now_ + seconds, What::end, n, static_cast<std::uint32_t>(slot.number), token);
        if (s_.progress)
            happen(now_ + seconds / 2, What::half, n, static_cast<std::uint32_t>(slot.number),
                   token);
    }

    enum class Ending : std::uint8_t { done, error, input, out_of_memory, crash, hang, node_loss };

    /// What becomes of a try, and when.
    Ending ending(std::uint32_t n, const SimItem& item, const LeaseItem& lease, double& seconds) {
        using Kind = SimItem::Kind;
        if (item.kind == Kind::wrong) return seconds *= 0.01, Ending::input;
        const bool tiled = lease.tiled_decode;
        const bool split = lease.gpus >= 2 * item.gpus;
        if ((item.kind == Kind::large && !tiled) ||
            (item.kind == Kind::larger && !(tiled && split)) || item.kind == Kind::too_large)
            return seconds *= 0.2, Ending::out_of_memory;
        if (chance(s_.nodes[n].failing))
            return seconds *= 0.1, chance(0.5) ? Ending::error : Ending::crash;
        if (item.kind == Kind::poison)
            return seconds *= uniform(), chance(0.5) ? Ending::error : Ending::crash;
        if (chance(s_.crash)) return seconds *= uniform(), Ending::crash;
        if (chance(s_.hang)) return Ending::hang;
        if (chance(s_.node_loss)) return seconds *= uniform(), Ending::node_loss;
        if (chance(s_.partition)) {
            ++report_.partitions;
            watch(fmt::format("node {} is cut off", n));
            nodes_[n].cut_until = now_ + s_.options.silent_seconds * (0.2 + 3 * uniform());
        }
        return Ending::done;
    }

    void end_item(std::uint32_t n, SimSlot& slot) {
        const ItemIndex item = slot.current.lease.item;
        switch (ending_[{n, slot.number}]) {
            case Ending::done:
                if (disk_full_ && chance(0.5)) {
                    fail(n, slot, FailureKind::disk);
                    break;
                }
                on_disk_[item] = true;
                renders_[item].erase({static_cast<int>(n), nodes_[n].life});
                slot.busy = false;
                slot.last_end = now_;
                useful_ += now_ - slot.current.begun;
                send_up(
                    n, ItemDone{static_cast<int>(n), slot.number, item, now_ - slot.current.begun});
                break;
            case Ending::error: fail(n, slot, FailureKind::error); break;
            case Ending::input: fail(n, slot, FailureKind::input); break;
            case Ending::out_of_memory: fail(n, slot, FailureKind::out_of_memory); break;
            case Ending::crash:
                ++report_.crashes;
                if (chance(0.5))
                    fail(n, slot, FailureKind::crash);
                else
                    ++inflicted_[item];
                end_slot(n, slot, true);
                return;
            case Ending::node_loss: lose_node(n); return;
            case Ending::hang: return;  // never
        }
        begin_next(n, slot);
    }

    void fail(std::uint32_t n, SimSlot& slot, FailureKind kind) {
        const ItemIndex item = slot.current.lease.item;
        if (kind == FailureKind::hung) ++report_.hangs;
        ++inflicted_[item];
        renders_[item].erase({static_cast<int>(n), nodes_[n].life});
        slot.busy = false;
        slot.last_end = now_;
        send_up(n, ItemFailed{static_cast<int>(n), slot.number, item, kind, "simulated",
                              slot.current.lease.attempt});
    }

    void end_slot(std::uint32_t n, SimSlot& slot, bool comes_back) {
        if (slot.busy)
            renders_[slot.current.lease.item].erase({static_cast<int>(n), nodes_[n].life});
        slot.busy = false;
        slot.up = false;
        slot.queue.clear();
        slot.round = ++rounds_;
        token_for(slot);
        send_up(n, SlotGone{static_cast<int>(n), slot.number});
        if (comes_back)
            happen(now_ + s_.load_seconds * (0.5 + uniform()), What::ready, n,
                   static_cast<std::uint32_t>(slot.number), slot.token);
    }

    void give_back(std::uint32_t n, const Revoke& revoke) {
        SimSlot* slot = find(n, revoke.slot);
        if (slot == nullptr || !slot->up) return;
        for (const ItemIndex item : revoke.items) {
            const auto waiting =
                std::find_if(slot->queue.begin(), slot->queue.end(),
                             [=](const Task& task) { return task.lease.item == item; });
            if (waiting != slot->queue.end()) {
                slot->queue.erase(waiting);
            } else if (revoke.begun && slot->busy && slot->current.lease.item == item) {
                slot->busy = false;
                token_for(*slot);
                renders_[item].erase({static_cast<int>(n), nodes_[n].life});
            } else {
                continue;
            }
            send_up(n, ItemReturned{static_cast<int>(n), slot->number, item});
        }
        begin_next(n, *slot);
    }

    void form_groups(std::uint32_t n, const Regroup& order) {
        std::vector<SimSlot>& slots = nodes_[n].slots;
        int gpus = 0;
        for (const int number : order.slots) {
            SimSlot* slot = find(n, number);
            if (slot == nullptr || !slot->up) return;  // meant for those of an earlier life
            if (slot->busy || !slot->queue.empty()) {
                broken(fmt::format("slot {}.{} is regrouped though it is not idle", n, number));
                return;
            }
            gpus += slot->gpus;
        }
        std::vector<int> numbers;
        for (const int number : order.slots) {
            end_slot(n, *find(n, number), false);
            std::erase_if(slots, [=](const SimSlot& slot) { return slot.number == number; });
        }
        for (int size = order.gpus; gpus > 0; gpus -= size) {
            if (gpus < size) size = 1;
            SimSlot slot;
            slot.number = 0;
            while (find(n, slot.number) != nullptr) ++slot.number;
            slot.gpus = size;
            slot.round = ++rounds_;
            const std::uint64_t token = token_for(slot);
            slots.push_back(slot);
            happen(now_ + s_.load_seconds * (0.5 + uniform()), What::ready, n,
                   static_cast<std::uint32_t>(slot.number), token);
        }
    }

    void drop_renders(std::uint32_t n) {
        for (SimSlot& slot : nodes_[n].slots) {
            if (slot.busy)
                renders_[slot.current.lease.item].erase({static_cast<int>(n), nodes_[n].life});
            slot.busy = false;
            slot.up = false;
            slot.queue.clear();
            token_for(slot);
        }
    }

    void lose_node(std::uint32_t n) {
        ++report_.losses;
        watch(fmt::format("node {} dies", n));
        Node& node = nodes_[n];
        drop_renders(n);
        node.alive = false;
        ++node.life;
        if (chance(0.5))
            happen(now_ + s_.options.silent_seconds * 3 * uniform(), What::revive, n, 0, node.life);
    }

    void speak_nonsense(std::uint32_t n) {
        if (!chance(s_.nonsense)) return;
        const int agent = static_cast<int>(n);
        const auto item =
            static_cast<ItemIndex>(uniform() * static_cast<double>(s_.items.size()) * 2);
        const int slot = 100 + static_cast<int>(uniform() * 5);  // which no agent has
        const int own = item < s_.items.size() ? slot : 0;       // or an item that there isn't
        switch (static_cast<int>(uniform() * 7)) {
            case 0: send_up(n, ItemStarted{agent, slot, item}); break;
            case 1: send_up(n, ItemReturned{agent, own, item}); break;
            case 2: send_up(n, ItemFailed{agent, own, item, FailureKind::error, "?", 0}); break;
            case 3: send_up(n, SlotGone{agent, slot}); break;
            case 4: send_up(n, ItemProgress{agent, own, item, std::nan("")}); break;
            case 5: send_up(n, AgentHeard{static_cast<int>(nodes_.size()) - 1}); break;
            default:
                send_up(n, ItemDone{agent, own, static_cast<ItemIndex>(s_.items.size()) + item, 1});
        }
    }

    // ---- what must hold

    /// An item is rendered by one agent, those aside that the coordinator gave up.
    void check_alone(std::uint32_t n, ItemIndex item) {
        const bool given_up = lost_lives_.count({static_cast<int>(n), nodes_[n].life}) > 0;
        for (const auto& [agent, life] : renders_[item])
            if (!given_up && lost_lives_.count({agent, life}) == 0 && agent != static_cast<int>(n))
                broken(fmt::format("item {} is rendered by live agents {} and {}", item, agent, n));
        renders_[item].insert({static_cast<int>(n), nodes_[n].life});
    }

    void check_end(Outcome outcome) {
        const Ledger& ledger = coordinator_->ledger();
        for (ItemIndex i = 0; i < s_.items.size(); ++i) {
            const bool done = ledger.item(i).state == ItemState::done;
            if (done) {
                ++report_.done;
                if (done_records_[i] != 1)
                    broken(
                        fmt::format("item {} has {} records of being done", i, done_records_[i]));
            } else if (ledger.item(i).state == ItemState::quarantined) {
                ++report_.quarantined;
                check_quarantined(i);
            } else {
                broken(fmt::format("item {} was left open", i));
            }
        }
        if ((outcome == Outcome::complete) != (report_.quarantined == 0))
            broken("the outcome is not what the items say");
    }

    /// Reads the whole journal as a person would: what is said against a quarantined item must
    /// suffice, and must have happened.
    void check_quarantined(ItemIndex index) {
        using Kind = SimItem::Kind;
        const Kind kind = s_.items[index].kind;
        if ((kind != Kind::good && kind != Kind::large) || s_.items[index].gpus > most_gpus())
            return;
        std::vector<std::string> failures;
        int losses = 0;
        std::size_t told = 0;
        for (const Record& record : journal_) {
            if (record.what == Record::What::drained) std::erase(failures, record.host);
            if (record.item != index) continue;
            if (record.what == Record::What::released && record.kind == FailureKind::lost) ++losses;
            if (record.what != Record::What::failed) continue;
            ++told;
            if (record.kind != FailureKind::disk && record.kind != FailureKind::out_of_memory)
                failures.push_back(record.host);
        }
        if (told > inflicted_[index])
            broken(fmt::format("item {} has {} failures in the journal, {} in truth", index, told,
                               inflicted_[index]));
        const std::set<std::string> hosts(failures.begin(), failures.end());
        const bool enough = (s_.options.other_host && hosts.size() >= 2) ||
                            static_cast<int>(failures.size()) >= s_.options.attempts ||
                            losses >= 2 * s_.options.attempts;
        if (!enough)
            broken(
                fmt::format("good item {} is quarantined after {} failures on {} hosts, {} losses",
                            index, failures.size(), hosts.size(), losses));
    }

    int most_gpus() const {
        int most = 0;
        for (const SimNode& node : s_.nodes) most = std::max(most, node.gpus);
        return most;
    }

    void measure() {
        double gpus = 0;
        double idle = 0;
        double speed = 0;
        for (std::size_t n = 0; n < nodes_.size(); ++n) {
            speed += s_.nodes[n].speed * s_.nodes[n].gpus;
            for (const SimSlot& slot : nodes_[n].slots) {
                gpus += slot.gpus;
                idle += slot.gpus * (report_.makespan - slot.last_end);
            }
        }
        double work = 0;
        for (const SimItem& item : s_.items) work += item.seconds * item.gpus;
        if (report_.makespan > 0) {
            report_.tail_idle = idle / (gpus * report_.makespan);
            report_.efficiency = work / (speed * report_.makespan);
            report_.idle_bound = 1 - work / (speed * report_.lower_bound);
        }
    }

    // ---- the clock

    void step() {
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

    void tell_of_open() {
        for (ItemIndex i = 0; i < s_.items.size() && report_.broken.size() < most_broken; ++i) {
            if (coordinator_->ledger().item(i).state != ItemState::open) continue;
            const auto holder = holder_.find(i);
            broken(fmt::format(
                "no end: item {} is open, {}", i,
                holder == holder_.end()
                    ? "nobody's"
                    : fmt::format("leased to {}.{}", holder->second.first, holder->second.second)));
        }
        for (const AgentView& agent : coordinator_->snapshot(now_).agents)
            watch(fmt::format("agent {} is {}, {} slots", agent.agent, agent.state, agent.slots));
    }

    void tick() {
        measured([&] { coordinator_->tick(now_); });
    }

    void happen_to_slot(const Happening& next) {
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

    const Scenario& s_;
    std::mt19937_64 random_;
    std::vector<Node> nodes_;
    std::unique_ptr<Coordinator> coordinator_;
    std::priority_queue<Happening> happenings_;
    std::uint64_t turn_ = 0;
    std::uint64_t tokens_ = 1'000'000'000;  // never an attempt's number
    int rounds_ = 0;
    std::uint64_t calls_ = 0;
    double now_ = 0;
    double usual_ = 0;  ///< roughly what the run takes
    double limit_ = 0;
    double useful_ = 0;
    bool over_ = false;
    bool disk_full_ = false;
    int reported_ = 0;  ///< the attempt that has finished last

    std::vector<Record> journal_;
    std::vector<bool> on_disk_;
    std::vector<int> done_records_;
    std::vector<std::size_t> inflicted_;                            ///< failures of each item
    std::vector<std::set<std::pair<int, std::uint64_t>>> renders_;  ///< by (agent, life)
    std::set<std::pair<int, std::uint64_t>> lost_lives_;
    std::unordered_map<int, std::uint64_t> known_life_;  ///< of agents, as the driver knows it
    std::uint64_t joining_life_ = 0;
    std::unordered_map<ItemIndex, std::pair<int, int>> holder_;
    std::map<std::pair<int, int>, int> known_round_;
    std::map<std::pair<std::uint32_t, int>, Ending> ending_;
    SimReport report_;
};

}  // namespace

double lower_bound(const Scenario& scenario) {
    std::vector<double> speeds;
    for (const SimNode& node : scenario.nodes)
        speeds.insert(speeds.end(), static_cast<std::size_t>(node.gpus), node.speed);
    std::vector<double> lengths;
    double work = 0;
    for (const SimItem& item : scenario.items) {
        lengths.push_back(item.seconds * (item.gpus == 1 ? 1 : 0));
        work += item.seconds * item.gpus;
    }
    std::sort(lengths.rbegin(), lengths.rend());
    double bound = work / std::accumulate(speeds.begin(), speeds.end(), 0.0);
    // The k longest items, each at least as long as the k-th: by then, the slots must have had time
    // for k of that length.
    const std::size_t stride = std::max<std::size_t>(1, lengths.size() / 100);
    for (std::size_t k = 1; k <= lengths.size(); k += stride) {
        const double length = lengths[k - 1];
        const auto fits = [&](double end) {
            double count = 0;
            for (const double speed : speeds) count += std::floor(end * speed / length + 1e-9);
            return count >= static_cast<double>(k);
        };
        if (length <= 0 || fits(bound)) continue;
        double low = bound;
        double high = 2 * bound + length / *std::min_element(speeds.begin(), speeds.end()) *
                                      static_cast<double>(k);
        while (high - low > 1e-6 * high) (fits((low + high) / 2) ? high : low) = (low + high) / 2;
        bound = low;
    }
    return bound;
}

SimReport simulate(const Scenario& scenario) { return Simulator(scenario).run(); }

}  // namespace gallop::test
