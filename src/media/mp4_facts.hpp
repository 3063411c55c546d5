#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace gallop {

/// What a clip turns out to be when all of it is decoded.
struct Mp4Facts {
    std::string video_codec;   ///< "h264"
    std::string pix_fmt;       ///< "yuv420p"
    std::string color_matrix;  ///< "bt709"; likewise the next two
    std::string color_primaries;
    std::string color_transfer;
    std::string color_range;  ///< "tv": limited, "pc": full
    int width = 0;
    int height = 0;
    double frames_per_second = 0;
    std::int64_t frames = 0;   ///< pictures decoded
    double video_seconds = 0;  ///< as the file presents it
    std::string audio_codec;   ///< "aac"; empty: no sound
    int sample_rate = 0;
    int channels = 0;
    std::int64_t samples = 0;  ///< per channel, decoded
    double audio_seconds = 0;  ///< as the file presents it
    std::uint64_t bytes = 0;
    std::map<std::string, std::string> tags;
};

/// Decodes all of a clip. Throws InputError when it is not a clip or any part of it is damaged.
Mp4Facts read_mp4(const std::filesystem::path& path);

/// Reads a clip back and compares it with what it should be: pictures, size, both streams as long
/// as `frames`/25 s to within one picture. Throws Error with the first difference: the try has
/// failed.
Mp4Facts verify_mp4(const std::filesystem::path& path, std::int64_t frames, int width, int height);

}  // namespace gallop
