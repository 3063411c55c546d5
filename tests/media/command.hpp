#pragma once

#include <array>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

namespace gallop {

/// What a shell command prints; nothing when it fails or does not exist.
inline std::optional<std::string> output_of(const std::string& command) {
    std::FILE* pipe = ::popen((command + " 2>/dev/null").c_str(), "r");
    if (pipe == nullptr) return {};
    std::string output;
    std::array<char, 65536> block{};
    while (const std::size_t got = std::fread(block.data(), 1, block.size(), pipe))
        output.append(block.data(), got);
    return ::pclose(pipe) == 0 ? std::optional(output) : std::nullopt;
}

inline bool has_program(const std::string& name) {
    return output_of("command -v " + name).has_value();
}

}  // namespace gallop
