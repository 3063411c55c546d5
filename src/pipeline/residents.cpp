#include "pipeline/residents.hpp"

#include <algorithm>

namespace gallop {

void Residents::came(const std::string& name, std::size_t bytes, std::function<void()> leave) {
    all_.push_back({name, bytes, std::move(leave)});
}

void Residents::used(const std::string& name) {
    const auto found =
        std::find_if(all_.begin(), all_.end(), [&](const auto& one) { return one.name == name; });
    if (found != all_.end()) all_.splice(all_.end(), all_, found);
}

std::vector<std::string> Residents::make_room(
    std::size_t bytes, const std::string& kept,
    const std::function<std::optional<std::size_t>()>& left) {
    std::vector<std::string> gone;
    for (;;) {
        const auto have = left();
        if (!have || *have >= bytes) return gone;
        const auto may_go = [&](const Resident& one) { return one.name != kept; };
        auto next = std::find_if(all_.begin(), all_.end(), [&](const Resident& one) {
            return may_go(one) && *have + one.bytes >= bytes;
        });
        if (next == all_.end()) next = std::find_if(all_.begin(), all_.end(), may_go);
        if (next == all_.end()) return gone;
        next->leave();
        gone.push_back(next->name);
        all_.erase(next);
    }
}

}  // namespace gallop
