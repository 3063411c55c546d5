#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/types.h>

#include "farm/messages.hpp"
#include "farm/renderer_process.hpp"

namespace gallop {

/// How an agent starts its renderers, and how long it bears with them.
struct RendererPolicy {
    std::filesystem::path directory;     ///< of the run, absolute
    std::string log_name;                ///< of renderers, in logs/: "renderer-HOST-RANK"
    std::vector<std::string> arguments;  ///< of the program, before ours
    /// What each renderer owns: a value for CUDA_VISIBLE_DEVICES, or "" on a CPU.
    std::vector<std::string> devices;
    double silent_seconds = 30;     ///< without a heartbeat
    double start_seconds = 1800;    ///< until it is ready
    double stalled_seconds = 1800;  ///< without a step, or three times the item's predicted seconds
    double abandon_seconds = 10;    ///< to give an item back
    int bad_starts = 5;             ///< in a row, then no more
};

/// A renderer, or the group of renderers that share items: processes that are started, fed, watched,
/// ended and started again together. They get the next item once the devices are done with one. What happens is said to the coordinator. Times: seconds since
/// any moment.
class RendererSlot {
public:
    using Say = std::function<void(const message::Message&)>;

    /// `devices`: indices into the policy's. Nothing is started before the first `step`.
    RendererSlot(const RendererPolicy& policy, int number, std::vector<std::size_t> devices,
                 Say say);
    RendererSlot(const RendererSlot&) = delete;
    RendererSlot& operator=(const RendererSlot&) = delete;
    ~RendererSlot();

    int number() const { return number_; }
    const std::vector<std::size_t>& devices() const { return devices_; }
    /// It was given up: it could not be started again and again, or the first time found the request
    /// wrong.
    bool gone_for_good() const { return gone_for_good_; }
    /// Why it was last not there.
    const Failure& trouble() const { return trouble_; }

    /// It would begin an item at once.
    bool idle() const { return announced_ && !work_ && queue_.empty(); }

    void lease(const message::Lease& lease, double now);
    void revoke(const message::Revoke& revoke, double now);
    void restart(const message::Restart& restart, double now);

    /// Reads what the processes say, notices those that are gone or hang, starts new ones. True
    /// when something happened.
    bool step(double now);
    /// Descriptors whose readiness calls for a `step`.
    void add_descriptors(std::vector<pollfd>& all) const;
    std::optional<message::SlotProgress> progress(double now) const;

    /// Asks the processes to end; `close` ends those that have not.
    void ask_to_stop();
    bool stopped() const;
    void close();
    /// Ends everything, says that the slot is gone, and stays down.
    void dissolve(double now);

private:
    struct Member {
        std::unique_ptr<RendererProcess> process;
        bool ready = false;
        bool finished = false;  ///< with the item
        bool ended = false;     ///< after being asked to stop
        double heard = 0;
        double ticked = 0;
        std::uint64_t ticks = 0;
    };
    struct Work {
        message::Task task;
        double since = 0;
        std::optional<double> revoked;
        std::optional<double> finishing;    ///< since when the leader's device is done with it
        std::optional<message::Done> done;  ///< as the leader said it
        message::Pulse pulse;               ///< of the leader
    };

    bool up() const { return !members_.empty(); }
    void start(double now);
    bool read(std::size_t member, double now);
    void on(std::size_t member, const message::Message& message, double now);
    void on_ready(std::size_t member, const message::Ready& ready);
    void on_finishing(std::size_t member, const message::Finishing& finishing, double now);
    void on_done(std::size_t member, const message::Done& done, double now);
    void on_failed(std::size_t member, const message::Failed& failed, double now);
    void advance(double now);
    void say_done(const Work& work, message::Done done);
    void watch(double now);
    void feed(double now);
    void fail(const Work& work, const Failure& failure);
    void break_down(const Failure& failure, double now, const Work* guilty = nullptr);
    void fall(const Failure& failure, double now);
    void take_down();
    std::string log_path() const;
    std::string blame(std::size_t member, const std::string& text) const;
    RendererCommand command(std::size_t member) const;

    const RendererPolicy& policy_;
    int number_;
    std::vector<std::size_t> devices_;
    Say say_;
    std::vector<Member> members_;
    std::filesystem::path rendezvous_;
    bool announced_ = false;  ///< the coordinator was told that it is ready
    int round_ = 0;
    std::deque<message::Task> queue_;
    std::optional<Work> work_;  ///< what the devices are at
    std::optional<Work>
        finishing_;  ///< what they are done with, while the leader finishes its files
    double start_at_ = 0;
    double started_ = 0;
    int falls_ = 0;       ///< since an item was done
    int bad_starts_ = 0;  ///< since it was ready
    bool gone_for_good_ = false;
    Failure trouble_;
};

}  // namespace gallop
