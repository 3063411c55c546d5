#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include "core/check.hpp"
#include "model/byte_source.hpp"

namespace gallop::test {

/// A weight file that is only in memory.
class MemorySource final : public ByteSource {
public:
    explicit MemorySource(std::string_view bytes) : bytes_(bytes) {}

    void read(std::uint64_t offset, std::span<std::byte> out) override {
        if (offset > bytes_.size() || out.size() > bytes_.size() - offset)
            throw_input_error("truncated: {} bytes", bytes_.size());
        if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    }
    std::uint64_t size_bound() const override { return bytes_.size(); }
    bool size_known() const override { return true; }

private:
    std::string bytes_;
};

}  // namespace gallop::test
