#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "core/handle.hpp"

struct evp_md_ctx_st;

namespace gallop {

namespace detail {
void free_digest(evp_md_ctx_st* context);
}  // namespace detail

/// SHA-256 of bytes that arrive in pieces. Source: FIPS 180-4; computed by OpenSSL.
class Sha256 {
public:
    Sha256();
    void update(std::span<const std::byte> bytes);
    void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
    /// The digest of all pieces. Nothing may be added afterwards, but for a reset.
    std::array<std::uint8_t, 32> finish();
    /// Begins anew; cheaper than another object.
    void reset();

private:
    Handle<evp_md_ctx_st*, detail::free_digest> context_;
};

/// Lower-case hexadecimal.
std::string to_hex(std::span<const std::uint8_t> bytes);

/// SHA-256 of a text, 64 hex digits.
std::string digest_text(std::string_view text);

/// SHA-256 of a file, 64 hex digits. Throws InputError when it cannot be opened, Error on an I/O
/// error.
std::string digest_file(const std::filesystem::path& path);

}  // namespace gallop
