#include "farm/blame.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace gallop {

std::string process_name(const std::string& host, int number) {
    return fmt::format("{}-{}", host, number);
}

void Blame::apply(const nlohmann::json& event, std::size_t item) {
    const std::string kind = event.value("event", "");
    if (kind == "failed") {
        const std::string why = event.value("kind", "");
        if (why != "disk" && why != "out_of_memory")
            failed_[item].insert(process_name(event.value("host", ""), event.value("agent", 0)));
    } else if (kind == "done") {
        const std::string by = process_name(event.value("host", ""), event.value("agent", 0));
        double& own = blame_[by];
        own = std::max(0.0, own - 0.5);
        for (const std::string& process : failed_[item])
            if (process != by) ++blame_[process];
        failed_.erase(item);
    } else if (kind == "quarantined" || kind == "retry" || kind == "reopened") {
        failed_.erase(item);
    }
}

double Blame::of(const std::string& process) const {
    const auto known = blame_.find(process);
    return known == blame_.end() ? 0 : known->second;
}

bool Blame::drives_out(const std::string& process, const std::vector<std::string>& others) const {
    return of(process) >= too_much &&
           std::any_of(others.begin(), others.end(),
                       [&](const std::string& other) { return of(other) < too_much; });
}

}  // namespace gallop
