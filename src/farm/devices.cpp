#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "core/check.hpp"
#include "farm/agent.hpp"

namespace gallop {
namespace {

/// The entries of CUDA_VISIBLE_DEVICES, numbers or UUIDs, as they are.
std::vector<std::string> visible_devices() {
    const char* variable = std::getenv("CUDA_VISIBLE_DEVICES");
    if (variable == nullptr) return devices_in("/dev");
    std::vector<std::string> found;
    std::istringstream entries(variable);
    for (std::string entry; std::getline(entries, entry, ',');) {
        if (entry.empty() || entry == "-1") break;  // as CUDA does
        found.push_back(entry);
    }
    return found;
}

}  // namespace

std::vector<std::string> devices_in(const std::filesystem::path& folder) {
    std::vector<std::string> found;
    std::error_code failed;
    for (std::filesystem::directory_iterator entry(folder, failed), end; !failed && entry != end;
         entry.increment(failed)) {
        const std::string name = entry->path().filename().string();
        constexpr std::string_view prefix = "nvidia";
        if (name.starts_with(prefix) && name.size() > prefix.size() &&
            name.find_first_not_of("0123456789", prefix.size()) == std::string::npos)
            found.push_back(std::to_string(found.size()));
    }
    return found;
}

std::vector<std::string> devices_of_rank(const std::string& backend, int slots, LocalPlace place) {
    if (backend != "cuda")
        return std::vector<std::string>(static_cast<std::size_t>(slots == 0 ? 1 : slots));
    const std::vector<std::string> visible = visible_devices();
    // Launchers that give each rank its own devices, and those that show all to all, look the same
    // when there are as many ranks as devices visible to each; the former then shows each rank one.
    const auto ranks = static_cast<std::size_t>(place.size);
    std::vector<std::string> own = visible;
    if (ranks > 1 && visible.size() >= ranks) {
        own.clear();
        for (std::size_t i = static_cast<std::size_t>(place.rank); i < visible.size(); i += ranks)
            own.push_back(visible[i]);
    }
    if (own.empty())
        throw_input_error(
            "no CUDA device is visible (CUDA_VISIBLE_DEVICES={}); --backend cpu renders without",
            std::getenv("CUDA_VISIBLE_DEVICES") == nullptr ? "(unset)"
                                                           : std::getenv("CUDA_VISIBLE_DEVICES"));
    if (slots > static_cast<int>(own.size()))
        throw_input_error("--slots is {} (this rank has {} devices: {})", slots, own.size(),
                          fmt::join(own, ","));
    if (slots > 0) own.resize(static_cast<std::size_t>(slots));
    return own;
}

}  // namespace gallop
