#include "farm/report_page.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "core/utf8.hpp"
#include "farm/report_assets.hpp"
#include "farm/terminal.hpp"

namespace gallop {
namespace {

constexpr std::size_t most_bars = 60;

/// The smallest of 1, 2, 5, 10, … that is at least `value`.
double round_up(double value) {
    const double power = std::pow(10.0, std::floor(std::log10(std::max(value, 1e-9))));
    for (const double step : {1.0, 2.0, 5.0})
        if (value <= step * power * (1 + 1e-9)) return step * power;
    return 10 * power;
}

std::string cell(std::string_view text, bool number = false) {
    return fmt::format("<td{}>{}</td>", number ? " class=n" : "", html_text(text));
}

std::string head(const RunStatus& status) {
    const double share = status.cost_total > 0 ? status.cost_done / status.cost_total : 0;
    std::string html =
        fmt::format("<header><h1>{}</h1><p class=\"state {}\">{}{}</p></header>\n",
                    html_text(status.name), name_of(status.state), name_of(status.state),
                    status.reason.empty() ? "" : ": " + html_text(status.reason));
    html += fmt::format(
        "<section><div class=bar role=progressbar aria-valuemin=0 aria-valuemax=100 "
        "aria-valuenow={0:.1f}><div style=\"width:{0:.2f}%\"></div></div>\n<ul class=figures>\n",
        std::clamp(share, 0.0, 1.0) * 100);
    const auto figure = [&](const std::string& value, const char* what) {
        html += fmt::format("<li><b>{}</b> {}</li>\n", html_text(value), what);
    };
    figure(fmt::format("{} of {}", status.done, status.items), "clips done");
    figure(fmt::format("{:.1f} %", share * 100), "of the predicted work");
    if (status.leased > 0) figure(std::to_string(status.leased), "handed out");
    figure(std::to_string(status.open), "open");
    figure(std::to_string(status.quarantined), "quarantined");
    figure(std::to_string(status.failed_tries), "failed tries");
    if (status.clips_per_hour > 0)
        figure(fmt::format("{:.1f}", status.clips_per_hour), "clips an hour lately");
    if (status.seconds_left && status.state == RunState::running)
        figure(clock_text(*status.seconds_left), "left");
    figure(std::to_string(status.attempt), status.attempt == 1 ? "attempt" : "attempts");
    return html + fmt::format("</ul><p class=small>As of {}</p></section>\n",
                              html_text(status.updated.empty() ? "the plan" : status.updated));
}

std::string stage_table(const std::map<std::string, StageFigures>& stages) {
    if (stages.empty()) return "";
    double whole = 0;
    for (const auto& [stage, figures] : stages)
        if (stage != "total") whole += figures.seconds;
    std::string html =
        "<section><h2>Time by stage</h2><table><thead><tr><th>stage<th class=n>clips<th "
        "class=n>mean<th class=n>in all<th class=n>share<th></tr></thead><tbody>\n";
    for (const auto& [stage, figures] : stages) {
        if (stage == "total") continue;
        const double share = whole > 0 ? figures.seconds / whole * 100 : 0;
        html += "<tr>" + cell(stage) + cell(std::to_string(figures.clips), true) +
                cell(fmt::format("{:.2f} s", figures.seconds / static_cast<double>(figures.clips)),
                     true) +
                cell(clock_text(figures.seconds), true) +
                cell(fmt::format("{:.1f} %", share), true) +
                fmt::format(
                    "<td class=wide><div class=share style=\"width:{:.1f}%\"></div></td>"
                    "</tr>\n",
                    share);
    }
    return html + "</tbody></table></section>\n";
}

std::string host_table(const ReportFigures& figures) {
    if (figures.hosts.empty()) return "";
    std::string html =
        "<section><h2>Hosts</h2><table><thead><tr><th>host<th>device<th class=n>clips<th "
        "class=n>mean a clip<th class=n>clips an hour<th class=n>failed tries<th>now</tr></thead>"
        "<tbody>\n";
    for (const auto& [host, did] : figures.hosts) {
        std::string now;
        for (const AgentStatus& agent : figures.survey.status.agents)
            if (agent.host == host) now = agent.state;
        const auto clips = static_cast<double>(did.clips);
        const double hours = static_cast<double>(did.last - did.first) / 3600;
        html += "<tr>" + cell(host) + cell(did.device) + cell(std::to_string(did.clips), true) +
                cell(did.clips > 0 ? fmt::format("{:.1f} s", did.seconds / clips) : "", true) +
                cell(hours > 0 && did.clips > 1 ? fmt::format("{:.1f}", (clips - 1) / hours) : "",
                     true) +
                cell(std::to_string(did.failed), true) + cell(now) + "</tr>\n";
    }
    return html + "</tbody></table></section>\n";
}

std::string failure_list(const ReportFigures& figures) {
    if (figures.failures.empty()) return "";
    std::string html = "<section><h2>Failures</h2>\n";
    for (const LoggedFailure& one : figures.failures) {
        const FailureStatus& failure = one.failure;
        html += fmt::format(
            "<details class=failure><summary><b class={}>{}</b> {} <span class=small>{}</span> "
            "{}</summary><p class=small>{}{}{}{}</p>",
            one.given_up ? "bad" : "again", one.given_up ? "quarantined" : "to be tried again",
            html_text(failure.name), html_text(failure.kind),
            html_text(failure.reason.empty()
                          ? failure.error
                          : fmt::format("{} ({})", failure.error, failure.reason)),
            failure.id, failure.host.empty() ? "" : " on " + html_text(failure.host),
            failure.time.empty() ? "" : ", " + html_text(failure.time),
            failure.log.empty() ? "" : ", " + html_text(failure.log));
        if (!one.log_tail.empty()) html += fmt::format("<pre>{}</pre>", html_text(one.log_tail));
        html += "</details>\n";
    }
    if (figures.failures_left_out > 0)
        html += fmt::format("<p>And {} more: <code>gallop status --json</code> lists all.</p>",
                            figures.failures_left_out);
    return html + "</section>\n";
}

}  // namespace

std::string html_text(std::string_view text) {
    std::string html;
    while (!text.empty()) {
        const std::size_t length = utf8_length(text);
        switch (text[0]) {
            case '&': html += "&amp;"; break;
            case '<': html += "&lt;"; break;
            case '>': html += "&gt;"; break;
            case '"': html += "&quot;"; break;
            case '\'': html += "&#39;"; break;
            default:
                if (length == 0 || text[0] == '\0')
                    html += "\xEF\xBF\xBD";
                else
                    html += text.substr(0, length);
        }
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
    return html;
}

std::string script_json(const nlohmann::json& value) {
    const std::string text =
        value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);  // ASCII only
    std::string safe;
    for (const char c : text) {
        if (c == '<')
            safe += "\\u003c";
        else
            safe += c;
    }
    return safe;
}

std::string throughput_svg(const std::vector<std::int64_t>& finished) {
    if (finished.empty()) return "";
    const auto [first, last] = std::minmax_element(finished.begin(), finished.end());
    const double span = static_cast<double>(*last - *first + 1);
    // Two clips a bar at least, on average: else there is nothing to see but single clips.
    const std::size_t bars = std::clamp<std::size_t>(
        std::min(static_cast<std::size_t>(span / 10), finished.size() / 2), 1, most_bars);
    std::vector<std::size_t> counts(bars);
    for (const std::int64_t time : finished)
        ++counts[static_cast<std::size_t>(static_cast<double>(time - *first) / span *
                                          static_cast<double>(bars))];
    const double hours = span / static_cast<double>(bars) / 3600;
    const double most =
        round_up(static_cast<double>(*std::max_element(counts.begin(), counts.end())) / hours);
    constexpr double left = 56, right = 712, top = 12, bottom = 160;
    const double width = (right - left) / static_cast<double>(bars);
    std::string svg =
        "<svg viewBox=\"0 0 720 190\" role=img aria-label=\"clips an hour over time\">\n";
    for (const double share : {0.0, 0.5, 1.0}) {
        const double y = bottom - share * (bottom - top);
        svg += fmt::format(
            "<line x1={} x2={} y1={:.1f} y2={:.1f} class=grid /><text x={} y={:.1f} "
            "text-anchor=end>{:g}</text>\n",
            left, right, y, y, left - 6, y + 4, most * share);
    }
    for (std::size_t i = 0; i < bars; ++i) {
        const double rate = static_cast<double>(counts[i]) / hours;
        const double height = rate / most * (bottom - top);
        svg += fmt::format(
            "<rect x={:.2f} y={:.2f} width={:.2f} height={:.2f}><title>{} clips, {:.1f} an "
            "hour</title></rect>\n",
            left + static_cast<double>(i) * width + 0.5, bottom - height, std::max(width - 1, 0.5),
            height, counts[i], rate);
    }
    for (const double share : {0.0, 0.5, 1.0})
        svg += fmt::format("<text x={:.1f} y={} text-anchor={}>{}</text>\n",
                           left + share * (right - left), bottom + 18,
                           share == 0   ? "start"
                           : share == 1 ? "end"
                                        : "middle",
                           clock_text(share * span));
    return svg + "</svg>\n";
}

std::string report_page(const ReportFigures& figures) {
    std::string html = fmt::format(
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\n"
        "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n"
        "<title>{}</title>\n<style>{}</style></head><body>\n",
        html_text(figures.survey.status.name), report_style);
    html += head(figures.survey.status);
    if (const std::string svg = throughput_svg(figures.finished); !svg.empty())
        html += "<section><h2>Clips an hour</h2>" + svg + "</section>\n";
    html += "<div class=columns>" + stage_table(figures.stages) + host_table(figures) + "</div>\n";
    html += failure_list(figures);
    html += report_sheet;
    if (figures.clips < figures.survey.status.done)
        html += fmt::format("<p>Shown are the first {} of {} clips; index.jsonl has all.</p>\n",
                            figures.clips, figures.survey.status.done);
    html += fmt::format("<script>const axes = {};\n{}</script>\n", script_json(figures.axes),
                        report_script);
    for (const std::string& name : figures.data)
        html += fmt::format("<script src=\"{}\"></script>\n", name);
    return html + "<script>loaded()</script></body></html>\n";
}

}  // namespace gallop
