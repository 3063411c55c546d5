#include "core/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace gallop {
namespace {

thread_local std::string scope;

/// The text with its control characters written out, so that a line stays one.
std::string in_one_line(std::string_view text) {
    std::string line;
    for (const char c : text) {
        if (c == '\n')
            line += "\\n";
        else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        else
            line += c;
    }
    return line;
}

spdlog::logger& logger() {
    static const auto instance = [] {
        auto made = spdlog::stderr_logger_mt("gallop");
        made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
        return made;
    }();
    return *instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
    switch (level) {
        case LogLevel::debug: return spdlog::level::debug;
        case LogLevel::info: return spdlog::level::info;
        case LogLevel::warning: return spdlog::level::warn;
        case LogLevel::error: return spdlog::level::err;
    }
    return spdlog::level::info;
}

}  // namespace

void log_line(LogLevel level, std::string_view text) {
    logger().log(to_spdlog(level), "{}{}", scope, in_one_line(text));
}

void set_log_level(LogLevel level) { logger().set_level(to_spdlog(level)); }

LogScope::LogScope(std::string_view key, std::string_view value) : length_before_(scope.size()) {
    scope += fmt::format("{}={} ", key, value);
}

LogScope::~LogScope() { scope.resize(length_before_); }

}  // namespace gallop
