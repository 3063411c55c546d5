#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <utility>

namespace gallop::test {

/// Writes a WAV file of 16-bit mono sound at 51,200 Hz: ramps of a hundred samples.
inline void write_sound(const std::filesystem::path& path, int samples) {
    std::ofstream file(path, std::ios::binary);
    const auto number = [&](std::uint32_t value, int bytes) {
        for (int i = 0; i < bytes; ++i) file.put(static_cast<char>(value >> (8 * i)));
    };
    file << "RIFF";
    number(36 + 2 * static_cast<std::uint32_t>(samples), 4);
    file << "WAVEfmt ";
    for (const auto& [value, bytes] :
         {std::pair{16U, 4}, {1U, 2}, {1U, 2}, {51200U, 4}, {102400U, 4}, {2U, 2}, {16U, 2}})
        number(value, bytes);
    file << "data";
    number(2 * static_cast<std::uint32_t>(samples), 4);
    for (int i = 0; i < samples; ++i) number(static_cast<std::uint32_t>(i % 100 * 100), 2);
}

}  // namespace gallop::test
