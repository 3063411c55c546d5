#include "media/digest.hpp"

#include <algorithm>
#include <vector>

#include <openssl/evp.h>

#include "core/check.hpp"
#include "core/files.hpp"

namespace gallop {
namespace detail {

void free_digest(evp_md_ctx_st* context) { EVP_MD_CTX_free(context); }

}  // namespace detail

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
    CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
          "OpenSSL cannot compute SHA-256");
}

void Sha256::reset() {
    CHECK(EVP_DigestInit_ex(context_.get(), nullptr, nullptr) == 1,
          "OpenSSL cannot compute SHA-256");
}

void Sha256::update(std::span<const std::byte> bytes) {
    CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1,
          "SHA-256 of {} more bytes failed", bytes.size());
}

std::array<std::uint8_t, 32> Sha256::finish() {
    std::array<std::uint8_t, 32> digest{};
    CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1, "SHA-256 failed");
    return digest;
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
    static constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    text.reserve(2 * bytes.size());
    for (const std::uint8_t byte : bytes) {
        text += digits[byte >> 4U];
        text += digits[byte & 15U];
    }
    return text;
}

std::string digest_text(std::string_view text) {
    Sha256 sha;
    sha.update(text);
    return to_hex(sha.finish());
}

std::string digest_file(const std::filesystem::path& path) {
    const InputFile file(path);
    Sha256 sha;
    std::vector<std::byte> block(1U << 20);
    for (std::uint64_t at = 0; at < file.size(); at += block.size()) {
        const auto bytes = std::min<std::uint64_t>(block.size(), file.size() - at);
        const auto piece = std::span(block).first(static_cast<std::size_t>(bytes));
        file.read(at, piece);
        sha.update(piece);
    }
    return to_hex(sha.finish());
}

}  // namespace gallop
