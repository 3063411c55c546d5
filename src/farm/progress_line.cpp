#include "farm/progress_line.hpp"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

#include "core/log.hpp"
#include "farm/terminal.hpp"

namespace gallop {
namespace {

constexpr double terminal_seconds = 0.25;
constexpr double log_seconds = 30;

}  // namespace

std::string progress_text(const RunStatus& status) {
    std::string text = fmt::format("[{}/{}]", status.done, status.items);
    if (status.state != RunState::running) text += fmt::format(" {}", name_of(status.state));
    if (!status.reason.empty()) text += fmt::format(" ({})", status.reason);
    if (status.clips_per_hour > 0)
        text += fmt::format(" {:.{}f} clips/h", status.clips_per_hour,
                            status.clips_per_hour < 10 ? 1 : 0);
    if (status.seconds_left && status.state == RunState::running)
        text += fmt::format("{} eta {}", status.clips_per_hour > 0 ? "," : "",
                            clock_text(*status.seconds_left));
    if (status.failed_tries > 0) text += fmt::format(", {} failed tries", status.failed_tries);
    if (status.quarantined > 0) text += fmt::format(", {} quarantined", status.quarantined);
    const auto busy = std::count_if(status.slots.begin(), status.slots.end(),
                                    [](const SlotStatus& slot) { return !slot.id.empty(); });
    if (status.slots.size() > 1) text += fmt::format(" | {}/{} busy", busy, status.slots.size());
    for (const SlotStatus& slot : status.slots) {
        if (slot.id.empty()) continue;
        text += fmt::format(" | {} {}", slot.name, slot.stage);
        if (slot.steps > 0) text += fmt::format(" {}/{}", slot.step, slot.steps);
    }
    return text;
}

ProgressLine::~ProgressLine() {
    if (!shown_) return;
    fmt::print(stderr, "\r\x1b[K");
    std::fflush(stderr);
}

void ProgressLine::show(const RunStatus& status, double now) {
    const bool changed = status.state != state_;
    if (!changed && now - last_ < (terminal_ ? terminal_seconds : log_seconds)) return;
    state_ = status.state;
    last_ = now;
    if (!terminal_) {
        log_info("{}", fit(progress_text(status), 200));
        return;
    }
    // The cursor stays in front, so that a log line begins at the line's start.
    fmt::print(stderr, "\r\x1b[K{}\r", fit(progress_text(status), terminal_columns(2) - 1));
    std::fflush(stderr);
    shown_ = true;
}

}  // namespace gallop
