// What rank 0 costs: its driver, coordinator and journal, serving agents that render nothing. The
// clock is pretended, the messages, the journal and the status are real.
// Usage: driver_scale ITEMS AGENTS MICROSECONDS

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <queue>

#include <fmt/format.h>
#include <sys/resource.h>
#include <time.h>

#include "farm/driver.hpp"
#include "farm/plan.hpp"
#include "farm/recording_link.hpp"
#include "farm/resume.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace gallop;

double cpu_seconds(::clockid_t clock) {
    ::timespec time{};
    ::clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct Arrival {
    double time;
    std::uint64_t order;  // texts of one moment arrive in the order they were sent in
    int from;
    std::string text;
    bool operator<(const Arrival& other) const {
        return std::tie(time, order) > std::tie(other.time, other.order);
    }
};

/// Agents of one slot each. They finish what they are given in the time it was predicted to take.
class Agents final : public test::RecordingLink {
public:
    explicit Agents(int count)
        : RecordingLink(count), busy_until_(static_cast<std::size_t>(count), 0) {}

    void say(double time, int from, const message::Message& message) {
        arrivals_.push({time, order_++, from, message::to_text(message)});
    }
    bool anything() const { return !arrivals_.empty(); }
    double next_time() const { return arrivals_.top().time; }
    Arrival next() {
        Arrival arrival = arrivals_.top();
        arrivals_.pop();
        return arrival;
    }

    /// Answers what was sent to them.
    void answer(double now) {
        for (auto& [to, text] : std::exchange(sent_, {})) {
            const message::Message message = message::parse(text);
            if (const auto* lease = std::get_if<message::Lease>(&message)) render(to, *lease, now);
        }
    }

private:
    void render(int agent, const message::Lease& lease, double now) {
        double& time = busy_until_[static_cast<std::size_t>(agent)];
        for (const message::Task& task : lease.items) {
            time = std::max(time, now);
            say(time, agent, message::Begun{lease.slot, task.item});
            time += task.seconds;
            message::Done done;
            done.slot = lease.slot;
            done.item = task.item;
            done.id = task.id;
            done.attempt = task.attempt;
            done.clip = {fmt::format("clips/ab/cd/{}.mp4", task.id), 1'234'567,
                         std::string(64, 'a')};
            done.latents = {fmt::format("latents/ab/cd/{}.h5", task.id), 2'345'678,
                            std::string(64, 'b')};
            for (const char* stage : {"text", "base", "sr", "decode", "encode", "total"})
                done.seconds.stages.emplace_back(stage, task.seconds);
            say(time, agent, done);
        }
    }

    std::vector<double> busy_until_;
    std::priority_queue<Arrival> arrivals_;
    std::uint64_t order_ = 0;
};

bool said(const Arrival& arrival, std::string_view kind) {
    return arrival.text.find(fmt::format("\"kind\":\"{}\"", kind)) != std::string::npos;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: %s ITEMS AGENTS MICROSECONDS\n", argv[0]);
        return 2;
    }
    const long items = std::atol(argv[1]);
    const int agents = std::atoi(argv[2]);
    const test::TemporaryFolder folder;
    std::filesystem::create_directories(folder / "model" / "distill");
    std::ofstream(folder / "model" / "distill" / "model.safetensors") << "weights";
    {
        std::ofstream rows(folder / "rows.jsonl");
        for (long i = 0; i < items; ++i)
            rows << fmt::format("{{\"prompt\": \"Scene {}\", \"seconds\": {}}}\n", i, 2 + i % 9);
    }
    std::ofstream(folder / "m.yaml") << "version: 1\nname: scale\nmodel: {path: model}\n"
                                        "items: [{from: rows.jsonl}]\n";
    PlanOptions options;
    options.directory = folder / "run";
    options.calibration = find_calibration("h100", "bf16", "");
    make_plan(read_manifest(folder / "m.yaml"), options);

    constexpr double beat_seconds = 0.5;
    constexpr double round_seconds = 0.005;  // the longest that a server sleeps
    Agents link(agents);
    Journal journal(options.directory / "journal.jsonl");
    RunStart start = load_run(options.directory);
    const int numerics = start.config.numerics;
    Driver driver(std::move(start), link, journal, false, 0);
    for (int agent = 0; agent < agents; ++agent) {
        const double at = 0.001 * agent;
        link.say(at, agent,
                 message::Join{fmt::format("host-{}", agent / 8), 4711, "h100", 1, 1, numerics});
        link.say(at, agent, message::Ready{0, 1, 1, "h100"});
        link.say(at + beat_seconds, agent, message::Beat{});
    }

    // This thread's CPU that is the driver's.
    double hearing_seconds = 0;  // messages, and what the journal says of them
    double rounds_seconds = 0;   // whatever is due: leases, pings, the status
    double now = 0;
    long beats = 0;
    long done = 0;
    const double others_before =
        cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    const auto wall = std::chrono::steady_clock::now();
    const auto charge = [](double& sum, const auto& work) {
        const double before = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
        work();
        sum += cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - before;
    };
    std::vector<Arrival> heard;
    while (!driver.finished() && link.anything()) {
        // As the server does: all that has arrived, then whatever is due.
        now = std::max(now + round_seconds, link.next_time());
        heard.clear();
        while (link.anything() && link.next_time() <= now) heard.push_back(link.next());
        charge(hearing_seconds, [&] {
            for (const Arrival& arrival : heard)
                driver.handle(arrival.from, message::parse(arrival.text), now);
        });
        charge(rounds_seconds, [&] { driver.step(now); });
        for (const Arrival& arrival : heard) {
            done += said(arrival, "done");
            if (!said(arrival, "beat")) continue;
            ++beats;
            if (done < items) link.say(arrival.time + beat_seconds, arrival.from, message::Beat{});
        }
        link.answer(now);
    }
    journal.flush();
    const double journal_seconds = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) -
                                   cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - others_before;
    ::rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const double all = hearing_seconds + rounds_seconds + journal_seconds;
    const double each = 1e6 * all / static_cast<double>(items);
    std::printf(
        "%ld items on %d agents, %ld beats: %.1f microseconds of CPU an item, %.2f %% of a core "
        "for "
        "%.0f s; %.1f hearing, %.1f rounds, %.1f journal's writer; %.0f MB, journal %.0f MB, %.0f "
        "s of wall time\n",
        done, agents, beats, each, 100 * all / now, now, each * hearing_seconds / all,
        each * rounds_seconds / all, each * journal_seconds / all,
        static_cast<double>(usage.ru_maxrss) / 1024,
        static_cast<double>(std::filesystem::file_size(options.directory / "journal.jsonl")) / 1e6,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - wall).count());
    return driver.finished() && driver.outcome() == coordinator::Outcome::complete &&
                   done == items && each < std::atof(argv[3])
               ? 0
               : 1;
}
