#include <array>
#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "core/check.hpp"
#include "core/log.hpp"
#include "farm/export.hpp"
#include "farm/index.hpp"
#include "farm/report.hpp"
#include "farm/survey.hpp"

namespace gallop::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* index_help = R"(gallop index [RUNDIR]

Rebuilds index.jsonl from the plan and the journal: one row of JSON for each finished clip, in the plan's
order, with names, prompt, seed, sizes, sweep cell, paths, digests, host and seconds a stage.

Prints the path and the number of rows.
)";

constexpr const char* export_help = R"(gallop export webdataset [RUNDIR] --out DIR [options]
gallop export csv [RUNDIR] [--out FILE]

webdataset: the finished clips as tar shards NAME-000000.tar, …: KEY.mp4 and KEY.json, where KEY is the
item's id, and index.json with all shards. The same clips give the same bytes; an interrupted export goes on
where it ended; clips that are finished later join with the next export.

  --out DIR               where to write
  --shard-size SIZE       a shard ends before it would be larger, e.g. 500MB, 3GB (default: 1GB)
  --latents               KEY.h5, too
  --json                  prints one JSON object

csv: a table of the finished clips, one a row (RFC 4180).

  --out FILE              where to write (default: standard output)
  --json                  prints one JSON object; needs --out
)";

constexpr const char* report_help = R"(gallop report [RUNDIR]

Writes report/index.html in the run directory: progress, throughput over time, time by stage, hosts, failures
with their logs, and a contact sheet of all clips with a filter by text and sweep axis. The page opens from
disk in any browser; copy the run directory and it still works. A run writes it now and then and at its end;
pictures that it had no time for are made here.

Prints the page's path.
)";

/// "500MB", "3GB", "1000000": decimal units, as disks are sold.
std::uint64_t bytes_of(const std::string& text) {
    constexpr std::array<std::pair<const char*, double>, 5> units = {
        {{"", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}};
    double number = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string unit(end, text.data() + text.size());
    for (const auto& [name, factor] : units)
        if (failed == std::errc() && unit == name && number * factor >= 1 &&
            number * factor <= 1e15)
            return static_cast<std::uint64_t>(number * factor);
    throw_input_error("--shard-size is \"{}\" (a number of bytes, or one with kB, MB, GB, TB)",
                      text);
}

std::string in_json(const Json& json) {
    return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

RunHistory read_history(const std::string& given) {
    RunHistory history(find_run(given));
    history.update();
    if (history.damaged_lines() > 0)
        log_warning("damaged lines of the journal are passed over lines={}",
                    history.damaged_lines());
    return history;
}

int index(const Arguments& arguments) {
    const Values values = parse("index", arguments, {}, {"RUNDIR"}, 1);
    const RunHistory history = read_history(text_of(values, "RUNDIR"));
    const std::size_t rows = write_index(history);
    fmt::print("{} {}\n", (history.directory() / "index.jsonl").string(), rows);
    return done;
}

int export_clips(const Arguments& arguments) {
    po::options_description options;
    options.add_options()("out", po::value<std::string>())(
        "shard-size", po::value<std::string>()->default_value("1GB"))("latents", "")("json", "");
    const Values values = parse("export", arguments, options, {"FORMAT", "RUNDIR"}, 1);
    const std::string format = text_of(values, "FORMAT");
    if (format != "webdataset" && format != "csv")
        throw_input_error("gallop export: the format is \"{}\" (webdataset, csv)", format);
    const std::uint64_t shard_bytes = bytes_of(text_of(values, "shard-size"));
    if (format == "webdataset" && !values.contains("out"))
        throw_input_error("gallop export webdataset: --out is missing (the folder of the shards)");
    const RunHistory history = read_history(text_of(values, "RUNDIR"));
    if (format == "csv") {
        const std::string out = values.contains("out") ? text_of(values, "out") : "-";
        const bool json = values.contains("json");
        if (json && out == "-")
            throw_input_error(
                "gallop export csv: --json needs --out FILE (the table goes to standard output)");
        const std::size_t clips = export_csv(history, out);
        log_info("exported clips={}", clips);
        if (json) fmt::print("{}\n", in_json({{"file", out}, {"clips", clips}}));
        return done;
    }
    WebDatasetOptions how;
    how.out = text_of(values, "out");
    how.shard_bytes = shard_bytes;
    how.latents = values.contains("latents");
    const ExportCount count = export_webdataset(history, how);
    const std::size_t left = history.size() - count.clips;
    if (left > 0)
        log_warning("items that are not finished are not among the shards items={}", left);
    if (values.contains("json"))
        fmt::print("{}\n", in_json({{"directory", how.out.string()},
                                    {"clips", count.clips},
                                    {"shards", count.shards},
                                    {"kept", count.kept},
                                    {"unfinished", left}}));
    else
        fmt::print("{} {} clips in {} shards, {} of them from an earlier export\n",
                   how.out.string(), count.clips, count.shards, count.kept);
    return done;
}

int report(const Arguments& arguments) {
    const Values values = parse("report", arguments, {}, {"RUNDIR"}, 1);
    const fs::path run = find_run(text_of(values, "RUNDIR"));
    const ReportCount count = write_report(run);
    log_info("report clips={} strips_made={} strips_missing={}", count.clips, count.made,
             count.missing);
    fmt::print("{}\n", (run / "report" / "index.html").string());
    return done;
}

}  // namespace

const Command index_command = {"index", index_help, index};
const Command export_command = {"export", export_help, export_clips};
const Command report_command = {"report", report_help, report};

}  // namespace gallop::cli
