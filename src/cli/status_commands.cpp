#include <chrono>
#include <cstdio>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/progress_line.hpp"
#include "farm/retry.hpp"
#include "farm/status_page.hpp"
#include "farm/survey.hpp"
#include "farm/terminal.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* status_help = R"(gallop status [RUNDIR] [--watch] [--json]

Says how a run stands: clips done, time left by predicted cost, what each renderer does, which items failed
or were given up and why, the queue's state when the run is a Slurm job, and whether the run has died. Inside
a run directory RUNDIR may be left out. Everything comes from the run directory; the run itself is not asked.

  --watch        a page that is redrawn in place every two seconds, until the run has ended; where standard
                 output is no terminal, a line now and then
  --interval S   seconds between two looks (default: 2)
  --json         one JSON object with everything, all quarantined and failing items included

Exit code: 0; with --watch that of the run: 0 all done, 3 finished with quarantined items, 4 stopped or dead.
)";

constexpr const char* retry_help = R"(gallop retry [RUNDIR] --failed [ID]...

Gives items another chance: the next `gallop run` renders them again. Refused while the run is live.

  --failed       all quarantined items; with IDs, only these (quarantined, or failed and to be tried again)
  ID             an id, the start of one (four digits at least), or a name

Prints the ids; how many there are goes to the log.
)";

/// Rows of the terminal behind standard output; 0 where nobody knows.
std::size_t terminal_rows() {
    winsize size{};
    return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_row : 0;
}

bool has_ended(RunState state) {
    return state == RunState::finished || state == RunState::stopped || state == RunState::dead;
}

int outcome(const RunStatus& status) {
    if (status.state != RunState::finished) return stopped_early;
    return status.quarantined > 0 ? finished_with_failures : done;
}

/// Draws a page over the one before it.
class Screen {
public:
    void draw(const std::vector<std::string>& lines) {
        std::string text;
        if (drawn_ > 0) text += fmt::format("\x1b[{}A", drawn_);
        for (const std::string& line : lines) text += line + "\x1b[K\n";
        text += "\x1b[J";
        drawn_ = lines.size();
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
    }

private:
    std::size_t drawn_ = 0;
};

int watch(RunHistory& history, double interval) {
    const bool terminal = ::isatty(STDOUT_FILENO) != 0;
    constexpr double line_seconds = 30;
    double since_line = line_seconds;
    Screen screen;
    for (;;) {
        history.update();
        const Survey found = survey(history, most_failures_shown);
        const bool ended = has_ended(found.status.state);
        if (terminal) {
            // The last row stays free for the cursor; a page that scrolls can't be redrawn.
            const std::size_t rows = terminal_rows();
            screen.draw(
                status_page(found, terminal_columns(STDOUT_FILENO), rows > 2 ? rows - 1 : 0));
        } else if (ended || since_line >= line_seconds) {
            fmt::print("{}\n", progress_text(found.status));
            std::fflush(stdout);
            since_line = 0;
        }
        if (ended) return outcome(found.status);
        std::this_thread::sleep_for(std::chrono::duration<double>(interval));
        since_line += interval;
    }
}

int status(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("watch", "")("json", "")("interval",
                                                   po::value<double>()->default_value(2));
    const Values values = parse("status", arguments, options, {"RUNDIR"}, 1);
    const double interval = values["interval"].as<double>();
    if (!(interval >= 0.1 && interval <= 3600))
        throw_input_error("--interval is {} (seconds, 0.1 to 3600)", interval);
    if (values.contains("watch") && values.contains("json"))
        throw_input_error("--watch stands beside --json (one of the two)");
    RunHistory history(find_run(text_of(values, "RUNDIR")));
    if (values.contains("watch")) return watch(history, interval);
    history.update();
    const bool json_wanted = values.contains("json");
    const Survey found = json_wanted ? survey(history) : survey(history, most_failures_shown);
    if (json_wanted) {
        Json json = to_json(found);
        json["directory"] = history.directory().string();
        fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
        return done;
    }
    const std::size_t columns =
        ::isatty(STDOUT_FILENO) != 0 ? terminal_columns(STDOUT_FILENO) : std::size_t{1000};
    for (const std::string& line : status_page(found, columns)) fmt::print("{}\n", line);
    return done;
}

int retry(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("failed", "");
    const Values values = parse("retry", arguments, options, {"RUNDIR", "ID..."}, 2);
    if (!values.contains("failed"))
        throw_input_error("gallop retry: --failed is missing; gallop retry --help shows how");
    std::vector<std::string> words = texts_of(values, "ID");
    std::string given = text_of(values, "RUNDIR");
    // Inside a run directory it may be left out: then the first word is an item.
    if (!given.empty() && !fs::exists(given)) {
        words.insert(words.begin(), given);
        given.clear();
    }
    const fs::path run = find_run(given);
    const std::vector<std::string> ids = retry_items(run, words);
    for (const std::string& id : ids) fmt::print("{}\n", id);
    if (ids.empty())
        log_info("no item is quarantined in {}: nothing to retry", run.string());
    else
        log_info("{} {} another chance: gallop run {} renders {} again", ids.size(),
                 ids.size() == 1 ? "item gets" : "items get", run.string(),
                 ids.size() == 1 ? "it" : "them");
    return done;
}

}  // namespace

const Command status_command = {"status", status_help, status};
const Command retry_command = {"retry", retry_help, retry};

}  // namespace gallop::cli
