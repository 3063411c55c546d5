#include "farm/terminal.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <sys/ioctl.h>

#include "core/utf8.hpp"

namespace gallop {
namespace {

/// The code point that starts at `text[0]` and its bytes; {0, 1} for what is not UTF-8.
std::pair<char32_t, std::size_t> decode(std::string_view text) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return {0, 1};
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    char32_t point = length == 1 ? byte(0) : byte(0) & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) point = point << 6U | (byte(i) & 0x3FU);
    return {point, length};
}

bool within(char32_t point, char32_t first, char32_t last) {
    return first <= point && point <= last;
}

/// Source: Unicode's EastAsianWidth.txt, its large blocks.
std::size_t columns_of(char32_t point) {
    if (within(point, 0x300, 0x36F) || within(point, 0x200B, 0x200F) ||
        within(point, 0xFE00, 0xFE0F))
        return 0;
    constexpr std::array<std::pair<char32_t, char32_t>, 8> wide = {{{0x1100, 0x115F},
                                                                    {0x2E80, 0xA4CF},
                                                                    {0xAC00, 0xD7A3},
                                                                    {0xF900, 0xFAFF},
                                                                    {0xFE30, 0xFE6F},
                                                                    {0xFF00, 0xFF60},
                                                                    {0x1F300, 0x1FAFF},
                                                                    {0x20000, 0x3FFFD}}};
    return std::any_of(wide.begin(), wide.end(),
                       [&](auto block) { return within(point, block.first, block.second); })
               ? 2
               : 1;
}

}  // namespace

std::size_t terminal_columns(int descriptor) {
    winsize size{};
    return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string fit(std::string_view text, std::size_t columns) {
    std::string line;
    std::size_t used = 0;
    std::size_t cut = 0;  // bytes of `line` that leave a column for "…"
    while (!text.empty()) {
        const auto [point, length] = decode(text);
        const bool shown = point >= 0x20 && !within(point, 0x7F, 0x9F) &&
                           !within(point, 0x2028, 0x202E) && !within(point, 0x2066, 0x2069);
        const std::size_t width = shown ? columns_of(point) : 1;
        if (used + width > columns) {
            line.resize(cut);
            if (columns > 0) line += "…";
            return line;
        }
        line += shown ? text.substr(0, length) : "?";
        used += width;
        if (used < columns) cut = line.size();
        text.remove_prefix(length);
    }
    return line;
}

std::string clock_text(double seconds) {
    const auto whole = static_cast<long>(std::lround(std::max(seconds, 0.0)));
    if (whole >= 86400)
        return fmt::format("{}d {:02}:{:02}", whole / 86400, whole / 3600 % 24, whole / 60 % 60);
    if (whole >= 3600)
        return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
    return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string bytes_text(double bytes) {
    constexpr std::array<const char*, 6> units = {"B", "kB", "MB", "GB", "TB", "PB"};
    std::size_t unit = 0;
    while (bytes >= 999.5 && unit + 1 < units.size()) {
        bytes /= 1000;
        ++unit;
    }
    return fmt::format("{:.{}f} {}", bytes, unit > 0 && bytes < 9.95 ? 1 : 0, units[unit]);
}

}  // namespace gallop
