#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace gallop {

/// Who is to blame for what fails, among processes that share a run without a coordinator: by all
/// journals, so that all of them come to the same. An item that failed in one process and was done in
/// another blames the first by 1; each item that a process has done takes half of that back. Full disks
/// are everybody's, and memory runs out because of the item.
class Blame {
public:
    static constexpr double too_much = 3;

    /// A journal's line about an item of the plan.
    void apply(const nlohmann::json& event, std::size_t item);
    /// How much is a process's. Processes are named "HOST-NUMBER".
    double of(const std::string& process) const;
    /// Whether a process had better leave the run to the `others` that are there: it is blamed too
    /// much, and one of them is not. What all are blamed for is a trouble that all have had: then
    /// nobody leaves.
    bool drives_out(const std::string& process, const std::vector<std::string>& others) const;

private:
    std::map<std::string, double> blame_;
    std::map<std::size_t, std::set<std::string>> failed_;  ///< open items, and where they did
};

/// The name of a process, as Blame and LeaseFolder have it.
std::string process_name(const std::string& host, int number);

}  // namespace gallop
