#include "farm/renderer.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/device_error.hpp"
#include "core/files.hpp"
#include "core/handle.hpp"
#include "core/log.hpp"
#include "farm/messages.hpp"
#include "farm/render_item.hpp"

namespace gallop {
namespace {

using Clock = std::chrono::steady_clock;

/// Thrown out of a stage when the agent wants the item back. No error: nobody catches it but
/// `render`.
struct Abandoned {};

constexpr int lost_agent = 74;  // exit code, for the agent's log only; also where it talks nonsense

/// The main thread renders; the other one talks, so that a heartbeat never waits for a stage.
class RendererProcessLoop {
public:
    explicit RendererProcessLoop(const RendererOptions& options)
        : options_(options), talker_([this] { talk(); }) {}

    ~RendererProcessLoop() {
        leaving_ = true;
        ::eventfd_write(wake_.get(), 1);
        talker_.join();
    }

    int run(const MakeEngine& make_engine) {
        try {
            config_ = read_run_config(options_.directory);
            engine_ = make_engine(config_, options_.seat);
        } catch (...) {
            const Failure failure = failure_to_begin(std::current_exception());
            log_error("cannot begin: {}", failure.error);
            say(message::Broken{failure.kind, failure.error});
            return device_lost_status;
        }
        say(message::Ready{options_.slot, 0, options_.seat.size, engine_.device});
        int status = 0;
        while (const auto task = next())
            if (!render(*task)) {
                status = device_lost_status;
                break;
            }
        wait_for_files();
        return status;
    }

private:
    void say(const message::Message& message) {
        const std::string text = message::to_text(message);
        while (::send(options_.descriptor, text.data(), text.size(), MSG_NOSIGNAL) < 0)
            if (errno != EINTR) ::_exit(lost_agent);
    }

    std::optional<message::Task> next() {
        std::unique_lock lock(mutex_);
        asked_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
        if (stop_) return {};
        const message::Task task = tasks_.front();
        tasks_.pop_front();
        current_ = task.item;
        abandon_ = std::exchange(wanted_back_, {}) == task.item;
        return task;
    }

    /// False when the process had better be replaced.
    bool render(const message::Task& task) {
        const LogScope scope("item", task.id);
        bool sound = true;
        try {
            PlannedItem planned =
                read_planned_item(options_.directory, config_, task.offset, task.bytes);
            planned.item.tiled_decode = planned.item.tiled_decode || task.tiled;
            if (planned.item.id != task.id)
                throw Error(fmt::format("line {}+{} of the plan is item {} ({} wanted)",
                                        task.offset, task.bytes, planned.item.id, task.id));
            log_info("begins name=\"{}\" try={}", planned.item.name, task.attempt);
            render(task, planned);
        } catch (const Abandoned&) {
            log_info("given back");
            say(message::Returned{options_.slot, {task.item}, false});
        } catch (...) {
            const Failure failure = failure_of(std::current_exception());
            // Memory that ran out is in pieces afterwards, and a lost device stays lost.
            sound =
                failure.kind != FailureKind::crash && failure.kind != FailureKind::out_of_memory;
            if (!sound) wait_for_files();  // or they would end with this process
            failed(task, failure);
        }
        const std::lock_guard lock(mutex_);
        progress_ = {};
        return sound;
    }

    void render(const message::Task& task, const PlannedItem& planned) {
        const RenderTask work{planned.item, planned.resolved, config_.model, config_.outputs,
                              options_.directory};
        message::Done done{options_.slot, task.item, task.id, task.attempt, {}, {}, {}, false};
        if (const std::optional<RenderedItem> found = adopt_item(work)) {
            done.adopted = true;
            return say_done(std::move(done), *found);
        }
        refuse_refined(planned.resolved);
        done.tiled = task.tiled;
        done.gpus = options_.seat.size;
        if (options_.seat.rank > 0) {
            // The files are the leader's; the others only share its networks.
            engine_.stages.denoise(planned.item, load_inputs(work), sink());
            return say_done(std::move(done), {});
        }
        const auto begin = Clock::now();
        UnfinishedItem item = begin_item(work, engine_.stages, sink());
        wait_for_files();  // of the item before
        const std::chrono::duration<double> held = Clock::now() - begin;
        say(message::Finishing{task.item});
        files_ = std::async(std::launch::async,
                            [this, task, done = std::move(done), item = std::move(item),
                             held = held.count(), tiled = planned.item.tiled_decode]() mutable {
                                const LogScope scope("item", task.id);
                                try {
                                    RenderedItem made = item.finish();
                                    made.seconds.stages.emplace_back("total", held);
                                    if (!tiled) done.strips = static_cast<int>(made.seconds.strips);
                                    say_done(std::move(done), made);
                                } catch (...) {
                                    failed(task, failure_of(std::current_exception()));
                                }
                            });
    }

    /// Of the item before, whose end is said then.
    void wait_for_files() {
        if (files_.valid()) files_.get();
    }

    void say_done(message::Done done, const RenderedItem& made) {
        log_info("{} seconds={:.1f}", made.adopted ? "adopted" : "rendered",
                 made.seconds.stages.empty() ? 0.0 : made.seconds.stages.back().second);
        for (const auto& [stage, use] : made.seconds.memory)
            log_info("memory stage=\"{}\" peak_megabytes={} foretold={} block_used={} asked={}",
                     stage, use.peak >> 20, use.foretold >> 20, use.extent >> 20, use.asked);
        done.clip = made.clip;
        done.latents = made.latents;
        done.seconds = made.seconds;
        say(done);
    }

    void failed(const message::Task& task, const Failure& failure) {
        log_error("{}: {}", name_of(failure.kind), failure.error);
        say(message::Failed{options_.slot, task.item, task.id, task.attempt, failure.kind,
                            failure.error, ""});
    }

    ProgressSink sink() {
        return [this](const Progress& step) {
            if (abandon_) throw Abandoned{};
            const std::lock_guard lock(mutex_);
            ++ticks_;
            progress_ = step;
        };
    }

    void talk() {
        using std::chrono::milliseconds;
        auto next_beat = Clock::now();
        while (!leaving_) {
            const auto now = Clock::now();
            if (now >= next_beat) {
                beat();
                next_beat = now + milliseconds(static_cast<int>(options_.beat_seconds * 1000));
            }
            const auto patience = std::chrono::ceil<milliseconds>(next_beat - now);
            pollfd ends[] = {{options_.descriptor, POLLIN, 0}, {wake_.get(), POLLIN, 0}};
            if (::poll(ends, 2, static_cast<int>(patience.count())) > 0 && ends[0].revents != 0)
                listen();
        }
    }

    void beat() {
        message::Pulse pulse;
        {
            const std::lock_guard lock(mutex_);
            pulse = {ticks_, progress_.stage, progress_.step, progress_.steps};
        }
        say(pulse);
    }

    void listen() {
        char text[message::most_bytes + 1];
        const ::ssize_t got =
            ::recv(options_.descriptor, text, sizeof text, MSG_DONTWAIT | MSG_TRUNC);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got <= 0) ::_exit(lost_agent);
        try {
            const auto bytes = static_cast<std::size_t>(got);
            if (bytes >= sizeof text) throw Error("a message that is too long");
            obey(message::parse({text, bytes}));
        } catch (const Error& nonsense) {
            log_error("the agent talks nonsense: {}", nonsense.what());
            ::_exit(lost_agent);
        }
    }

    void obey(const message::Message& message) {
        const std::lock_guard lock(mutex_);
        if (const auto* lease = std::get_if<message::Lease>(&message)) {
            tasks_.insert(tasks_.end(), lease->items.begin(), lease->items.end());
        } else if (const auto* revoke = std::get_if<message::Revoke>(&message)) {
            for (const std::uint32_t item : revoke->items) {
                // It may not have been taken up yet.
                if (!tasks_.empty() && tasks_.back().item == item)
                    wanted_back_ = item;
                else if (item == current_)
                    abandon_ = true;
            }
        } else if (std::holds_alternative<message::Stop>(message)) {
            stop_ = true;
        } else {
            throw Error("a message that is not for renderers");
        }
        asked_.notify_one();
    }

    const RendererOptions& options_;
    RunConfig config_;
    Engine engine_;
    std::future<void> files_;  ///< of the item that the device is done with
    std::mutex mutex_;         // guards what follows up to the thread
    std::condition_variable asked_;
    std::deque<message::Task> tasks_;
    std::uint32_t current_ = 0;
    std::optional<std::uint32_t> wanted_back_;
    bool stop_ = false;
    std::uint64_t ticks_ = 0;
    Progress progress_;
    std::atomic<bool> abandon_{false};
    std::atomic<bool> leaving_{false};
    Handle<int, detail::close_descriptor, -1> wake_{::eventfd(0, EFD_CLOEXEC)};  // of the talker
    std::thread talker_;  // last: it uses all of the above
};

/// When memory runs out the kernel shall end this process, not its agent.
void offer_to_oom_killer() {
    if (std::FILE* score = std::fopen("/proc/self/oom_score_adj", "w")) {
        std::fputs("500\n", score);
        std::fclose(score);
    }
}

}  // namespace

int run_renderer(const RendererOptions& options, const MakeEngine& make_engine) {
    sigset_t asked;
    ::sigemptyset(&asked);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP})
        ::sigaddset(&asked, signal);
    ::pthread_sigmask(SIG_BLOCK, &asked, nullptr);
    offer_to_oom_killer();
    return RendererProcessLoop(options).run(make_engine);
}

}  // namespace gallop
