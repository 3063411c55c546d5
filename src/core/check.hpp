#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

#include "core/error.hpp"

namespace gallop::detail {
[[noreturn]] void throw_check_failed(const char* file, int line, const char* condition,
                                     std::string_view message);
}  // namespace gallop::detail

namespace gallop {

/// Throws InputError with a formatted text.
template <class... Args>
[[noreturn]] void throw_input_error(fmt::format_string<Args...> format, Args&&... args) {
    throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace gallop

/// Always on. Throws gallop::Error with file:line, the condition and a formatted message.
#define CHECK(condition, ...)                                                    \
    do {                                                                         \
        if (!(condition)) [[unlikely]]                                           \
            ::gallop::detail::throw_check_failed(__FILE__, __LINE__, #condition, \
                                                 ::fmt::format(__VA_ARGS__));    \
    } while (false)
