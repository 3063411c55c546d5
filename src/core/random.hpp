#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace gallop {

// Gallop's noise, definition 1. Every element of every noise tensor is a pure function of (item seed,
// stream name, element index), computed with integer arithmetic and IEEE additions, multiplications,
// divisions and square roots only, never fused: the same bits on every machine, backend, split and
// order.
//
//   counter = (index / 4 low, index / 4 high, stream low, stream high), stream = FNV-1a-64(name)
//   key     = (seed low, seed high)
//   word    = Philox4x32-10(counter, key)[index mod 4]            (Salmon et al., SC 2011)
//   p       = (word + 0.5) / 2^32, exact in double
//   value   = float(inverse normal distribution function(p)), Wichura's AS 241 PPND16 in double

/// Ten rounds of Philox4x32.
constexpr std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter,
                                                     std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0],
                   static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1],
                   static_cast<std::uint32_t>(a)};
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return counter;
}

/// 64-bit FNV-1a of a name.
constexpr std::uint64_t fnv1a_64(std::string_view name) {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3U;
    return hash;
}

/// A named stream of random numbers.
struct NoiseStream {
    std::uint64_t seed;    ///< the item's seed
    std::uint64_t stream;  ///< fnv1a_64 of the stream's name, e.g. "video"

    NoiseStream(std::uint64_t item_seed, std::string_view name)
        : seed(item_seed), stream(fnv1a_64(name)) {}

    /// The 32 random bits of one element.
    std::uint32_t word(std::uint64_t index) const {
        const std::uint64_t block = index / 4;
        return philox4x32_10(
            {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
             static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
            {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)})[index % 4];
    }
};

/// Standard normal of 32 random bits; |value| ≤ 6.34.
float normal_from_bits(std::uint32_t word);

/// Fills `out` with elements first, first + 1, … of the stream.
void fill_normal(const NoiseStream& stream, std::uint64_t first, std::span<float> out);

}  // namespace gallop
