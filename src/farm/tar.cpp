#include "farm/tar.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "core/check.hpp"
#include "core/file_errors.hpp"

namespace gallop {
namespace {

constexpr std::size_t block = 512;
constexpr std::size_t most_name = 100;
constexpr std::uint64_t most_size = (std::uint64_t{1} << 33) - 1;  // eleven octal digits

/// One block. type: '0' a file, 'x' a pax header of the next member, 'g' a global one.
std::string ustar_block(std::string_view name, std::uint64_t size, char type) {
    std::string header(block, '\0');
    const auto put = [&](std::size_t at, std::string_view text) {
        std::copy(text.begin(), text.end(), header.begin() + static_cast<std::ptrdiff_t>(at));
    };
    put(0, name.substr(0, most_name));
    put(100, "0000644");
    put(108, "0000000");  // owner
    put(116, "0000000");  // group
    put(124, fmt::format("{:011o}", std::min(size, most_size)));
    put(136, "00000000000");  // time
    put(148, "        ");     // the sum counts its own field as spaces
    header[156] = type;
    put(257, std::string_view("ustar\0"
                              "00",
                              8));
    put(265, "root");
    put(297, "root");
    put(329, "0000000");
    put(337, "0000000");
    const unsigned sum = std::accumulate(
        header.begin(), header.end(), 0U,
        [](unsigned total, char c) { return total + static_cast<unsigned char>(c); });
    put(148, std::string_view(fmt::format("{:06o}", sum) + std::string("\0 ", 2)));
    return header;
}

/// "LENGTH KEY=VALUE\n", the length counting its own digits.
std::string pax_record(std::string_view key, std::string_view value) {
    const std::string rest = fmt::format(" {}={}\n", key, value);
    std::size_t length = rest.size() + 1;
    while (std::to_string(length).size() + rest.size() != length) ++length;
    return std::to_string(length) + rest;
}

std::uint64_t padded(std::uint64_t size) { return (size + block - 1) / block * block; }

std::string pax_header(std::string_view name, std::string_view records, char type) {
    std::string text = ustar_block(name, records.size(), type) + std::string(records);
    text.resize(padded(text.size()), '\0');
    return text;
}

}  // namespace

std::string tar_header(std::string_view name, std::uint64_t size) {
    std::string records;
    if (name.size() > most_name) records += pax_record("path", name);
    if (size > most_size) records += pax_record("size", std::to_string(size));
    return (records.empty() ? "" : pax_header("pax_header", records, 'x')) +
           ustar_block(name, size, '0');
}

std::uint64_t tar_member_bytes(std::string_view name, std::uint64_t size) {
    return tar_header(name, size).size() + padded(size);
}

TarWriter::TarWriter(const std::filesystem::path& path, std::string_view comment)
    : file_(path), descriptor_(::open(file_.path().c_str(), O_WRONLY | O_CLOEXEC)) {
    if (!descriptor_) throw_file_error(file_.path(), "cannot open", errno);
    write(pax_header("pax_global_header", pax_record("comment", comment), 'g'));
}

void TarWriter::write(std::string_view bytes) {
    written_ += bytes.size();
    write_all(descriptor_.get(), bytes, file_.path());
}

void TarWriter::pad(std::uint64_t size) {
    write(std::string(static_cast<std::size_t>(padded(size) - size), '\0'));
}

void TarWriter::add(std::string_view name, std::string_view content) {
    write(tar_header(name, content.size()));
    write(content);
    pad(content.size());
}

void TarWriter::add_file(std::string_view name, const std::filesystem::path& file) {
    const InputFile in(file);
    write(tar_header(name, in.size()));
    std::vector<char> buffer(1U << 20);
    for (std::uint64_t at = 0; at < in.size();) {
        const auto count =
            static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), in.size() - at));
        in.read(at, std::as_writable_bytes(std::span(buffer.data(), count)));
        write({buffer.data(), count});
        at += count;
    }
    pad(in.size());
}

std::uint64_t TarWriter::finish() {
    write(std::string(2 * block, '\0'));
    descriptor_.reset();
    file_.commit();
    return written_;
}

std::optional<std::string> tar_comment(const std::filesystem::path& path) {
    std::array<char, 2 * block> head{};
    try {
        const InputFile file(path);
        file.read(0, std::as_writable_bytes(std::span(head)));
    } catch (const Error&) {  // shorter than an archive of ours, or no file
        return {};
    }
    const std::string_view text(head.data(), head.size());
    constexpr std::string_view key = " comment=";
    const std::string_view record = text.substr(block);
    const std::size_t at = record.find(key);
    const std::size_t end = record.find('\n');
    if (!text.starts_with("pax_global_header") || text[156] != 'g' || at > 4 ||
        end == std::string_view::npos || end < at + key.size())
        return {};
    return std::string(record.substr(at + key.size(), end - at - key.size()));
}

}  // namespace gallop
