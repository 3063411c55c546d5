#include "farm/run_directory.hpp"

#include <chrono>
#include <ctime>
#include <fstream>
#include <vector>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "farm/run_lock.hpp"
#include "farm/time_text.hpp"

namespace gallop {

namespace fs = std::filesystem;

void sign_complete(const fs::path& directory, std::string_view outcome) {
    write_atomically(directory / "COMPLETE", fmt::format("{} {}\n", outcome, utc_text()));
}

void sign_attempt_end(const fs::path& directory, std::string_view outcome) {
    write_atomically(directory / "ATTEMPT_END", fmt::format("{}\n", outcome));
}

void sign_refused_end(const fs::path& directory) {
    const fs::path path = directory / "ATTEMPT_END";
    std::ofstream sign(path);
    if (!sign)
        log_warning("{}: cannot be made; this attempt looks like one that died", path.string());
    sign << "stopped\n";
}

void sweep(const fs::path& directory) {
    std::vector<fs::path> left;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with('.') && name.ends_with(".tmp") && entry.is_regular_file())
            left.push_back(entry.path());
    }
    for (const fs::path& path : left) {
        std::error_code failed;
        fs::remove(path, failed);
        log_info("removed a half-written file path={}", path.string());
    }
}

std::string utc_text() {
    const auto now = std::chrono::system_clock::now();
    const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

}  // namespace gallop
