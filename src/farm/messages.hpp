#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "farm/failure.hpp"
#include "farm/render_item.hpp"

/// What the processes of a run say to one another: renderer ↔ agent over a socket pair, agent ↔
/// coordinator over the link. Each message is one JSON object with `"v"` and `"kind"`, at most
/// `most_message_bytes` long. Every field is required unless it is optional here, none may be added.
namespace gallop::message {

inline constexpr int version = 1;

/// Below the size that MPI sends without waiting for the receiver.
inline constexpr std::size_t most_bytes = 4000;

/// An item as a renderer finds it: it reads the rest from the plan.
struct Task {
    std::uint32_t item = 0;    ///< its number in the plan
    std::uint64_t offset = 0;  ///< of its line in items.lock.jsonl; likewise the next
    std::uint32_t bytes = 0;
    std::string id;
    int attempt = 1;     ///< 1: the first try
    double seconds = 0;  ///< that it should take
    bool tiled = false;  ///< decode in tiles though the item doesn't ask for it: memory ran out

    static void fields(auto& self, auto& visit) {
        visit("item", self.item);
        visit("offset", self.offset);
        visit("bytes", self.bytes);
        visit("id", self.id);
        visit("try", self.attempt);
        visit("seconds", self.seconds);
        visit("tiled", self.tiled);
    }
    bool operator==(const Task&) const = default;
};

/// How far a slot is with its item.
struct SlotProgress {
    int slot = 0;
    std::uint32_t item = 0;
    std::string stage;
    int step = 0;
    int steps = 0;
    double seconds = 0;  ///< since the item began

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("item", self.item);
        visit("stage", self.stage);
        visit("step", self.step);
        visit("steps", self.steps);
        visit("seconds", self.seconds);
    }
};

// From the coordinator.

/// Where the run is: the first message to an agent of another rank.
struct Begin {
    static constexpr std::string_view kind = "begin";
    std::string directory;

    static void fields(auto& self, auto& visit) { visit("directory", self.directory); }
};

/// Items for a slot, in order; also from an agent to its renderer, one at a time.
struct Lease {
    static constexpr std::string_view kind = "lease";
    int slot = 0;
    int round =
        0;  ///< of the slot's `Ready` that this answers; the lease of an earlier one is void
    std::vector<Task> items;

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("round", self.round);
        visit("items", self.items);
    }
};

/// Items that a slot shall give back, the begun one only with `begun`; that one also from an agent
/// to its renderer.
struct Revoke {
    static constexpr std::string_view kind = "revoke";
    int slot = 0;
    std::vector<std::uint32_t> items;
    bool begun = false;

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("items", self.items);
        visit("begun", self.begun);
    }
};

/// End the slot's renderers, which hang on the item.
struct Restart {
    static constexpr std::string_view kind = "restart";
    int slot = 0;
    std::uint32_t item = 0;
    std::string why;

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("item", self.item);
        visit("why", self.why);
    }
};

/// End these slots and form as many groups of `gpus` from their devices as there can be.
struct Regroup {
    static constexpr std::string_view kind = "regroup";
    std::vector<std::uint32_t> slots;
    int gpus = 1;

    static void fields(auto& self, auto& visit) {
        visit("slots", self.slots);
        visit("gpus", self.gpus);
    }
};

/// The agent was given up: it ends what it renders and joins anew.
struct Reset {
    static constexpr std::string_view kind = "reset";
    static void fields(auto& /*self*/, auto& /*visit*/) {}
};

/// End. Also from an agent to its renderers.
struct Stop {
    static constexpr std::string_view kind = "stop";
    static void fields(auto& /*self*/, auto& /*visit*/) {}
};

/// The coordinator is there.
struct Ping {
    static constexpr std::string_view kind = "ping";
    static void fields(auto& /*self*/, auto& /*visit*/) {}
};

/// The last message: everybody has left, or is gone.
struct Goodbye {
    static constexpr std::string_view kind = "goodbye";
    bool all_well = true;  ///< nobody is gone

    static void fields(auto& self, auto& visit) { visit("all_well", self.all_well); }
};

// From an agent.

/// An agent is there; it holds nothing.
struct Join {
    static constexpr std::string_view kind = "join";
    std::string host;
    std::int64_t pid = 0;
    std::string device;
    int slots = 0;
    int gpus = 1;  ///< of all slots together: the largest group it can form
    int numerics = 0;

    static void fields(auto& self, auto& visit) {
        visit("host", self.host);
        visit("pid", self.pid);
        visit("device", self.device);
        visit("slots", self.slots);
        visit("gpus", self.gpus);
        visit("numerics", self.numerics);
    }
};

/// An agent lives; how far its slots are, some of them if they are many.
struct Beat {
    static constexpr std::string_view kind = "beat";
    std::vector<SlotProgress> slots;

    static void fields(auto& self, auto& visit) { visit("slots", self.slots); }
};

/// A slot can take items.
struct Ready {
    static constexpr std::string_view kind = "ready";
    int slot = 0;
    int round = 0;  ///< grows each time that the slot comes back
    int gpus = 1;
    std::string device;

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("round", self.round);
        visit("gpus", self.gpus);
        visit("device", self.device);
    }
};

/// A slot cannot, for now or for good. What it held was given back or has failed before.
struct Gone {
    static constexpr std::string_view kind = "gone";
    int slot = 0;
    bool for_good = false;
    FailureKind why = FailureKind::crash;
    std::string error;

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("for_good", self.for_good);
        visit("why", self.why);
        visit("error", self.error);
    }
};

/// A slot has begun an item.
struct Begun {
    static constexpr std::string_view kind = "begun";
    int slot = 0;
    std::uint32_t item = 0;

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("item", self.item);
    }
};

/// An item is finished and on disk; from the renderer, and passed on by the agent.
struct Done {
    static constexpr std::string_view kind = "done";
    int slot = 0;
    std::uint32_t item = 0;
    std::string id;
    int attempt = 1;
    OutputFile clip;
    std::optional<OutputFile> latents;
    StageSeconds seconds;
    bool adopted = false;
    bool tiled = false;  ///< as in its Task
    int strips = 0;      ///< that an item not tiled was decoded in: several when memory is short
    int gpus = 0;        ///< that shared it; 0: unknown, for it was adopted

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("item", self.item);
        visit("id", self.id);
        visit("try", self.attempt);
        visit("clip", self.clip);
        visit("latents", self.latents);
        visit("seconds", self.seconds);
        visit("adopted", self.adopted);
        visit("tiled", self.tiled);
        visit("strips", self.strips);
        visit("gpus", self.gpus);
    }
};

/// A try has failed; from the renderer, or from the agent in its place.
struct Failed {
    static constexpr std::string_view kind = "failed";
    int slot = 0;
    std::uint32_t item = 0;
    std::string id;
    int attempt = 1;
    FailureKind why = FailureKind::error;
    std::string error;
    std::string log;  ///< of the renderer, in the run directory

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("item", self.item);
        visit("id", self.id);
        visit("try", self.attempt);
        visit("why", self.why);
        visit("error", self.error);
        visit("log", self.log);
    }
};

/// Items given back untried or unfinished; from the renderer (its one), or from the agent.
struct Returned {
    static constexpr std::string_view kind = "returned";
    int slot = 0;
    std::vector<std::uint32_t> items;
    bool lost = false;  ///< begun, and lost with the renderer, which ended over another item

    static void fields(auto& self, auto& visit) {
        visit("slot", self.slot);
        visit("items", self.items);
        visit("lost", self.lost);
    }
};

/// The agent's last message but for its going.
struct Leaving {
    static constexpr std::string_view kind = "leaving";
    std::string why;

    static void fields(auto& self, auto& visit) { visit("why", self.why); }
};

// From a renderer alone.

/// It lives. `ticks` grows with every step of its work.
struct Pulse {
    static constexpr std::string_view kind = "pulse";
    std::uint64_t ticks = 0;
    std::string stage;
    int step = 0;
    int steps = 0;

    static void fields(auto& self, auto& visit) {
        visit("ticks", self.ticks);
        visit("stage", self.stage);
        visit("step", self.step);
        visit("steps", self.steps);
    }
};

/// The networks are done with an item: they may have the next one while its files are finished.
struct Finishing {
    static constexpr std::string_view kind = "finishing";
    std::uint32_t item = 0;

    static void fields(auto& self, auto& visit) { visit("item", self.item); }
};

/// It cannot begin at all.
struct Broken {
    static constexpr std::string_view kind = "broken";
    FailureKind why = FailureKind::error;
    std::string error;

    static void fields(auto& self, auto& visit) {
        visit("why", self.why);
        visit("error", self.error);
    }
};

using Message =
    std::variant<Begin, Lease, Revoke, Restart, Regroup, Reset, Stop, Ping, Goodbye, Join, Beat,
                 Ready, Gone, Begun, Done, Failed, Returned, Leaving, Pulse, Finishing, Broken>;

/// One line of JSON without a newline. Throws Error when it is longer than `most_bytes`.
std::string to_text(const Message& message);

/// The message in a text. Throws Error, saying what is wrong, for anything that `to_text` could not
/// have made.
Message parse(std::string_view text);

/// Items cut into as many leases as keep each below `most_bytes`.
std::vector<Lease> leases(int slot, int round, const std::vector<Task>& items);

}  // namespace gallop::message
