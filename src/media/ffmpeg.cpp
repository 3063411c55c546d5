#include "media/ffmpeg.hpp"

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "core/check.hpp"
#include "core/file_errors.hpp"
#include "core/log.hpp"

namespace gallop {
namespace {

void forward_to_log(void* source, int level, const char* format, std::va_list arguments) {
    if (level > AV_LOG_WARNING) return;
    std::array<char, 512> line{};
    int at_line_start = 1;
    av_log_format_line2(source, level, format, arguments, line.data(),
                        static_cast<int>(line.size()), &at_line_start);
    std::string_view text(line.data());
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    log_debug("ffmpeg: {}", text);
}

}  // namespace

void redirect_ffmpeg_log() {
    static std::once_flag once;
    std::call_once(once, [] { av_log_set_callback(forward_to_log); });
}

std::string ffmpeg_reason(int code) {
    std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
    av_strerror(code, text.data(), text.size());
    return text.data();
}

FrameHandle make_frame() {
    FrameHandle frame(av_frame_alloc());
    if (!frame) throw OutOfMemoryError("no memory for a frame");
    return frame;
}

FrameHandle make_rgb_frame(int width, int height, std::string_view name) {
    FrameHandle frame = make_frame();
    frame.get()->width = width;
    frame.get()->height = height;
    frame.get()->format = AV_PIX_FMT_RGB24;
    check_ffmpeg(av_frame_get_buffer(frame.get(), 0), name, "no memory for the picture");
    return frame;
}

PacketHandle make_packet() {
    PacketHandle packet(av_packet_alloc());
    if (!packet) throw OutOfMemoryError("no memory for a packet");
    return packet;
}

void check_ffmpeg(int code, std::string_view context, std::string_view what) {
    if (code >= 0) return;
    const std::string text = fmt::format("{}: {}: {}", context, what, ffmpeg_reason(code));
    if (code == AVERROR(ENOMEM)) throw OutOfMemoryError(text);
    if (is_disk_errno(AVUNERROR(code))) throw DiskError(text);
    if (is_access_errno(AVUNERROR(code))) throw AccessError(text);
    throw Error(text);
}

void check_ffmpeg_input(int code, std::string_view context, std::string_view what) {
    if (code >= 0 || code == AVERROR(ENOMEM) || code == AVERROR(EIO))
        return check_ffmpeg(code, context, what);
    throw_input_error("{}: {}: {}", context, what, ffmpeg_reason(code));
}

int MediaInput::on_read(void* self, std::uint8_t* out, int bytes) {
    auto& input = *static_cast<MediaInput*>(self);
    if (input.position_ >= input.file_.size()) return AVERROR_EOF;
    const auto wanted = std::min<std::uint64_t>(static_cast<std::uint64_t>(bytes),
                                                input.file_.size() - input.position_);
    try {
        input.file_.read(input.position_,
                         std::as_writable_bytes(std::span(out, static_cast<std::size_t>(wanted))));
    } catch (const std::exception&) {  // must not pass through C; becomes EIO and so an Error again
        return AVERROR(EIO);
    }
    input.position_ += wanted;
    return static_cast<int>(wanted);
}

std::int64_t MediaInput::on_seek(void* self, std::int64_t offset, int whence) {
    auto& input = *static_cast<MediaInput*>(self);
    const auto size = static_cast<std::int64_t>(input.file_.size());
    const auto here = static_cast<std::int64_t>(input.position_);
    std::int64_t target = offset;
    switch (whence & ~AVSEEK_FORCE) {
        case AVSEEK_SIZE: return size;
        case SEEK_SET: break;
        case SEEK_CUR:
            if (__builtin_add_overflow(here, offset, &target)) return AVERROR(EINVAL);
            break;
        case SEEK_END:
            if (__builtin_add_overflow(size, offset, &target)) return AVERROR(EINVAL);
            break;
        default: return AVERROR(EINVAL);
    }
    if (target < 0) return AVERROR(EINVAL);
    input.position_ = static_cast<std::uint64_t>(target);
    return target;
}

MediaInput::MediaInput(const std::filesystem::path& path) : file_(path) {
    redirect_ffmpeg_log();
    constexpr int buffer_bytes = 64 << 10;
    auto* buffer = static_cast<std::uint8_t*>(av_malloc(buffer_bytes));
    if (buffer == nullptr) throw OutOfMemoryError("no memory for a file buffer");
    io_.reset(avio_alloc_context(buffer, buffer_bytes, 0, this, on_read, nullptr, on_seek));
    if (!io_) {
        av_free(buffer);
        throw OutOfMemoryError("no memory for a file reader");
    }
    AVFormatContext* format = avformat_alloc_context();
    if (format == nullptr) throw OutOfMemoryError("no memory for a demuxer");
    format->pb = io_.get();
    format->protocol_whitelist = av_strdup("none");  // no demuxer opens anything else
    const int code =
        avformat_open_input(&format, nullptr, nullptr, nullptr);  // frees it on failure
    check_ffmpeg_input(code, name(), "not a media file that FFmpeg knows");
    format_.reset(format);
}

void MediaInput::probe_streams() {
    check_ffmpeg_input(avformat_find_stream_info(format_.get(), nullptr), name(),
                       "cannot find out what its streams are");
}

AVStream* MediaInput::stream(AVMediaType kind) const {
    const int index = av_find_best_stream(format_.get(), kind, -1, -1, nullptr, 0);
    return index < 0 ? nullptr : format_.get()->streams[index];
}

bool MediaInput::read(AVPacket* packet) {
    av_packet_unref(packet);
    const int code = av_read_frame(format_.get(), packet);
    if (code == AVERROR_EOF) return false;
    check_ffmpeg_input(code, name(), "cannot read on");
    return true;
}

CodecHandle open_decoder(const MediaInput& input, const AVStream& stream,
                         const DecoderOptions& options) {
    const AVCodecParameters& parameters = *stream.codecpar;
    const AVCodec* codec = avcodec_find_decoder(parameters.codec_id);
    if (codec == nullptr)
        throw_input_error("{}: no decoder for codec '{}'", input.name(),
                          avcodec_get_name(parameters.codec_id));
    CodecHandle decoder(avcodec_alloc_context3(codec));
    if (!decoder) throw OutOfMemoryError("no memory for a decoder");
    check_ffmpeg_input(avcodec_parameters_to_context(decoder.get(), &parameters), input.name(),
                       "cannot set up its decoder");
    decoder.get()->pkt_timebase = stream.time_base;  // to drop priming samples at the right place
    decoder.get()->thread_count = options.threads;
    decoder.get()->max_pixels = options.max_pixels;
    decoder.get()->flags |= AV_CODEC_FLAG_BITEXACT;
    if (options.strict)
        decoder.get()->err_recognition |= AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_EXPLODE;
    check_ffmpeg_input(avcodec_open2(decoder.get(), codec, nullptr), input.name(),
                       "cannot open its decoder");
    return decoder;
}

int decode_packet(AVCodecContext* decoder, const AVPacket* packet, AVFrame* frame,
                  const DecodedSink& sink) {
    bool sent = false;
    for (;;) {
        if (!sent) {
            const int code = avcodec_send_packet(decoder, packet);
            if (code < 0 && code != AVERROR(EAGAIN)) return code;
            sent = code >= 0;  // EAGAIN: frames have to be fetched first
        }
        const int code = avcodec_receive_frame(decoder, frame);
        if (code == AVERROR_EOF || (code == AVERROR(EAGAIN) && sent)) return 0;
        if (code < 0) return code;
        const bool more = sink(*frame);
        av_frame_unref(frame);
        if (!more) return AVERROR_EXIT;
    }
}

}  // namespace gallop
