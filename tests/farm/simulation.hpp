#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include "farm/coordinator.hpp"
#include "tests/farm/simulator.hpp"

namespace gallop::test::simulation {

using namespace coordinator;

constexpr std::size_t most_broken = 5;  ///< invariants told of one run

struct Task {
    LeaseItem lease;
    double begun = 0;
};

/// Of this thread: the machine may be busy with other things.
double cpu_seconds();

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

/// One run; see `simulate`.
class Simulator {
public:
    explicit Simulator(const Scenario& scenario);
    SimReport run();

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

    // simulator.cpp: the clock, attempts, the coordinator and its driver.
    void step();
    void happen_to_slot(const Happening& next);
    void begin_attempt();
    /// Everything dies; the journal loses its tail.
    void crash_all();
    /// One call in so many is timed, for the clock costs as much as the call.
    template <class Call>
    void measured(Call&& call) {
        constexpr int stride = 17;
        if (++calls_ % stride != 0) return call();
        const double begin = cpu_seconds();
        call();
        report_.coordinator_seconds += stride * (cpu_seconds() - begin);
    }
    void tick() {
        measured([&] { coordinator_->tick(now_); });
    }
    void tell(const Event& event);
    void act();
    void carry_out(Lease& lease);
    void carry_out(Revoke& one) { send_down(one.agent, one, 0); }
    void carry_out(RestartSlot& one) { send_down(one.agent, one, 0); }
    void carry_out(Regroup& one) { send_down(one.agent, one, 0); }
    void carry_out(DrainAgent& one) { (void)one; }
    void carry_out(ResetAgent& one) { send_down(one.agent, one, 0); }
    void carry_out(StopAgent& one) { send_down(one.agent, one, 0); }
    void carry_out(PauseIntake&) {}
    void carry_out(ResumeIntake&) {}
    void carry_out(Notice&) {}
    void carry_out(Record& record);
    void carry_out(Finished& finished);
    void forget_holder(int agent);
    /// As the driver sees it: who holds what, by messages alone.
    void note(const Event& event);

    // simulator_agents.cpp: messages, an agent and its renderers.
    double delay() { return s_.longest_delay * uniform(); }
    void send_up(std::uint32_t n, Event event, int round = 0);
    void send_down(int agent, Action action, int round);
    void deliver_up(std::uint32_t n);
    void deliver_down(std::uint32_t n);
    void join(std::uint32_t n);
    std::uint64_t token_for(SimSlot& slot) { return slot.token = ++tokens_; }
    SimSlot* find(std::uint32_t n, int number);
    void begin_next(std::uint32_t n, SimSlot& slot);

    enum class Ending : std::uint8_t { done, error, input, out_of_memory, crash, hang, node_loss };
    /// What becomes of a try, and when.
    Ending ending(std::uint32_t n, const SimItem& item, const LeaseItem& lease, double& seconds);
    void end_item(std::uint32_t n, SimSlot& slot);
    void fail(std::uint32_t n, SimSlot& slot, FailureKind kind);
    void end_slot(std::uint32_t n, SimSlot& slot, bool comes_back);
    void give_back(std::uint32_t n, const Revoke& revoke);
    void form_groups(std::uint32_t n, const Regroup& order);
    void drop_renders(std::uint32_t n);
    void lose_node(std::uint32_t n);
    void speak_nonsense(std::uint32_t n);

    // simulator_checks.cpp: what must hold, and how well it went.
    /// An item is rendered by one agent, those aside that the coordinator gave up.
    void check_alone(std::uint32_t n, ItemIndex item);
    void check_end(Outcome outcome);
    /// Reads the whole journal as a person would: what is said against a quarantined item must
    /// suffice, and must have happened.
    void check_quarantined(ItemIndex index);
    int most_gpus() const;
    void tell_of_open();
    void measure();

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

}  // namespace gallop::test::simulation
