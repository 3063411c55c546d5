#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace gallop {

/// What an algorithm for y = x·wᵀ is chosen for. x: [rows, depth], w: [out, depth].
struct GemmKey {
    Index rows = 0;  ///< a row_bucket
    Index out = 0, depth = 0;
    DType in = DType::f32, to = DType::f32;
    bool add = false;                                                  ///< to what y holds
    bool bias = false;                                                 ///< added to each row
    unsigned x_alignment = 256, w_alignment = 256, y_alignment = 256;  ///< of addresses, in bytes
    auto operator<=>(const GemmKey&) const = default;
};

/// The row count for which an algorithm is chosen that serves this one: rounded up to one of sixteen
/// steps an octave, from 16 to 8192.
Index row_bucket(Index rows);

/// A library's description of an algorithm, opaque; good for one version of it.
using GemmAlgorithm = std::array<std::uint64_t, 8>;

/// What trying an algorithm showed.
struct GemmTrial {
    bool same_bits = false;  ///< as the first one's result, whose order of sums is the rule
    std::vector<double> microseconds;  ///< of each run
};
/// The trial with the least median among those with the same bits; the first one where that is not
/// worth 2 %. `trials` holds at least one; the first always counts.
std::size_t fastest(std::span<const GemmTrial> trials);

/// Algorithms chosen by timing, kept in a file so that other processes need not time them. A choice
/// never changes a result: only algorithms that give the bits of the library's first suggestion are
/// chosen. So a file that is lost, damaged, written by several at once or different on another machine
/// costs time at most.
class GemmChoices {
public:
    /// `platform`: what the choices hold for, e.g. "NVIDIA H100 80GB HBM3, cuBLASLt 130100"; other files
    /// are not looked at. `folder` "": nothing is kept.
    GemmChoices(std::filesystem::path folder, std::string platform);

    std::optional<GemmAlgorithm> find(const GemmKey& key) const;
    /// Adds a choice and writes the file, with what other processes added meanwhile. Never throws: a
    /// folder that can't be written is said once in the log.
    void put(const GemmKey& key, const GemmAlgorithm& algorithm) noexcept;
    /// Where they are kept; "" for nowhere.
    const std::filesystem::path& path() const { return path_; }

private:
    void read();
    std::string text() const;

    std::filesystem::path path_;
    std::string platform_;
    std::map<GemmKey, GemmAlgorithm> chosen_;
    bool warned_ = false;
};

}  // namespace gallop
