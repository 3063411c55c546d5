#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "farm/link.hpp"
#include "farm/renderer_slot.hpp"
#include "farm/silence.hpp"

namespace gallop {

struct AgentOptions {
    RendererPolicy renderers;
    std::string device = "cpu";  ///< what its renderers use, in a word
    int gpus_per_slot = 1;       ///< at first; the coordinator may ask for others
    double beat_seconds = 0.5;
    /// Without a word of the coordinator, then it leaves. Longer than a supervisor bears with a silent
    /// rank 0 (120 s), whose successor finds everybody gone otherwise.
    double lonely_seconds = 180;
    double stop_seconds = 2;  ///< for idle renderers to end by themselves
};

/// A rank's part of a run: it owns the renderers of its machine (its share of them) and does what the
/// coordinator says. It hands on what happens and decides nothing about items.
class Agent {
public:
    using Say = std::function<void(const message::Message&)>;

    Agent(AgentOptions options, Say say);

    /// Joins the run.
    void begin(double now);
    /// A message of the coordinator. Throws Error when it makes no sense.
    void handle(const message::Message& message, double now);
    /// Whatever is due. True when something happened.
    bool step(double now);
    void add_descriptors(std::vector<pollfd>& all) const;
    /// A slot would begin an item at once, though it may still finish the files of one.
    bool idle(int slot) const;
    /// It has left: nothing more will come of it.
    bool finished() const { return finished_; }
    /// Why it left, if not because it was asked.
    const Failure& trouble() const { return trouble_; }

private:
    void form_slots();
    void regroup(const message::Regroup& wanted, double now);
    void reset(double now);
    void leave(const std::string& why, double now);
    void beat(double now);
    RendererSlot* find(int number) const;
    void add_slot(int number, std::vector<std::size_t> devices);

    AgentOptions options_;
    Say say_;
    std::vector<std::unique_ptr<RendererSlot>> slots_;
    int next_number_ = 0;
    Silence silence_{0};  ///< the coordinator's
    double next_beat_ = 0;
    double stopping_until_ = 0;  ///< 0: not stopping
    std::string leaving_because_;
    bool finished_ = false;
    Failure trouble_;
};

/// Numbers, as CUDA counts them, of the devices that the driver shows as /dev/nvidia0, /dev/nvidia3, …: from 0
/// on, whatever theirs are, for a container may be given any. An agent never starts CUDA itself.
std::vector<std::string> devices_in(const std::filesystem::path& folder);

/// What the renderers of this rank own, one entry each: on CUDA the visible devices (those that
/// CUDA_VISIBLE_DEVICES names, else all that the driver shows) shared out among the ranks of this
/// machine; on a CPU `slots` (0: one) empty names. Throws InputError when there is no device, or
/// `slots` is more than there are.
std::vector<std::string> devices_of_rank(const std::string& backend, int slots, LocalPlace place);

}  // namespace gallop
