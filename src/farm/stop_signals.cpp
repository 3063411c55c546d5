#include "farm/stop_signals.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace gallop {

StopSignals::StopSignals() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    static sigset_t signals;
    ::sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) ::sigaddset(&signals, signal);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::thread([this] {
        for (;;) {
            int signal = 0;
            if (::sigwait(&signals, &signal) != 0) continue;
            if (signal == SIGUSR1) {
                Asked nothing = Asked::nothing;
                asked_.compare_exchange_strong(nothing, Asked::soon);
            } else if (asked_.exchange(Asked::now) == Asked::now) {
                ::_exit(128 + signal);
            }
            const std::uint64_t one = 1;
            [[maybe_unused]] const auto put = ::write(wake_, &one, sizeof one);
        }
    }).detach();
}

double slurm_seconds(const char* text) {
    constexpr double unlimited = std::numeric_limits<double>::infinity();
    double days = 0;
    std::string rest = text;
    while (!rest.empty() && (rest.back() == '\n' || rest.back() == ' ')) rest.pop_back();
    if (const std::size_t dash = rest.find('-'); dash != std::string::npos) {
        days = std::atof(rest.substr(0, dash).c_str());
        rest = rest.substr(dash + 1);
    }
    if (rest.empty() || rest.find_first_not_of("0123456789:") != std::string::npos)
        return unlimited;
    double seconds = 0;
    for (std::size_t at = 0; at <= rest.size();) {
        const std::size_t colon = std::min(rest.find(':', at), rest.size());
        seconds = seconds * 60 + std::atof(rest.substr(at, colon - at).c_str());
        at = colon + 1;
    }
    return days * 86400 + seconds;
}

double job_seconds_left() {
    constexpr double unlimited = std::numeric_limits<double>::infinity();
    if (const char* end = std::getenv("SLURM_JOB_END_TIME")) {
        const double at = std::atof(end);
        const double now =
            std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
                .count();
        return at > 0 ? std::max(at - now, 0.0) : unlimited;
    }
    const char* job = std::getenv("SLURM_JOB_ID");
    if (job == nullptr || std::string(job).find_first_not_of("0123456789") != std::string::npos)
        return unlimited;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> answer(
        ::popen(fmt::format("timeout 10 squeue -h -j {} -o %L 2>/dev/null", job).c_str(), "re"),
        ::pclose);
    char text[64] = {};
    if (!answer || std::fgets(text, sizeof text, answer.get()) == nullptr) return unlimited;
    return slurm_seconds(text);
}

}  // namespace gallop
