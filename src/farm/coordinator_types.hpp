#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace gallop::coordinator {

// What the coordinator is told and what it answers. Agents are numbered by the driver (MPI ranks),
// slots by their agent, items by their place in the plan. Times are seconds.

using ItemIndex = std::uint32_t;
inline constexpr ItemIndex no_item = std::numeric_limits<ItemIndex>::max();
inline constexpr int no_agent = -1;
inline constexpr double forever = std::numeric_limits<double>::infinity();

/// Why an item's try ended without a clip.
enum class FailureKind : std::uint8_t {
    error,          ///< the renderer said so; another try may succeed
    input,          ///< the request is wrong; another host, if any, is asked once
    out_of_memory,  ///< climbs the ladder of `CoordinatorOptions::on_oom`
    crash,          ///< the renderer died
    hung,           ///< no heartbeat, or far beyond its predicted time
    bad_output,     ///< NaN, constant, wrong length, undecodable
    disk,           ///< could not be written; no fault of the item's
    lost,           ///< its agent or renderer vanished; only in `released` records
};

/// "out_of_memory" and so on, as in the journal.
std::string_view failure_name(FailureKind kind);
/// Throws Error for a name that is none.
FailureKind failure_kind(std::string_view name);

enum class Order : std::uint8_t { longest_first, manifest, preview };

/// A step of the ladder that an item climbs when memory runs out.
enum class OomStep : std::uint8_t {
    tiled_decode,
    split,  ///< twice the GPUs; skipped where no agent has them
};

/// The run stops once this much of it is quarantined.
struct FailureLimit {
    double value = 0;      ///< 0: never
    bool percent = false;  ///< of all items, but never fewer than five items
};

struct CoordinatorOptions {
    Order order = Order::longest_first;
    double chunk_seconds = 60;  ///< most predicted work a slot holds beyond one item
    int chunk_items = 24;       ///< most items of one lease (a message is under 4 KB)

    int attempts = 3;  ///< failures of an item until it is quarantined
    bool other_host =
        true;  ///< retry elsewhere if there is an elsewhere; two hosts' failures are enough
    std::vector<OomStep> on_oom = {OomStep::tiled_decode, OomStep::split};  ///< then quarantine
    FailureLimit stop_after_failed;

    double silent_seconds = 30;  ///< an agent unheard for so long is lost
    double hung_factor = 10;     ///< an item beyond so many times its predicted seconds …
    double hung_seconds = 600;   ///< … and at least this long is hung
    double suspect_seconds =
        5;  ///< first pause of a host that failed three items in a row; doubles
    double patience_seconds = 600;  ///< without any agent, or with disk errors only: the run stops

    std::uint64_t pause_below = 0;   ///< bytes free on the outputs' disk; 0: never paused
    std::uint64_t resume_above = 0;  ///< bytes; at least pause_below
    double gpu_seconds = forever;    ///< budget of the whole run, earlier attempts included
};

// Events.

/// An agent offers its slots; from one that was here before: it starts anew and holds nothing.
struct AgentJoined {
    int agent;
    std::string host, device;
    int slots;  ///< how many SlotReady to expect
    int gpus;   ///< devices of the node: the largest group it can form (a CPU slot counts as one)
};
struct AgentHeard {
    int agent;
};
struct AgentLeft {
    int agent;
    std::string why;
    bool orderly;  ///< it ended as asked: what it was rendering isn't counted as a try
};
/// A renderer, or a group of `gpus` renderers, waits for items.
struct SlotReady {
    int agent, slot, gpus;
};
/// It is no more; what it held and had begun counts as crashed, the rest goes back.
struct SlotGone {
    int agent, slot;
};
struct ItemStarted {
    int agent, slot;
    ItemIndex item;
};
struct ItemProgress {
    int agent, slot;
    ItemIndex item;
    double fraction;  ///< of the item's work, 0 to 1
};
/// The clip is on disk. With `no_agent`: found there and verified by the driver.
struct ItemDone {
    int agent, slot;
    ItemIndex item;
    double seconds;  ///< that the slot was busy with it; 0: unknown
};
struct ItemFailed {
    int agent, slot;
    ItemIndex item;
    FailureKind kind;
    std::string error;
    int attempt = 0;  ///< of the lease, against a message that comes twice; 0: not known
};
/// The slot gives an item back that it won't render (revoked, or ended by a stop).
struct ItemReturned {
    int agent, slot;
    ItemIndex item;
    bool lost = false;  ///< begun, and lost with its renderer
};
struct DiskFree {
    std::uint64_t bytes;
};
/// The job's remaining wall time (less the reserve): items that wouldn't end in it aren't leased.
struct TimeLeft {
    double seconds;
};
/// End early and resumable: no leases from now on; what can't end in `seconds_left` is given back.
/// A second one with less time shortens it; 0 ends at once.
struct StopAsked {
    std::string why;
    double seconds_left;
};
using Event =
    std::variant<AgentJoined, AgentHeard, AgentLeft, SlotReady, SlotGone, ItemStarted, ItemProgress,
                 ItemDone, ItemFailed, ItemReturned, DiskFree, TimeLeft, StopAsked>;

// Actions, to be carried out in order.

struct LeaseItem {
    ItemIndex item;
    int attempt;        ///< 1 for the first try
    int rung;           ///< steps of the ladder climbed; 0 as planned
    bool tiled_decode;  ///< what the rung says: decode in tiles though the item doesn't ask for it
    int gpus;           ///< the group's size
    float seconds;      ///< predicted on this host, corrected
};
/// Render these, in order; all of one bucket.
struct Lease {
    int agent, slot;
    std::vector<LeaseItem> items;
};
/// Give these back with ItemReturned, each unless it has begun or, with `begun`, even then (the
/// renderer stops it, keeping what is resumable). What crosses with its end is just done.
struct Revoke {
    int agent, slot;
    std::vector<ItemIndex> items;
    bool begun;
};
/// End the slot's renderers, which hang on the item: answer ItemFailed (hung), then SlotGone and
/// SlotReady as it comes back.
struct RestartSlot {
    int agent, slot;
    ItemIndex item;
    std::string why;
};
/// End these idle slots and form as many groups of `gpus` from their GPUs as there can be: SlotGone
/// for each of them, then SlotReady for each new one.
struct Regroup {
    int agent;
    std::vector<int> slots;
    int gpus;
};
/// No more leases for it; it finishes what has begun. StopAgent follows.
struct DrainAgent {
    int agent;
    std::string why;
};
/// It is not among us (taken for lost, or never joined): it ends what it renders and joins anew.
struct ResetAgent {
    int agent;
};
/// It may end: nothing more will come.
struct StopAgent {
    int agent;
};
/// A line for the journal. Those that an event causes are among the actions right after it, so the
/// driver can add what only it knows (the clip's digest, the log's tail).
struct Record {
    enum class What : std::uint8_t {
        joined,       ///< agent host slots text(device)
        leased,       ///< item agent host slot attempt predicted
        done,         ///< item agent host slot attempt seconds predicted; no_agent: adopted
        failed,       ///< item agent host slot attempt kind text(error)
        released,     ///< item agent host slot text(reason); kind `lost` if it had begun there
        quarantined,  ///< item attempt(tries) text(reason)
        drained,      ///< host text(reason): failures there are forgiven
        lost,         ///< agent host text(reason)
        paused,       ///< text(reason)
        resumed,
        retry,     ///< item that is not done: open again, its failures forgotten
        reopened,  ///< item: the same, but its clip is gone or changed
        ended,     ///< text: complete | quarantined | stopped
    };
    What what;
    ItemIndex item = no_item;
    int agent = no_agent;
    int slot = 0;
    int attempt = 0;
    int slots = 0;
    FailureKind kind = FailureKind::error;
    double seconds = 0;
    double predicted = 0;
    std::string host = {};
    std::string text = {};
};
/// "done" and so on, as in the journal.
std::string_view record_name(Record::What what);

/// The disk is nearly full: nothing is leased until ResumeIntake.
struct PauseIntake {
    std::string why;
};
struct ResumeIntake {};
/// An event made no sense (an item that isn't leased, an unknown slot …); for the log.
struct Notice {
    int agent;
    std::string text;
};
enum class Outcome : std::uint8_t {
    complete,     ///< every item is done
    quarantined,  ///< every item is done or quarantined
    stopped,      ///< some are open: resumable
};
/// The last action. What comes later is ignored.
struct Finished {
    Outcome outcome;
    std::string why;        ///< of a stop
    bool at_limit = false;  ///< a stop at a limit, which another attempt would meet, too
};
using Action = std::variant<Lease, Revoke, RestartSlot, Regroup, DrainAgent, ResetAgent, StopAgent,
                            Record, PauseIntake, ResumeIntake, Notice, Finished>;

// What there is to see.

struct SlotView {
    int agent, slot, gpus;
    ItemIndex item;   ///< the last begun; no_item while idle
    double fraction;  ///< of it
    double seconds;   ///< since it began
    int held;         ///< items leased to it
};
struct AgentView {
    int agent;
    std::string host, device;
    std::string_view state;  ///< working | suspect | draining | stopped | lost
    int slots;
    std::uint64_t done, failed;
    double last_heard;  ///< seconds ago
};
struct Snapshot {
    std::string_view state;  ///< running | paused | stopping | finished
    std::string why;         ///< of a pause or a stop
    std::uint64_t items = 0, done = 0, quarantined = 0, leased = 0, open = 0;  ///< open: not leased
    std::uint64_t rendered_here = 0;       ///< done by this coordinator's agents
    std::uint64_t retried = 0;             ///< tries beyond an item's first, here
    double cost_done = 0, cost_total = 0;  ///< planned seconds
    double seconds_left = 0;               ///< estimated; forever while nobody works
    std::vector<AgentView> agents;
    std::vector<SlotView> slots;
};

}  // namespace gallop::coordinator
