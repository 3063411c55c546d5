#include "farm/status_page.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "farm/failure.hpp"
#include "farm/terminal.hpp"

namespace gallop {
namespace {

class Page {
public:
    explicit Page(std::size_t columns) : columns_(std::max<std::size_t>(columns, 1)) {}

    void line(const std::string& text) { lines_.push_back(fit(text, columns_)); }
    void gap() { lines_.emplace_back(); }
    /// A heading, or none where nothing follows.
    void heading(const std::string& text) {
        gap();
        line(text);
    }
    std::size_t columns() const { return columns_; }
    std::vector<std::string> take() { return std::move(lines_); }

private:
    std::size_t columns_;
    std::vector<std::string> lines_;
};

std::string bar(double share, std::size_t width) {
    const auto full = static_cast<std::size_t>(
        std::floor(std::clamp(share, 0.0, 1.0) * static_cast<double>(width)));
    std::string text;
    for (std::size_t i = 0; i < width; ++i) text += i < full ? "█" : "░";
    return text;
}

void progress(const RunStatus& status, Page& page) {
    const double share = status.cost_total > 0 ? status.cost_done / status.cost_total
                         : status.items > 0
                             ? static_cast<double>(status.done) / static_cast<double>(status.items)
                             : 1.0;
    std::string text = bar(share, std::clamp<std::size_t>(page.columns() / 3, 5, 30));
    text += fmt::format(" {:.1f} % of the work", std::floor(share * 1000) / 10);
    if (status.clips_per_hour > 0)
        text += fmt::format(", {:.{}f} clips/h", status.clips_per_hour,
                            status.clips_per_hour < 10 ? 1 : 0);
    if (status.seconds_left && status.state == RunState::running)
        text += fmt::format(", {} left", clock_text(*status.seconds_left));
    page.line(text);
    text = fmt::format("{} items: {} done", status.items, status.done);
    if (status.leased > 0) text += fmt::format(", {} handed out", status.leased);
    if (status.open > 0) text += fmt::format(", {} open", status.open);
    if (status.retried > 0) text += fmt::format(" ({} after failed tries)", status.retried);
    if (status.quarantined > 0) text += fmt::format(", {} quarantined", status.quarantined);
    page.line(text);
    page.line(fmt::format("{} rendered by this attempt, {} failed tries in all, {} free on disk",
                          status.rendered_here, status.failed_tries,
                          bytes_text(static_cast<double>(status.disk_free))));
}

void agents(const RunStatus& status, Page& page) {
    if (status.agents.empty()) return;
    page.heading("AGENTS");
    for (const AgentStatus& agent : status.agents) {
        std::string text = fmt::format("{:>4} {} {} ×{} {}: {} clips", agent.agent, agent.host,
                                       agent.device, agent.slots, agent.state, agent.done);
        if (agent.failed > 0) text += fmt::format(", {} failed tries", agent.failed);
        if (agent.last_heard >= 5)
            text += fmt::format(", silent for {}", clock_text(agent.last_heard));
        page.line(text);
    }
}

void slots(const RunStatus& status, Page& page) {
    const auto idle = [](const SlotStatus& slot) { return slot.id.empty(); };
    if (std::all_of(status.slots.begin(), status.slots.end(), idle)) return;
    page.heading("RENDERING");
    for (const SlotStatus& slot : status.slots) {
        if (idle(slot)) continue;
        std::string text =
            fmt::format("{:>4}.{} {} {}", slot.agent, slot.slot, slot.name, slot.stage);
        if (slot.steps > 0) text += fmt::format(" {}/{}", slot.step, slot.steps);
        text += fmt::format(", {}", clock_text(slot.seconds));
        if (slot.predicted > 0) text += fmt::format(" of {}", clock_text(slot.predicted));
        page.line(text);
    }
}

/// `count`: of all, more than are listed perhaps.
void failures(const char* heading, const std::vector<FailureStatus>& failed, std::size_t count,
              Page& page) {
    if (failed.empty()) return;
    page.heading(fmt::format("{} ({})", heading, count));
    bool cut = false;
    for (std::size_t i = 0; i < std::min(failed.size(), most_failures_shown); ++i) {
        const FailureStatus& one = failed[i];
        page.line(fmt::format("  {} {} {}: {}", one.id.substr(0, 12), one.name, one.kind,
                              first_line_of(one.error)));
        cut = cut || one.error.find('\n') != std::string::npos;
        std::vector<std::string> more;
        if (!one.reason.empty()) more.push_back(one.reason);
        if (!one.host.empty()) more.push_back("on " + one.host);
        if (!one.log.empty()) more.push_back("log " + one.log);
        if (!more.empty()) page.line(fmt::format("      {}", fmt::join(more, ", ")));
    }
    if (count > most_failures_shown)
        page.line(fmt::format("  and {} more (--json lists all)", count - most_failures_shown));
    if (cut) page.line("  (--json has the errors whole)");
}

}  // namespace

std::vector<std::string> status_page(const Survey& survey, std::size_t columns, std::size_t rows) {
    const RunStatus& status = survey.status;
    Page page(columns);
    std::string title = fmt::format("{}: {}", status.name, name_of(status.state));
    if (!status.reason.empty()) title += fmt::format(" ({})", status.reason);
    if (status.attempt > 0) title += fmt::format(", attempt {}", status.attempt);
    page.line(title);
    progress(status, page);
    if (survey.slurm) {
        const SlurmJob& job = *survey.slurm;
        std::string text = fmt::format("Slurm job {}: {}", job.id, job.state);
        if (!job.note.empty()) text += " " + job.note;
        if (!job.left.empty()) text += fmt::format(", {} of its time left", job.left);
        page.line(text);
    }
    if (status.state == RunState::dead)
        page.line("it has died: `gallop run` on the same manifest goes on where it ended");
    if (!survey.quarantined.empty() && !survey.pulse.live())
        page.line("`gallop retry RUNDIR --failed` gives the quarantined items another chance");
    slots(status, page);
    failures("QUARANTINED", survey.quarantined, status.quarantined, page);
    failures("FAILED, TO BE TRIED AGAIN", survey.failing, status.retried, page);
    agents(status, page);
    std::vector<std::string> lines = page.take();
    if (rows > 0 && lines.size() > rows) lines.resize(rows);
    return lines;
}

}  // namespace gallop
