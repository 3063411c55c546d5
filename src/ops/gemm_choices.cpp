#include "ops/gemm_choices.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <sstream>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/log.hpp"

namespace gallop {
namespace {

constexpr std::string_view first_line = "gallop gemm choices 1";

/// FNV-1a, 64 bits. Source: http://www.isthe.com/chongo/tech/comp/fnv.
std::uint64_t checksum(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return hash;
}

/// Letters and digits of a platform, for a file's name.
std::string file_name(std::string_view platform) {
    std::string name = "gemm-";
    for (const char c : platform) {
        const bool plain =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.';
        if (plain)
            name += c;
        else if (name.back() != '-')
            name += '-';
    }
    return name + ".txt";
}

std::optional<DType> dtype_of(std::string_view name) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f8_e4m3})
        if (name == name_of(dtype)) return dtype;
    return std::nullopt;
}

std::string line_of(const GemmKey& key, const GemmAlgorithm& algorithm) {
    std::string line =
        fmt::format("{} {} {} {} {} {} {} {} {} {}", key.rows, key.out, key.depth, name_of(key.in),
                    name_of(key.to), key.add ? 1 : 0, key.bias ? 1 : 0, key.x_alignment,
                    key.w_alignment, key.y_alignment);
    for (const std::uint64_t word : algorithm) line += fmt::format(" {:016x}", word);
    return fmt::format("{} {:016x}", line, checksum(line));
}

/// Nothing when the line is damaged.
std::optional<std::pair<GemmKey, GemmAlgorithm>> parse(const std::string& line) {
    const std::size_t last = line.rfind(' ');
    if (last == std::string::npos) return std::nullopt;
    const auto hex = [](std::string_view text, std::uint64_t& value) {
        const auto [end, failed] =
            std::from_chars(text.data(), text.data() + text.size(), value, 16);
        return failed == std::errc() && end == text.data() + text.size();
    };
    std::uint64_t sum = 0;
    if (!hex(std::string_view(line).substr(last + 1), sum) || sum != checksum(line.substr(0, last)))
        return std::nullopt;
    std::istringstream in(line.substr(0, last));
    GemmKey key;
    std::string from, to;
    in >> key.rows >> key.out >> key.depth >> from >> to >> key.add >> key.bias >>
        key.x_alignment >> key.w_alignment >> key.y_alignment;
    const auto in_dtype = dtype_of(from);
    const auto to_dtype = dtype_of(to);
    if (!in || !in_dtype || !to_dtype) return std::nullopt;
    key.in = *in_dtype;
    key.to = *to_dtype;
    GemmAlgorithm algorithm{};
    for (std::uint64_t& word : algorithm) {
        std::string text;
        if (!(in >> text) || !hex(text, word)) return std::nullopt;
    }
    return std::pair{key, algorithm};
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}  // namespace

Index row_bucket(Index rows) {
    constexpr Index least = 16;
    constexpr Index most = 8192;
    if (rows >= most) return most;
    const auto octave =
        static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(std::max<Index>(rows, 1))));
    const Index step = std::max(least, octave / 16);
    return (std::max<Index>(rows, 1) + step - 1) / step * step;
}

std::size_t fastest(std::span<const GemmTrial> trials) {
    CHECK(!trials.empty() && !trials[0].microseconds.empty(), "no algorithm was tried");
    constexpr double worth = 0.98;
    std::size_t best = 0;
    double least = median(trials[0].microseconds) * worth;
    for (std::size_t i = 1; i < trials.size(); ++i) {
        if (!trials[i].same_bits || trials[i].microseconds.empty()) continue;
        const double time = median(trials[i].microseconds);
        if (time >= least) continue;
        best = i;
        least = time;
    }
    return best;
}

GemmChoices::GemmChoices(std::filesystem::path folder, std::string platform)
    : path_(folder.empty() ? std::filesystem::path() : folder / file_name(platform)),
      platform_(std::move(platform)) {
    read();
}

std::optional<GemmAlgorithm> GemmChoices::find(const GemmKey& key) const {
    const auto found = chosen_.find(key);
    return found == chosen_.end() ? std::nullopt : std::optional(found->second);
}

void GemmChoices::put(const GemmKey& key, const GemmAlgorithm& algorithm) noexcept {
    try {
        chosen_.insert_or_assign(key, algorithm);
        if (path_.empty()) return;
        read();
        write_atomically(path_, text());
    } catch (const std::exception& failed) {
        if (!warned_) log_warning("gemm choices not kept reason=\"{}\"", failed.what());
        warned_ = true;
    }
}

void GemmChoices::read() {
    std::error_code ignored;
    if (path_.empty() || !std::filesystem::exists(path_, ignored)) return;
    std::string all;
    try {
        all = read_text(path_, 16U << 20);
    } catch (const Error& failed) {
        log_warning("gemm choices not read reason=\"{}\"", failed.what());
        return;
    }
    std::istringstream in(all);
    std::string line;
    if (!std::getline(in, line) || line != first_line) return;
    if (!std::getline(in, line) || line != platform_) return;
    std::size_t damaged = 0;
    while (std::getline(in, line)) {
        // What this process has chosen itself stays.
        if (const auto entry = parse(line))
            chosen_.insert(*entry);
        else
            ++damaged;
    }
    if (damaged > 0) log_warning("gemm choices ignored lines={} path={}", damaged, path_.string());
}

std::string GemmChoices::text() const {
    std::string all = fmt::format("{}\n{}\n", first_line, platform_);
    for (const auto& [key, algorithm] : chosen_) all += line_of(key, algorithm) + "\n";
    return all;
}

}  // namespace gallop
