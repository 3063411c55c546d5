#include "model/byte_source.hpp"

#include <algorithm>
#include <vector>

#include <zstd.h>

#include "core/check.hpp"
#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {
namespace {

class PlainSource final : public ByteSource {
public:
    explicit PlainSource(const std::filesystem::path& path) : file_(path) {}

    void read(std::uint64_t offset, std::span<std::byte> out) override {
        if (offset > file_.size() || out.size() > file_.size() - offset)
            throw_input_error("{}: truncated: {} bytes (bytes {} to {} wanted)",
                              file_.path().string(), file_.size(), offset, offset + out.size());
        file_.read(offset, out);
    }
    void announce(std::uint64_t offset, std::uint64_t bytes) override {
        file_.announce(offset, bytes);
    }
    std::uint64_t size_bound() const override { return file_.size(); }
    bool size_known() const override { return true; }

private:
    InputFile file_;
};

void free_stream(ZSTD_DStream* stream) { ZSTD_freeDStream(stream); }

class ZstdSource final : public ByteSource {
public:
    explicit ZstdSource(const std::filesystem::path& path)
        : file_(path),
          stream_(ZSTD_createDStream()),
          in_(ZSTD_DStreamInSize()),
          skipped_(ZSTD_DStreamOutSize()) {
        if (!stream_) throw OutOfMemoryError("out of memory for a zstd stream");
    }

    void read(std::uint64_t offset, std::span<std::byte> out) override {
        if (offset < position_) restart();
        while (position_ < offset) {
            const auto step = std::min<std::uint64_t>(offset - position_, skipped_.size());
            decompress({skipped_.data(), static_cast<std::size_t>(step)});
        }
        decompress(out);
    }
    std::uint64_t size_bound() const override {
        // No block is shorter than 4 bytes (header and one byte) and none holds more than 128 KiB.
        return (file_.size() / 4 + 1) * (128U << 10);
    }
    bool size_known() const override { return false; }

private:
    void restart() {
        ZSTD_DCtx_reset(stream_.get(), ZSTD_reset_session_only);
        position_ = taken_ = 0;
        buffered_ = {nullptr, 0, 0};
    }

    void decompress(std::span<std::byte> out) {
        ZSTD_outBuffer to{out.data(), out.size(), 0};
        while (to.pos < to.size) {
            const bool fed = buffered_.pos < buffered_.size || refill();
            const std::size_t before = to.pos;
            const std::size_t status = ZSTD_decompressStream(stream_.get(), &to, &buffered_);
            if (ZSTD_isError(status))
                throw_input_error("{}: does not decompress: {}", file_.path().string(),
                                  ZSTD_getErrorName(status));
            if (!fed && to.pos == before)
                throw_input_error("{}: truncated: decompresses to {} bytes ({} wanted)",
                                  file_.path().string(), position_ + to.pos,
                                  position_ + out.size());
        }
        position_ += out.size();
    }

    bool refill() {
        const auto step = std::min<std::uint64_t>(file_.size() - taken_, in_.size());
        file_.read(taken_, {in_.data(), static_cast<std::size_t>(step)});
        taken_ += step;
        buffered_ = {in_.data(), static_cast<std::size_t>(step), 0};
        return step > 0;
    }

    InputFile file_;
    Handle<ZSTD_DStream*, free_stream, nullptr> stream_;
    std::vector<std::byte> in_;
    std::vector<std::byte> skipped_;
    std::uint64_t taken_ = 0;     // bytes of the file handed to zstd
    std::uint64_t position_ = 0;  // bytes that came out
    ZSTD_inBuffer buffered_{nullptr, 0, 0};
};

}  // namespace

std::unique_ptr<ByteSource> open_source(const std::filesystem::path& path) {
    if (path.extension() == ".zst") return std::make_unique<ZstdSource>(path);
    return std::make_unique<PlainSource>(path);
}

}  // namespace gallop
