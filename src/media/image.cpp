#include "media/image.hpp"

#include <algorithm>
#include <cstring>
#include <string>

extern "C" {
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
}

#include "core/view.hpp"
#include "media/exif.hpp"
#include "media/ffmpeg.hpp"

namespace gallop {
namespace {

// Both bounds keep a small hostile file from filling the memory.
constexpr std::int64_t max_pixels = 200'000'000;
constexpr std::uint64_t max_file_bytes = 1U << 30;

bool is_full_range(const AVFrame& frame, const AVPixFmtDescriptor& format) {
    if (frame.color_range != AVCOL_RANGE_UNSPECIFIED) return frame.color_range == AVCOL_RANGE_JPEG;
    return (format.flags & AV_PIX_FMT_FLAG_RGB) != 0 || format.nb_components < 3 ||
           std::string_view(format.name).starts_with("yuvj");
}

/// The frame, or a copy with sides that its chroma divides. swscale stretches the chroma of an odd
/// side a little (151 to 301 in place of 302), which shifts colours; what fills the copy's last row
/// and column does not matter, because it is cut off again.
FrameHandle with_even_sides(const AVFrame& frame, const AVPixFmtDescriptor& format) {
    const int width = AV_CEIL_RSHIFT(frame.width, format.log2_chroma_w) << format.log2_chroma_w;
    const int height = AV_CEIL_RSHIFT(frame.height, format.log2_chroma_h) << format.log2_chroma_h;
    FrameHandle even = make_frame();
    if (width == frame.width && height == frame.height) {
        check_ffmpeg(av_frame_ref(even.get(), &frame), "picture", "no memory");
        return even;
    }
    even.get()->width = width;
    even.get()->height = height;
    even.get()->format = frame.format;
    check_ffmpeg(av_frame_get_buffer(even.get(), 0), "picture", "no memory");
    for (const AVBufferRef* buffer : even.get()->buf)
        if (buffer != nullptr) std::memset(buffer->data, 0, buffer->size);
    av_image_copy(even.get()->data, even.get()->linesize,
                  const_cast<const std::uint8_t**>(frame.data), frame.linesize,
                  static_cast<AVPixelFormat>(frame.format), frame.width, frame.height);
    return even;
}

/// [Y, X, 3] u8 of a decoded frame.
Tensor to_rgb(const AVFrame& frame, const std::string& name) {
    const auto format = static_cast<AVPixelFormat>(frame.format);
    const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(format);
    if (description == nullptr || !sws_isSupportedInput(format))
        throw_input_error("{}: its pixel format cannot be converted to RGB", name);
    const FrameHandle even = with_even_sides(frame, *description);
    const int width = even.get()->width;
    const int height = even.get()->height;
    ScalerHandle scaler(sws_getContext(
        width, height, format, width, height, AV_PIX_FMT_RGB24,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_BITEXACT,
        nullptr, nullptr, nullptr));
    if (!scaler) throw_input_error("{}: its pixels cannot be converted to RGB", name);
    // JFIF and most still formats mean BT.601; where the file says otherwise, the file is right.
    const int matrix =
        frame.colorspace == AVCOL_SPC_UNSPECIFIED || frame.colorspace == AVCOL_SPC_RGB
            ? SWS_CS_ITU601
            : static_cast<int>(frame.colorspace);
    // Fails for RGB and grey sources, where there is no matrix to choose: nothing is lost then.
    sws_setColorspaceDetails(scaler.get(), sws_getCoefficients(matrix),
                             is_full_range(frame, *description) ? 1 : 0,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    const FrameHandle rgb = make_rgb_frame(width, height, name);
    check_ffmpeg_input(sws_scale(scaler.get(), even.get()->data, even.get()->linesize, 0, height,
                                 rgb.get()->data, rgb.get()->linesize),
                       name, "cannot convert to RGB");
    Tensor image({frame.height, frame.width, 3}, DType::u8);
    av_image_copy_plane(image.data<std::uint8_t>(), 3 * frame.width, rgb.get()->data[0],
                        rgb.get()->linesize[0], 3 * frame.width, frame.height);
    return image;
}

}  // namespace

Tensor upright(ConstTensorView image, int orientation) {
    CHECK(1 <= orientation && orientation <= 8, "orientation {} (must be 1 to 8)", orientation);
    const auto stored = as<std::uint8_t, 3>(image);
    const Index rows = stored.shape[0];
    const Index columns = stored.shape[1];
    const bool swap = orientation >= 5;
    Tensor turned({swap ? columns : rows, swap ? rows : columns, 3}, DType::u8);
    const auto out = as<std::uint8_t, 3>(turned.view());
    for (Index y = 0; y < out.shape[0]; ++y)
        for (Index x = 0; x < out.shape[1]; ++x) {
            // Where the pixel at (y, x) of the upright picture is stored.
            Index row = swap ? x : y;
            Index column = swap ? y : x;
            if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
                row = rows - 1 - row;
            if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
                column = columns - 1 - column;
            std::copy_n(&stored(row, column, 0), 3, &out(y, x, 0));
        }
    return turned;
}

Tensor load_image(const std::filesystem::path& path) {
    MediaInput input(path);
    if (input.file().size() > max_file_bytes)
        throw_input_error("{}: {} bytes (a picture may have at most {})", path.string(),
                          input.file().size(), max_file_bytes);
    const std::string content = read_text(path, max_file_bytes);
    const auto bytes = std::as_bytes(std::span(content));
    if (is_cut_off_jpeg(bytes))
        throw_input_error("{}: the JPEG ends in the middle of the picture: was it copied in full?",
                          path.string());
    const AVStream* stream = input.stream(AVMEDIA_TYPE_VIDEO);
    if (stream == nullptr) throw_input_error("{}: there is no picture in it", path.string());
    const std::int64_t pixels =
        std::int64_t{stream->codecpar->width} * std::int64_t{stream->codecpar->height};
    if (pixels > max_pixels)
        throw_input_error("{}: {} pixels (at most {})", path.string(), pixels, max_pixels);
    // The TIFF decoder, when strict, refuses every tag that it does not use itself.
    const bool strict = stream->codecpar->codec_id != AV_CODEC_ID_TIFF;
    const CodecHandle decoder =
        open_decoder(input, *stream, {.max_pixels = max_pixels, .strict = strict});

    Tensor image;
    const PacketHandle packet = make_packet();
    const FrameHandle frame = make_frame();
    const DecodedSink keep_first = [&](AVFrame& decoded) {
        image = to_rgb(decoded, input.name());
        return false;
    };
    int code = 0;
    while (!image.defined()) {
        const bool more = input.read(packet.get());
        if (more && packet.get()->stream_index != stream->index) continue;
        code = decode_packet(decoder.get(), more ? packet.get() : nullptr, frame.get(), keep_first);
        if (!more || (code < 0 && code != AVERROR_EXIT)) break;
    }
    // Beyond max_pixels, FFmpeg's decoders forget the size and only say "invalid".
    if (!image.defined())
        throw_input_error("{}: cannot decode the picture: {} (is it damaged, or beyond {} pixels?)",
                          path.string(), ffmpeg_reason(code < 0 ? code : AVERROR_INVALIDDATA),
                          max_pixels);
    const int orientation = exif_orientation(bytes);
    return orientation == 1 ? std::move(image) : upright(image, orientation);
}

void write_png(const std::filesystem::path& path, ConstTensorView image) {
    redirect_ffmpeg_log();
    const auto pixels = as<std::uint8_t, 3>(image);
    CHECK(pixels.shape[2] == 3 && image.numel() > 0, "a picture of shape {} (must be [Y, X, 3])",
          to_string(image.shape()));
    const std::string name = path.string();
    CodecHandle encoder(avcodec_alloc_context3(avcodec_find_encoder(AV_CODEC_ID_PNG)));
    if (!encoder) throw OutOfMemoryError("no memory for a PNG encoder");
    const FrameHandle frame = make_frame();
    frame.get()->width = encoder.get()->width = static_cast<int>(pixels.shape[1]);
    frame.get()->height = encoder.get()->height = static_cast<int>(pixels.shape[0]);
    frame.get()->format = encoder.get()->pix_fmt = AV_PIX_FMT_RGB24;
    encoder.get()->time_base = {1, 1};
    encoder.get()->flags |= AV_CODEC_FLAG_BITEXACT;
    check_ffmpeg(avcodec_open2(encoder.get(), nullptr, nullptr), name,
                 "cannot open the PNG encoder");
    check_ffmpeg(av_frame_get_buffer(frame.get(), 0), name, "no memory for the picture");
    av_image_copy_plane(frame.get()->data[0], frame.get()->linesize[0], pixels.data,
                        3 * frame.get()->width, 3 * frame.get()->width, frame.get()->height);
    const PacketHandle packet = make_packet();
    check_ffmpeg(avcodec_send_frame(encoder.get(), frame.get()), name, "cannot encode as PNG");
    check_ffmpeg(avcodec_receive_packet(encoder.get(), packet.get()), name, "cannot encode as PNG");
    write_atomically(path, {reinterpret_cast<const char*>(packet.get()->data),
                            static_cast<std::size_t>(packet.get()->size)});
}

}  // namespace gallop
