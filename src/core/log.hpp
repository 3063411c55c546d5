#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

namespace gallop {

enum class LogLevel { debug, info, warning, error };

/// One line, one fact, on stderr: time, level, the scope's key=value pairs, the text (line ends as \n).
void log_line(LogLevel level, std::string_view text);

/// Lines below this level are dropped. Default: info.
void set_log_level(LogLevel level);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
    log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
    log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
    log_line(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
    log_line(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
}

/// Adds `key=value` to every log line of this thread while it lives.
class LogScope {
public:
    LogScope(std::string_view key, std::string_view value);
    ~LogScope();
    LogScope(const LogScope&) = delete;
    LogScope& operator=(const LogScope&) = delete;

private:
    std::size_t length_before_;
};

}  // namespace gallop
