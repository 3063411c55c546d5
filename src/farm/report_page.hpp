#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "farm/survey.hpp"

namespace gallop {

/// What one host did, over all attempts.
struct HostFigures {
    std::string device;
    std::size_t clips = 0;
    std::size_t failed = 0;            ///< tries
    double seconds = 0;                ///< of rendering
    std::int64_t first = 0, last = 0;  ///< seconds since 1970 of its first and last finished clip
};

struct StageFigures {
    std::size_t clips = 0;
    double seconds = 0;
};

/// A failure with what its log says of it.
struct LoggedFailure {
    FailureStatus failure;
    bool given_up = false;
    std::string log_tail;
};

/// All that a report shows besides the contact sheet.
struct ReportFigures {
    Survey survey;
    std::vector<std::int64_t> finished;  ///< when each clip was finished, seconds since 1970
    std::map<std::string, StageFigures> stages;
    std::map<std::string, HostFigures> hosts;
    std::vector<LoggedFailure> failures;
    std::size_t failures_left_out = 0;
    nlohmann::json axes;            ///< axis → values, of the sweep
    std::size_t clips = 0;          ///< on the contact sheet
    std::vector<std::string> data;  ///< names of the scripts with the contact sheet's clips
};

/// The report's page, whole.
std::string report_page(const ReportFigures& figures);

/// Clips finished over time as an inline SVG: a bar for each of at most 60 equal spans, its height
/// in clips an hour. Empty when nothing was finished.
std::string throughput_svg(const std::vector<std::int64_t>& finished);

/// The text with &, <, > and quotes as entities, and bytes that are not UTF-8 as U+FFFD.
std::string html_text(std::string_view text);

/// JSON that may stand inside <script>: nothing in it ends the element.
std::string script_json(const nlohmann::json& value);

}  // namespace gallop
