#include "farm/progress.hpp"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

#include "core/log.hpp"
#include "farm/terminal.hpp"

namespace gallop {

ProgressReport::ProgressReport(std::size_t items, bool terminal)
    : items_(items), terminal_(terminal) {}

ProgressReport::~ProgressReport() { clear(); }

void ProgressReport::begin_item(std::string_view name, double now) {
    ++begun_;
    name_ = name;
    progress_ = {};
    item_start_ = stage_start_ = last_line_ = now;
    first_step_ = -1;
}

void ProgressReport::step(const Progress& progress, double now) {
    if (progress.stage != progress_.stage) {
        stage_start_ = now;
        first_step_ = -1;
    }
    progress_ = progress;
    if (progress.step > 0 && first_step_ < 0) {
        first_step_ = now;
        first_step_number_ = progress.step;
    }
    show(now, progress.steps > 0 && progress.step >= progress.steps);
}

void ProgressReport::end_item(bool rendered, double now) {
    clear();
    if (!rendered) return;
    ++rendered_;
    rendered_seconds_ += now - item_start_;
}

std::optional<double> ProgressReport::seconds_left(double now) const {
    if (rendered_ > 0) {
        const double each = rendered_seconds_ / static_cast<double>(rendered_);
        return each * static_cast<double>(items_ - begun_) +
               std::max(0.0, each - (now - item_start_));
    }
    const int steps = progress_.step - first_step_number_;
    if (first_step_ < 0 || steps < 1) return {};
    return (now - first_step_) / steps * (progress_.steps - progress_.step);
}

std::string ProgressReport::text(double now) const {
    std::string text = fmt::format("[{}/{}] {}", begun_, items_, name_);
    if (!progress_.stage.empty()) text += " " + progress_.stage;
    if (progress_.steps > 0) text += fmt::format(" {}/{}", progress_.step, progress_.steps);
    if (const auto left = seconds_left(now))
        text += fmt::format(" {} {}", rendered_ > 0 ? "eta" : "stage eta", clock_text(*left));
    return text;
}

void ProgressReport::show(double now, bool line_end) {
    if (terminal_) {
        fmt::print(stderr, "\r\x1b[K{}", text(now));
        std::fflush(stderr);
        shown_ = true;
    } else if (line_end || now - last_line_ >= 30) {
        last_line_ = now;
        log_info("{} seconds={:.1f}", text(now), now - stage_start_);
    }
}

void ProgressReport::clear() {
    if (!shown_) return;
    fmt::print(stderr, "\r\x1b[K");
    std::fflush(stderr);
    shown_ = false;
}

}  // namespace gallop
