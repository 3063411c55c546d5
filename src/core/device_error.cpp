#include "core/device_error.hpp"

#include <algorithm>
#include <charconv>

namespace gallop {

bool architectures_serve(std::string_view architectures, int major, int minor) {
    while (!architectures.empty()) {
        const std::string_view entry = architectures.substr(0, architectures.find(';'));
        architectures.remove_prefix(std::min(entry.size() + 1, architectures.size()));
        int number = 0;
        const auto [end, bad] = std::from_chars(entry.data(), entry.data() + entry.size(), number);
        if (bad != std::errc()) continue;
        const std::string_view rest(end,
                                    static_cast<std::size_t>(entry.data() + entry.size() - end));
        const int version = 10 * major + minor;
        if (rest.starts_with("a")) {  // of one version only, as PTX, too
            if (number == version) return true;
            continue;
        }
        if (rest != "-virtual" && number / 10 == major && number <= version) return true;
        if (rest != "-real" && number <= version) return true;
    }
    return false;
}

}  // namespace gallop
