#include "media/exif.hpp"

#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace gallop {
namespace {

using Bytes = std::span<const std::byte>;

/// Part of the bytes; empty when it reaches past the end.
Bytes part(Bytes bytes, std::uint64_t at, std::uint64_t count) {
    if (at > bytes.size() || count > bytes.size() - at) return {};
    return bytes.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
}

bool starts_with(Bytes bytes, std::string_view text) {
    return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

/// An unsigned number of `count` bytes, or nothing past the end.
std::optional<std::uint32_t> number(Bytes bytes, std::uint64_t at, int count, bool big_endian) {
    const Bytes digits = part(bytes, at, static_cast<std::uint64_t>(count));
    if (digits.empty()) return {};
    std::uint32_t value = 0;
    for (int i = 0; i < count; ++i) {
        const int index = big_endian ? i : count - 1 - i;
        value =
            value << 8 | std::to_integer<std::uint32_t>(digits[static_cast<std::size_t>(index)]);
    }
    return value;
}

/// The Orientation of a TIFF structure's first directory.
int orientation_of_tiff(Bytes tiff) {
    using std::string_view_literals::operator""sv;
    const bool big_endian = starts_with(tiff, "MM\0*"sv);
    if (!big_endian && !starts_with(tiff, "II*\0"sv)) return 1;
    const auto directory = number(tiff, 4, 4, big_endian);
    if (!directory) return 1;
    const auto entries = number(tiff, *directory, 2, big_endian);
    for (std::uint64_t i = 0; i < entries.value_or(0); ++i) {
        const std::uint64_t at = std::uint64_t{*directory} + 2 + 12 * i;
        const auto tag = number(tiff, at, 2, big_endian);
        const auto type = number(tiff, at + 2, 2, big_endian);
        const auto value = number(tiff, at + 8, 2, big_endian);
        if (!tag || !type || !value) return 1;
        constexpr std::uint32_t orientation_tag = 0x0112;
        constexpr std::uint32_t type_short = 3;
        if (*tag == orientation_tag)
            return *type == type_short && *value >= 1 && *value <= 8 ? static_cast<int>(*value) : 1;
    }
    return 1;
}

/// The TIFF structure of an EXIF block, with or without the prefix that JPEG gives it.
Bytes without_prefix(Bytes exif) {
    using std::string_view_literals::operator""sv;
    return starts_with(exif, "Exif\0\0"sv) ? exif.subspan(6) : exif;
}

/// One marker segment of a JPEG's header.
struct Segment {
    std::uint32_t marker = 0;
    Bytes content;
    std::uint64_t end = 0;  ///< offset of the next marker
};

std::optional<Segment> jpeg_segment(Bytes file, std::uint64_t at) {
    auto marker = number(file, at, 2, true);
    while (marker && *marker == 0xFFFF) marker = number(file, ++at, 2, true);  // fill bytes
    const auto length = number(file, at + 2, 2, true);
    if (!marker || !length || *marker < 0xFF01 || *length < 2) return {};
    return Segment{*marker, part(file, at + 4, *length - 2), at + 2 + *length};
}

constexpr std::uint32_t jpeg_start_of_scan = 0xFFDA;

bool is_jpeg(Bytes file) { return starts_with(file, "\xFF\xD8\xFF"); }

Bytes exif_of_jpeg(Bytes file) {
    using std::string_view_literals::operator""sv;
    constexpr std::uint32_t app1 = 0xFFE1;
    std::uint64_t at = 2;
    while (const auto segment = jpeg_segment(file, at)) {
        if (segment->marker == jpeg_start_of_scan) break;
        if (segment->marker == app1 && starts_with(segment->content, "Exif\0\0"sv))
            return segment->content;
        at = segment->end;
    }
    return {};
}

Bytes exif_of_png(Bytes file) {
    std::uint64_t at = 8;
    while (const auto length = number(file, at, 4, true)) {
        const Bytes type = part(file, at + 4, 4);
        if (starts_with(type, "eXIf")) return part(file, at + 8, *length);
        at += 12 + std::uint64_t{*length};  // length, type, content, checksum
    }
    return {};
}

Bytes exif_of_webp(Bytes file) {
    std::uint64_t at = 12;
    while (const auto length = number(file, at + 4, 4, false)) {
        if (starts_with(part(file, at, 4), "EXIF")) return part(file, at + 8, *length);
        at += 8 + std::uint64_t{*length} + (*length & 1U);  // chunks are padded to even lengths
    }
    return {};
}

}  // namespace

int exif_orientation(Bytes file) {
    if (is_jpeg(file)) return orientation_of_tiff(without_prefix(exif_of_jpeg(file)));
    if (starts_with(file, "\x89PNG\r\n\x1A\n"))
        return orientation_of_tiff(without_prefix(exif_of_png(file)));
    if (starts_with(file, "RIFF") && starts_with(part(file, 8, 4), "WEBP"))
        return orientation_of_tiff(without_prefix(exif_of_webp(file)));
    return orientation_of_tiff(file);
}

bool is_cut_off_jpeg(Bytes file) {
    if (!is_jpeg(file)) return false;
    std::uint64_t at = 2;
    for (;;) {
        const auto segment = jpeg_segment(file, at);
        if (!segment || segment->end > file.size()) return true;
        at = segment->end;
        if (segment->marker == jpeg_start_of_scan) break;
    }
    // Inside picture data 0xFF is always followed by 0 or a restart marker, so this is the real
    // end.
    const std::string_view data(reinterpret_cast<const char*>(file.data()), file.size());
    return data.find("\xFF\xD9", static_cast<std::size_t>(at)) == std::string_view::npos;
}

}  // namespace gallop
