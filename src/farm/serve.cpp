#include "farm/serve.hpp"

#include <algorithm>
#include <chrono>
#include <future>
#include <limits>
#include <set>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/files.hpp"
#include "core/handle.hpp"
#include "core/log.hpp"
#include "farm/driver.hpp"
#include "farm/index.hpp"
#include "farm/report.hpp"
#include "farm/resume.hpp"
#include "farm/run_directory.hpp"
#include "farm/silence.hpp"
#include "farm/time_text.hpp"

namespace gallop {
namespace {

namespace fs = std::filesystem;

/// How long the end waits for ranks to leave, beyond what their renderers may take.
constexpr double leave_seconds = 5;
constexpr std::size_t quick_report_items = 100'000;  // whose report takes no more than seconds

/// Sleeps until something is likely to be there: a renderer's message, a signal, or, on a link that
/// wakes nobody, a while that doubles from 0.2 ms to `longest` seconds as long as nothing comes.
class Waiter {
public:
    Waiter(bool polling, int wake, double longest = 5e-3)
        : polling_(polling), wake_(wake), longest_(longest) {}

    /// `happened`: something was there this time, and may have left something to do.
    void wait(bool happened, const Agent* agent) {
        if (happened) {
            pause_ = shortest;
            return;
        }
        pause_ = polling_ ? std::min(2 * pause_, longest_) : idle;
        descriptors_.assign(1, {wake_, POLLIN, 0});
        if (agent != nullptr) agent->add_descriptors(descriptors_);
        const timespec patience{0, static_cast<long>(pause_ * 1e9)};
        if (::ppoll(descriptors_.data(), descriptors_.size(), &patience, nullptr) > 0 &&
            (descriptors_[0].revents & POLLIN) != 0) {
            std::uint64_t signals = 0;
            [[maybe_unused]] const auto got = ::read(wake_, &signals, sizeof signals);
        }
    }

private:
    static constexpr double shortest = 200e-6;
    static constexpr double idle = 50e-3;
    bool polling_;
    int wake_;
    double longest_;
    double pause_ = shortest;
    std::vector<pollfd> descriptors_;
};

/// Whom a message is for: an agent, or the coordinator.
bool for_agent(const message::Message& message) {
    return std::holds_alternative<message::Lease>(message) ||
           std::holds_alternative<message::Revoke>(message) ||
           std::holds_alternative<message::Restart>(message) ||
           std::holds_alternative<message::Regroup>(message) ||
           std::holds_alternative<message::Reset>(message) ||
           std::holds_alternative<message::Stop>(message) ||
           std::holds_alternative<message::Ping>(message);
}

/// Fills in what the run says: where it is, and how many devices share an item at first.
void fit_to_run(ServeOptions& options, const fs::path& directory) {
    options.agent.renderers.directory = directory;
    options.agent.gpus_per_slot = std::max(1, read_run_config(directory).resources.gpus_per_item);
}

/// From here on this process's stderr is a file of the run.
void log_to(const fs::path& path) {
    std::error_code failed;
    fs::create_directories(path.parent_path(), failed);
    const Handle<int, detail::close_descriptor, -1> file(
        ::open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644));
    if (file) ::dup2(file.get(), STDERR_FILENO);
}

/// Gives what was sent a while to leave.
void settle(Link& link) {
    const double last = seconds_now() + 2;
    Waiter waiter(true, -1);
    while (!link.quiet() && seconds_now() < last) waiter.wait(false, nullptr);
}

const char* word_for(coordinator::Outcome outcome) {
    static constexpr const char* words[] = {"complete", "quarantined", "stopped"};
    return words[static_cast<int>(outcome)];
}

class Server {
public:
    Server(const fs::path& directory, const RunLock& lock, ServeOptions options, Link& link,
           const StopSignals& signals)
        : directory_(directory),
          lock_(lock),
          link_(link),
          signals_(signals),
          journal_(directory / "journal.jsonl"),
          driver_(load(), link, journal_, options.terminal, seconds_now()),
          waiter_(link.needs_polling(), signals.descriptor()),
          stop_seconds_(options.agent.stop_seconds) {
        fit_to_run(options, directory);
        agent_.emplace(std::move(options.agent), [this](const message::Message& message) {
            link_.send(link_.rank(), message::to_text(message));
        });
    }

    ServeResult run() {
        std::error_code ignored;
        for (const char* sign : {"COMPLETE", "ATTEMPT_END"}) fs::remove(directory_ / sign, ignored);
        begin();
        while (!driver_.finished()) turn();
        log_info("ending outcome={}{}", word_for(driver_.outcome()),
                 driver_.why().empty() ? "" : fmt::format(" why=\"{}\"", driver_.why()));
        see_them_off();
        return finish();
    }

private:
    RunStart load() {
        std::optional<RunStart> start;
        work_and_beat(lock_, link_, [&] { start.emplace(load_run(directory_)); });
        return std::move(*start);
    }

    void begin() {
        const double now = seconds_now();
        driver_.step(now);
        if (driver_.finished()) return;
        for (int rank = 1; rank < link_.size(); ++rank)
            link_.send(rank, message::to_text(message::Begin{directory_.string()}));
        agent_->begin(now);
        report_.emplace(directory_);
        const double left = job_seconds_left();
        if (left < coordinator::forever) driver_.job_ends_in(left, now);
    }

    /// Everything that has arrived is heard before anybody is called silent.
    bool hear_and_step(double now) {
        bool happened = false;
        while (const auto received = link_.receive()) {
            happened = true;
            hear(*received, now);
        }
        return agent_->step(now) || happened;
    }

    /// One round of the loop.
    void turn() {
        const double now = seconds_now();
        bool happened = hear_and_step(now);
        heed_signals(now);
        happened = driver_.step(now) || happened;
        if (now >= next_beat_) {
            lock_.beat();
            next_beat_ = now + 1;
        }
        if (agent_->finished() && !agent_->trouble().error.empty() && !trouble_)
            trouble_ = agent_->trouble();
        // Nobody can render: waiting would change nothing.
        if (trouble_ && left_.size() == static_cast<std::size_t>(link_.size()))
            driver_.stop(trouble_->error, 0, now);
        waiter_.wait(happened, &*agent_);
    }

    void hear(const Link::Received& received, double now) {
        try {
            const message::Message message = message::parse(received.text);
            if (received.from == link_.rank() && for_agent(message))
                return agent_->handle(message, now);
            if (std::holds_alternative<message::Leaving>(message)) left_.insert(received.from);
            driver_.handle(received.from, message, now);
        } catch (const Error& nonsense) {
            driver_.expel(received.from, nonsense.what(), now);
        }
    }

    void heed_signals(double now) {
        const StopSignals::Asked asked = signals_.asked();
        if (asked == heeded_) return;
        heeded_ = asked;
        if (asked == StopSignals::Asked::now)
            driver_.stop("asked by a signal", 0, now);
        else
            driver_.stop_soon("asked by SIGUSR1", now);
    }

    /// Waits for the agents to leave. Agents that never joined are told, too.
    void see_them_off() {
        for (int rank = 0; rank < link_.size(); ++rank)
            if (!driver_.lost(rank)) link_.send(rank, message::to_text(message::Stop{}));
        const double last = seconds_now() + stop_seconds_ + leave_seconds;
        const auto everybody_left = [&] {
            for (int rank = 0; rank < link_.size(); ++rank)
                if (!driver_.lost(rank) && !left_.contains(rank)) return false;
            return agent_->finished();
        };
        while (!everybody_left() && seconds_now() < last)
            waiter_.wait(hear_and_step(seconds_now()), &*agent_);
    }

    ServeResult finish() {
        ServeResult result;
        result.outcome = driver_.outcome();
        result.why = driver_.why();
        result.trouble = trouble_;
        result.all_well = left_.size() == static_cast<std::size_t>(link_.size());
        try {
            work_and_beat(lock_, link_, [&] {
                report_.reset();
                journal_.flush();
                if (!result.all_well || result.outcome == coordinator::Outcome::stopped)
                    sweep(directory_);
                write_everything(result.outcome);
            });
        } catch (const DiskError& refused) {
            // The journal alone is the truth; what is missing comes with the next attempt.
            log_error("{}", refused.what());
            result.outcome = coordinator::Outcome::stopped;
            if (result.why.empty()) result.why = refused.what();
            sign_refused_end(directory_);
        }
        for (int rank = 1; rank < link_.size(); ++rank)
            if (driver_.lost(rank))
                link_.forget(rank);  // or what it was told meanwhile is waited for
            else
                link_.send(rank, message::to_text(message::Goodbye{result.all_well}));
        settle(link_);
        return result;
    }

    void write_everything(coordinator::Outcome outcome) {
        driver_.sign_off(seconds_now());
        RunHistory history(directory_);
        history.update();
        write_index(history);
        const bool stopped = outcome == coordinator::Outcome::stopped;
        if (!stopped) sign_complete(directory_, word_for(outcome));
        // Who stops a run does not wait long for its page.
        try {
            if (!stopped || history.size() <= quick_report_items)
                write_report(directory_, {.thumbnail_seconds = stopped ? 1.0 : 30.0});
        } catch (const std::exception& failed) {
            log_warning("no report this time: {}", failed.what());
        }
        // Last: a supervisor that sees it ends what still runs.
        sign_attempt_end(
            directory_, fmt::format("{}{}", word_for(outcome), driver_.at_limit() ? " limit" : ""));
    }

    fs::path directory_;
    const RunLock& lock_;
    Link& link_;
    const StopSignals& signals_;
    Journal journal_;
    Driver driver_;
    std::optional<LiveReport> report_;
    std::optional<Agent> agent_;
    Waiter waiter_;
    double stop_seconds_;
    double next_beat_ = 0;
    StopSignals::Asked heeded_ = StopSignals::Asked::nothing;
    std::set<int> left_;
    std::optional<Failure> trouble_;
};

}  // namespace

ServeResult serve(const fs::path& directory, const RunLock& lock, ServeOptions options, Link& link,
                  const StopSignals& signals) {
    try {
        return Server(directory, lock, std::move(options), link, signals).run();
    } catch (const DiskError&) {  // before it could begin
        sign_refused_end(directory);
        throw;
    }
}

void dismiss(Link& link) {
    for (int rank = 1; rank < link.size(); ++rank)
        link.send(rank, message::to_text(message::Goodbye{}));
    settle(link);
}

void work_and_beat(const RunLock& lock, Link& link, const std::function<void()>& work) {
    std::future<void> done = std::async(std::launch::async, work);
    while (done.wait_for(std::chrono::milliseconds(500)) != std::future_status::ready) {
        for (int rank = 1; rank < link.size(); ++rank)
            link.send(rank, message::to_text(message::Ping{}));
        link.quiet();
        lock.beat();
    }
    done.get();
}

bool attend(ServeOptions options, Link& link, const StopSignals& signals) {
    // After a signal rank 0 says what is to be done; when it does not, the agent leaves by itself.
    constexpr double orders_seconds = 5;
    std::optional<Agent> agent;
    // Its slots hold items ahead, so orders may wait; every look takes the renderers' time.
    Waiter waiter(true, signals.descriptor(), 20e-3);
    Silence silence(seconds_now());
    constexpr double never = std::numeric_limits<double>::infinity();
    double stop_at = never;  // if rank 0 gives no order
    for (;;) {
        const double now = seconds_now();
        bool happened = false;
        while (const auto received = link.receive()) {
            happened = true;
            silence.heard(now);
            const message::Message message = message::parse(received->text);
            if (const auto* end = std::get_if<message::Goodbye>(&message)) return end->all_well;
            if (const auto* begin = std::get_if<message::Begin>(&message)) {
                fit_to_run(options, begin->directory);
                if (!options.log_name.empty())
                    log_to(fs::path(begin->directory) / "logs" / (options.log_name + ".log"));
                log_info("begins rank={}", link.rank());
                agent.emplace(options.agent, [&link](const message::Message& said) {
                    link.send(0, message::to_text(said));
                });
                agent->begin(now);
            } else if (agent) {
                agent->handle(message, now);
            } else if (std::holds_alternative<message::Stop>(message)) {
                link.send(0, message::to_text(message::Leaving{"never began"}));
            }
        }
        happened = (agent && agent->step(now)) || happened;
        if (signals.asked() == StopSignals::Asked::now && stop_at == never)
            stop_at = now + orders_seconds;
        if (agent && now > stop_at) {
            agent->handle(message::Stop{}, now);
            stop_at = never;
        }
        if (const double silent = silence.look(now);
            silent > options.agent.lonely_seconds && (!agent || agent->finished())) {
            log_error("no word of rank 0 for {:.0f} s", silent);
            return false;
        }
        waiter.wait(happened, agent ? &*agent : nullptr);
    }
}

}  // namespace gallop
