#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "pipeline/render.hpp"

namespace gallop {

/// How far a run is, in words: a live line on a terminal, otherwise a log line at the end of each
/// stage and every 30 s. Times are passed in, in seconds since any moment.
class ProgressReport {
public:
    /// `items`: clips to render. `terminal`: stderr is one.
    ProgressReport(std::size_t items, bool terminal);
    ~ProgressReport();
    ProgressReport(const ProgressReport&) = delete;
    ProgressReport& operator=(const ProgressReport&) = delete;

    void begin_item(std::string_view name, double now);
    void step(const Progress& progress, double now);
    /// `rendered`: the clip was finished; its time tells what the others will take.
    void end_item(bool rendered, double now);

    /// "[2/3] rain base 5/8 eta 0:42", as the live line shows it.
    std::string text(double now) const;
    /// Seconds until all is done; before the first clip is finished, until the end of the stage.
    /// Nothing while nothing was measured.
    std::optional<double> seconds_left(double now) const;
    const Progress& current() const { return progress_; }

private:
    void show(double now, bool line_end);
    void clear();

    std::size_t items_;
    bool terminal_;
    bool shown_ = false;
    std::size_t begun_ = 0;
    std::size_t rendered_ = 0;
    double rendered_seconds_ = 0;
    std::string name_;
    Progress progress_;
    double item_start_ = 0;
    double stage_start_ = 0;
    double first_step_ = -1;  ///< when the stage's first step was done: models are loaded by then
    int first_step_number_ = 0;
    double last_line_ = 0;
};

}  // namespace gallop
