#include "farm/batch_script.hpp"

#include <algorithm>
#include <cmath>

#include "core/check.hpp"

namespace gallop {
namespace {

constexpr std::string_view mark = "#SBATCH ";

std::vector<std::string> lines_of(std::string_view text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        lines.emplace_back(text.substr(at, end - at));
        at = end + 1;
    }
    return lines;
}

bool is_option(const std::string& line, const std::string& name) {
    const std::string start = fmt::format("{}--{}", mark, name);
    return line.starts_with(start) &&
           (line.size() == start.size() || line[start.size()] == '=' || line[start.size()] == ' ');
}

std::string option_line(const std::string& name, const std::string& value) {
    return fmt::format("{}--{}{}{}", mark, name, value.empty() ? "" : "=", value);
}

/// A value inside `${NAME:-…}` within double quotes.
std::string quoted(const std::string& value) {
    std::string text;
    for (const char c : value) {
        if (std::string_view("\"\\$`}").find(c) != std::string_view::npos) text += '\\';
        text += c;
    }
    return text;
}

}  // namespace

std::filesystem::path shipped_scripts() { return GALLOP_SLURM; }

BatchSettings batch_settings(const SlurmRequest& slurm, const std::string& time, double reserve,
                             bool array) {
    BatchSettings settings;
    auto& options = settings.options;
    const int nodes = std::max(1, slurm.nodes);
    if (array)
        options.emplace_back("array", nodes == 1 ? "0" : fmt::format("0-{}", nodes - 1));
    else
        options.emplace_back("nodes", nodes == 1 ? "1" : fmt::format("1-{}", nodes));
    const auto ask = [&](const char* name, const std::string& value) {
        if (!value.empty()) options.emplace_back(name, value);
    };
    ask("time", slurm.time.empty() ? time : slurm.time);
    ask("partition", slurm.partition);
    ask("account", slurm.account);
    ask("qos", slurm.qos);
    ask("constraint", slurm.constraint);
    ask("reservation", slurm.reservation);
    ask("mem", slurm.memory);
    if (slurm.gpus_per_node > 0) ask("gpus-per-node", std::to_string(slurm.gpus_per_node));
    if (slurm.cpus_per_task > 0) ask("cpus-per-task", std::to_string(slurm.cpus_per_task));
    // Slurm sends the signal up to a minute early, never late.
    const auto seconds = static_cast<long>(std::ceil(std::max(reserve, 30.0)));
    ask("signal", fmt::format("B:USR1@{}", seconds + 30));
    if (!array) settings.variables.emplace_back("STOP_SECONDS", std::to_string(seconds));
    if (!slurm.requeue) {
        settings.drop.emplace_back("requeue");
        options.emplace_back("no-requeue", "");
        settings.variables.emplace_back("REQUEUE", "no");
    }
    for (const std::string& option : slurm.options) settings.lines.push_back(option);
    return settings;
}

std::string fill_script(std::string_view script, const BatchSettings& settings) {
    std::vector<std::string> lines = lines_of(script);
    std::erase_if(lines, [&](const std::string& line) {
        return std::any_of(settings.drop.begin(), settings.drop.end(),
                           [&](const std::string& name) { return is_option(line, name); });
    });
    const auto is_any_option = [](const std::string& line) { return line.starts_with(mark); };
    const auto behind_options = [&] {
        const auto last = std::find_if(lines.rbegin(), lines.rend(), is_any_option);
        CHECK(last != lines.rend(), "a batch script without #SBATCH lines");
        return last.base();
    };
    for (const auto& [name, value] : settings.options) {
        const auto found = std::find_if(
            lines.begin(), lines.end(),
            [&, &wanted = name](const std::string& l) { return is_option(l, wanted); });
        if (found != lines.end())
            *found = option_line(name, value);
        else
            lines.insert(behind_options(), option_line(name, value));
    }
    for (const std::string& line : settings.lines)
        lines.insert(behind_options(), std::string(mark) + line);
    for (const auto& [name, value] : settings.variables) {
        const std::string start = fmt::format("{}=\"${{{}:-", name, name);
        const auto found = std::find_if(lines.begin(), lines.end(), [&](const std::string& line) {
            return line.starts_with(start);
        });
        CHECK(found != lines.end(), "the batch script has no variable {}", name);
        const std::size_t end = found->find("}\"", start.size());
        CHECK(end != std::string::npos, "the batch script's {} has no end", name);
        *found = start + quoted(value) + found->substr(end);
    }
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    return text;
}

}  // namespace gallop
