#include "model/zip.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "core/check.hpp"

namespace gallop {
namespace {

// Sizes of the fixed parts of the records, and their signatures.
constexpr std::uint64_t end_size = 22;
constexpr std::uint64_t locator_size = 20;
constexpr std::uint64_t end64_size = 56;
constexpr std::uint64_t central_size = 46;
constexpr std::uint64_t local_size = 30;
constexpr std::uint32_t end_signature = 0x06054b50;
constexpr std::uint32_t locator_signature = 0x07064b50;
constexpr std::uint32_t end64_signature = 0x06064b50;
constexpr std::uint32_t central_signature = 0x02014b50;
constexpr std::uint32_t local_signature = 0x04034b50;
constexpr std::uint64_t max_directory = 64U << 20;

template <class T>
T number_at(std::span<const std::byte> bytes, std::size_t at) {
    T value{};
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

struct Directory {
    std::uint64_t offset;
    std::uint64_t bytes;
    std::uint64_t entries;
};

class ZipReader {
public:
    ZipReader(ByteSource& source, const std::string& file)
        : source_(source), file_(file), size_(source.size_bound()) {}

    std::vector<ZipEntry> entries() {
        const Directory directory = find_directory();
        if (directory.offset > size_ || directory.bytes > size_ - directory.offset)
            throw_input_error("{}: the zip directory ({} bytes at {}) leaves the file of {} bytes",
                              file_, directory.bytes, directory.offset, size_);
        if (directory.bytes > max_directory)
            throw_input_error("{}: a zip directory of {} bytes (at most {})", file_,
                              directory.bytes, max_directory);
        const std::vector<std::byte> bytes = load(directory.offset, directory.bytes);
        std::vector<ZipEntry> found;
        for (std::size_t at = 0; found.size() < directory.entries;)
            found.push_back(entry(bytes, at, directory.offset));
        check(found);
        return found;
    }

private:
    std::vector<std::byte> load(std::uint64_t offset, std::uint64_t bytes) {
        std::vector<std::byte> loaded(static_cast<std::size_t>(bytes));
        source_.read(offset, loaded);
        return loaded;
    }

    Directory find_directory() {
        // The end record is followed by a comment of at most 65535 bytes.
        const std::uint64_t tail_size = std::min<std::uint64_t>(size_, end_size + 0xffff);
        const std::vector<std::byte> tail = load(size_ - tail_size, tail_size);
        for (std::size_t at = tail.size() < end_size ? 0 : tail.size() - end_size + 1; at-- > 0;) {
            if (number_at<std::uint32_t>(tail, at) != end_signature) continue;
            if (at + end_size + number_at<std::uint16_t>(tail, at + 20) != tail.size()) continue;
            const std::uint64_t end = size_ - tail_size + at;
            const auto disk = number_at<std::uint16_t>(tail, at + 4);
            if (disk != 0 && disk != 0xffff) throw_input_error("{}: a zip of several parts", file_);
            if (const auto zip64 = find_zip64(end)) return *zip64;
            return {number_at<std::uint32_t>(tail, at + 16),
                    number_at<std::uint32_t>(tail, at + 12),
                    number_at<std::uint16_t>(tail, at + 10)};
        }
        throw_input_error("{}: truncated or not a zip archive: no end record", file_);
    }

    std::optional<Directory> find_zip64(std::uint64_t end) {
        if (end < locator_size) return std::nullopt;
        const auto locator = load(end - locator_size, locator_size);
        if (number_at<std::uint32_t>(locator, 0) != locator_signature) return std::nullopt;
        const auto at = number_at<std::uint64_t>(locator, 8);
        if (at > size_ || size_ - at < end64_size)
            throw_input_error("{}: the zip64 end record at {} leaves the file of {} bytes", file_,
                              at, size_);
        const auto record = load(at, end64_size);
        if (number_at<std::uint32_t>(record, 0) != end64_signature)
            throw_input_error("{}: no zip64 end record at {}", file_, at);
        return Directory{number_at<std::uint64_t>(record, 48), number_at<std::uint64_t>(record, 40),
                         number_at<std::uint64_t>(record, 32)};
    }

    ZipEntry entry(std::span<const std::byte> bytes, std::size_t& at, std::uint64_t directory) {
        if (bytes.size() - at < central_size ||
            number_at<std::uint32_t>(bytes, at) != central_signature)
            throw_input_error("{}: malformed zip directory at byte {}", file_, directory + at);
        const auto head = bytes.subspan(at);
        const std::size_t name_size = number_at<std::uint16_t>(head, 28);
        const std::size_t extra_size = number_at<std::uint16_t>(head, 30);
        const std::size_t whole =
            central_size + name_size + extra_size + number_at<std::uint16_t>(head, 32);
        if (head.size() < whole)
            throw_input_error("{}: malformed zip directory at byte {}", file_, directory + at);
        at += whole;

        ZipEntry made;
        made.name.assign(reinterpret_cast<const char*>(head.data()) + central_size, name_size);
        if ((number_at<std::uint16_t>(head, 8) & 1U) != 0)
            throw_input_error("{}: member '{}' is encrypted", file_, made.name);
        if (number_at<std::uint16_t>(head, 10) != 0)
            throw_input_error(
                "{}: member '{}' is compressed (torch.save stores without compression)", file_,
                made.name);
        std::uint64_t packed = number_at<std::uint32_t>(head, 20);
        made.bytes = number_at<std::uint32_t>(head, 24);
        std::uint64_t local = number_at<std::uint32_t>(head, 42);
        widen(head.subspan(central_size + name_size, extra_size), made.name,
              {&made.bytes, &packed, &local});
        if (packed != made.bytes)
            throw_input_error("{}: member '{}' is stored in {} bytes but has {}", file_, made.name,
                              packed, made.bytes);

        if (local > directory || directory - local < local_size)
            throw_input_error("{}: member '{}' at byte {} leaves the data", file_, made.name,
                              local);
        const auto header = load(local, local_size);
        if (number_at<std::uint32_t>(header, 0) != local_signature)
            throw_input_error("{}: no zip member at byte {} ('{}')", file_, local, made.name);
        made.offset = local + local_size + number_at<std::uint16_t>(header, 26) +
                      number_at<std::uint16_t>(header, 28);
        if (made.offset > directory || made.bytes > directory - made.offset)
            throw_input_error("{}: truncated: member '{}' ({} bytes at {}) leaves the data", file_,
                              made.name, made.bytes, made.offset);
        return made;
    }

    // Replaces each value of 0xffffffff by the next 64-bit number of the zip64 extra field.
    void widen(std::span<const std::byte> extra, const std::string& name,
               std::initializer_list<std::uint64_t*> values) {
        std::span<const std::byte> wide;
        while (extra.size() >= 4) {
            const std::size_t size = number_at<std::uint16_t>(extra, 2);
            if (size > extra.size() - 4) break;
            if (number_at<std::uint16_t>(extra, 0) == 1) wide = extra.subspan(4, size);
            extra = extra.subspan(4 + size);
        }
        for (std::uint64_t* value : values) {
            if (*value != 0xffffffffU) continue;
            if (wide.size() < 8)
                throw_input_error("{}: member '{}' lacks its zip64 sizes", file_, name);
            *value = number_at<std::uint64_t>(wide, 0);
            wide = wide.subspan(8);
        }
    }

    void check(std::vector<ZipEntry>& found) {
        std::sort(found.begin(), found.end(),
                  [](const ZipEntry& a, const ZipEntry& b) { return a.offset < b.offset; });
        for (std::size_t i = 1; i < found.size(); ++i)
            if (found[i].offset - found[i - 1].offset < found[i - 1].bytes + local_size)
                throw_input_error("{}: members '{}' and '{}' overlap", file_, found[i - 1].name,
                                  found[i].name);
        std::sort(found.begin(), found.end(),
                  [](const ZipEntry& a, const ZipEntry& b) { return a.name < b.name; });
        for (std::size_t i = 1; i < found.size(); ++i)
            if (found[i].name == found[i - 1].name)
                throw_input_error("{}: two members are named '{}'", file_, found[i].name);
    }

    ByteSource& source_;
    const std::string& file_;
    std::uint64_t size_;
};

constexpr auto crc_table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < made.size(); ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit)
            value = (value >> 1) ^ ((value & 1U) != 0 ? 0xedb88320U : 0U);
        made[i] = value;
    }
    return made;
}();

// CRC-32 of ISO 3309, as zip wants it.
std::uint32_t crc32(std::span<const std::byte> bytes) {
    std::uint32_t crc = ~0U;
    for (const std::byte byte : bytes)
        crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<std::uint32_t>(byte)) & 0xffU];
    return ~crc;
}

// Little-endian fields, one after another.
class Record {
public:
    template <class T>
    Record& put(T value) {
        const auto bytes = std::as_bytes(std::span(&value, 1));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    Record& put_text(std::string_view text) {
        const auto bytes = std::as_bytes(std::span(text));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    Record& fill(std::size_t count) {
        bytes_.insert(bytes_.end(), count, std::byte{0});
        return *this;
    }
    std::span<const std::byte> bytes() const { return bytes_; }

private:
    std::vector<std::byte> bytes_;
};

constexpr std::uint16_t version = 45;  // of the zip64 extensions
constexpr std::uint16_t date = 0x21;   // 1 January 1980: the same tensors give the same file
constexpr std::uint32_t in_extra = 0xffffffffU;
constexpr std::uint16_t zip64_id = 1;
constexpr std::uint16_t padding_id = 0x4246;  // "FB", torch's own

}  // namespace

void ZipWriter::add(const std::string& name, std::span<const std::byte> content) {
    constexpr std::uint64_t alignment = 64;
    const std::uint64_t sizes = 4 + 16;
    const std::uint64_t unpadded = file_.position() + local_size + name.size() + sizes + 4;
    const auto padding = static_cast<std::uint16_t>((alignment - unpadded % alignment) % alignment);
    members_.push_back({name, file_.position(), content.size(), crc32(content)});
    Record header;
    header.put(local_signature).put(version).fill(2 + 2 + 2).put(date).put(members_.back().crc);
    header.put(in_extra).put(in_extra);
    header.put(static_cast<std::uint16_t>(name.size()));
    header.put(static_cast<std::uint16_t>(sizes + 4 + padding)).put_text(name);
    const std::uint64_t bytes = content.size();
    header.put(zip64_id).put(std::uint16_t{16}).put(bytes).put(bytes);
    header.put(padding_id).put(padding).fill(padding);
    file_.write(header.bytes());
    file_.write(content);
}

void ZipWriter::commit() {
    const std::uint64_t directory = file_.position();
    for (const Member& member : members_) {
        Record entry;
        entry.put(central_signature).put(version).put(version).fill(2 + 2 + 2).put(date);
        entry.put(member.crc).put(in_extra).put(in_extra);
        entry.put(static_cast<std::uint16_t>(member.name.size())).put(std::uint16_t{4 + 24});
        entry.fill(2 + 2 + 2 + 4).put(in_extra).put_text(member.name);
        entry.put(zip64_id)
            .put(std::uint16_t{24})
            .put(member.bytes)
            .put(member.bytes)
            .put(member.header);
        file_.write(entry.bytes());
    }
    const std::uint64_t end = file_.position();
    const std::uint64_t count = members_.size();
    Record tail;
    tail.put(end64_signature).put(end64_size - 12).put(version).put(version).fill(4 + 4);
    tail.put(count).put(count).put(end - directory).put(directory);
    tail.put(locator_signature).fill(4).put(end).put(std::uint32_t{1});
    tail.put(end_signature).fill(2 + 2).put(std::uint16_t{0xffff}).put(std::uint16_t{0xffff});
    tail.put(in_extra).put(in_extra).fill(2);
    file_.write(tail.bytes());
    file_.commit();
}

std::vector<ZipEntry> read_zip_directory(ByteSource& source, const std::string& file) {
    return ZipReader(source, file).entries();
}

}  // namespace gallop
