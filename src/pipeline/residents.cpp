#include "pipeline/residents.hpp"

#include <algorithm>

namespace gallop {

void Residents::came(const std::string& name, std::function<void()> leave) {
    all_.emplace_back(name, std::move(leave));
}

void Residents::used(const std::string& name) {
    const auto found = std::find_if(all_.begin(), all_.end(),
                                    [&](const auto& entry) { return entry.first == name; });
    if (found != all_.end()) all_.splice(all_.end(), all_, found);
}

std::vector<std::string> Residents::make_room(
    std::size_t bytes, const std::string& kept,
    const std::function<std::optional<std::size_t>()>& left) {
    std::vector<std::string> gone;
    for (auto entry = all_.begin(); entry != all_.end();) {
        const auto have = left();
        if (!have || *have >= bytes) break;
        if (entry->first == kept) {
            ++entry;
            continue;
        }
        entry->second();
        gone.push_back(entry->first);
        entry = all_.erase(entry);
    }
    return gone;
}

}  // namespace gallop
