#pragma once

// Owners and errors for FFmpeg's C API. Private to this room: its public headers do not include
// this.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswresample/swresample.h>
#include <libswscale/swscale.h>
}

#include "core/files.hpp"
#include "core/handle.hpp"

namespace gallop {

namespace detail {
inline void free_frame(AVFrame* frame) { av_frame_free(&frame); }
inline void free_packet(AVPacket* packet) { av_packet_free(&packet); }
inline void free_codec(AVCodecContext* codec) { avcodec_free_context(&codec); }
inline void free_resampler(SwrContext* resampler) { swr_free(&resampler); }
inline void close_demuxer(AVFormatContext* format) { avformat_close_input(&format); }
inline void free_reader(AVIOContext* io) {
    av_freep(&io->buffer);
    avio_context_free(&io);
}
}  // namespace detail

using FrameHandle = Handle<AVFrame*, detail::free_frame>;
using PacketHandle = Handle<AVPacket*, detail::free_packet>;
using CodecHandle = Handle<AVCodecContext*, detail::free_codec>;
using ScalerHandle = Handle<SwsContext*, sws_freeContext>;
using ResamplerHandle = Handle<SwrContext*, detail::free_resampler>;

/// "Invalid data found when processing input", … for an FFmpeg error code.
std::string ffmpeg_reason(int code);

/// Sends FFmpeg's own messages to our log at level debug. Called before any other use.
void redirect_ffmpeg_log();

/// New, empty; throw OutOfMemoryError.
FrameHandle make_frame();
PacketHandle make_packet();

/// A frame with room for an RGB24 picture: its rows are padded, for swscale may touch what lies
/// beyond the last pixel. Throws OutOfMemoryError, which names `name`.
FrameHandle make_rgb_frame(int width, int height, std::string_view name);

/// Throws Error "CONTEXT: WHAT: reason" for a negative code, OutOfMemoryError for ENOMEM.
void check_ffmpeg(int code, std::string_view context, std::string_view what);

/// The same for files that a person gave: throws InputError.
void check_ffmpeg_input(int code, std::string_view context, std::string_view what);

/// A file opened by FFmpeg's demuxers but read by us alone: a playlist cannot make FFmpeg open
/// another file or address. Not movable, because FFmpeg holds its address.
class MediaInput {
public:
    /// Opens and recognises the file by its content. Throws InputError.
    explicit MediaInput(const std::filesystem::path& path);
    MediaInput(const MediaInput&) = delete;
    MediaInput& operator=(const MediaInput&) = delete;
    ~MediaInput() = default;

    AVFormatContext* format() const { return format_.get(); }
    const InputFile& file() const { return file_; }
    std::string name() const { return file_.path().string(); }
    /// Reads ahead until the streams' parameters are known (formats without a header need it).
    void probe_streams();
    /// The best stream of a kind, or null.
    AVStream* stream(AVMediaType kind) const;
    /// The next packet; false at the end of the file. Throws InputError when the file is damaged.
    bool read(AVPacket* packet);

private:
    static int on_read(void* self, std::uint8_t* out, int bytes);
    static std::int64_t on_seek(void* self, std::int64_t offset, int whence);

    InputFile file_;
    std::uint64_t position_ = 0;
    Handle<AVIOContext*, detail::free_reader> io_;
    Handle<AVFormatContext*, detail::close_demuxer> format_;
};

struct DecoderOptions {
    int threads = 1;
    std::int64_t max_pixels = 200'000'000;
    bool strict = false;  ///< a damaged packet is an error, not something to conceal
};

/// A decoder for one stream of `input`. Throws InputError when FFmpeg has none.
CodecHandle open_decoder(const MediaInput& input, const AVStream& stream,
                         const DecoderOptions& options);

/// Takes decoded frames; false: enough.
using DecodedSink = std::function<bool(AVFrame& frame)>;

/// Decodes one packet (null: the end) and hands each finished frame to `sink`. Returns an FFmpeg
/// error code, or 0; `AVERROR_EXIT` when the sink had enough.
int decode_packet(AVCodecContext* decoder, const AVPacket* packet, AVFrame* frame,
                  const DecodedSink& sink);

}  // namespace gallop
