#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "media/ffmpeg.hpp"

namespace gallop {

/// One picture encoded by FFmpeg, as the bytes of its file; empty when there is no such encoder.
/// `fill` sets the planes of the frame. quality: as the encoder counts it (for JPEG, 1 is the
/// finest).
inline std::string encode_picture(const char* codec_name, AVPixelFormat format, int width,
                                  int height, const std::function<void(AVFrame&)>& fill,
                                  int quality = 1) {
    const AVCodec* codec = avcodec_find_encoder_by_name(codec_name);
    if (codec == nullptr) return {};
    CodecHandle encoder(avcodec_alloc_context3(codec));
    AVCodecContext& c = *encoder.get();
    c.width = width;
    c.height = height;
    c.pix_fmt = format;
    c.time_base = {1, 25};
    c.flags |= AV_CODEC_FLAG_QSCALE | AV_CODEC_FLAG_BITEXACT;
    c.global_quality = quality * FF_QP2LAMBDA;
    c.strict_std_compliance = FF_COMPLIANCE_UNOFFICIAL;
    check_ffmpeg(avcodec_open2(&c, codec, nullptr), codec_name, "open");
    const FrameHandle frame = make_frame();
    frame.get()->width = width;
    frame.get()->height = height;
    frame.get()->format = format;
    frame.get()->quality = quality * FF_QP2LAMBDA;
    check_ffmpeg(av_frame_get_buffer(frame.get(), 0), codec_name, "frame");
    fill(*frame.get());
    const PacketHandle packet = make_packet();
    check_ffmpeg(avcodec_send_frame(&c, frame.get()), codec_name, "send");
    avcodec_send_frame(&c, nullptr);
    check_ffmpeg(avcodec_receive_packet(&c, packet.get()), codec_name, "receive");
    return {reinterpret_cast<const char*>(packet.get()->data),
            static_cast<std::size_t>(packet.get()->size)};
}

/// A TIFF structure with an Orientation and, before it, one other entry.
inline std::string tiff_with_orientation(int orientation, bool big_endian) {
    using namespace std::string_literals;
    const char value = static_cast<char>(orientation);
    if (big_endian)
        return "MM\0*\0\0\0\x08\0\x02"s + "\x01\x0F\0\x02\0\0\0\x01"s + "A\0\0\0"s +
               "\x01\x12\0\x03\0\0\0\x01\0"s + value + "\0\0\0\0\0\0"s;
    return "II*\0\x08\0\0\0\x02\0"s + "\x0F\x01\x02\0\x01\0\0\0"s + "A\0\0\0"s +
           "\x12\x01\x03\0\x01\0\0\0"s + value + "\0\0\0\0\0\0\0"s;
}

/// The JPEG with an EXIF block right after its start marker.
inline std::string with_exif(const std::string& jpeg, const std::string& tiff) {
    using namespace std::string_literals;
    const std::string content = "Exif\0\0"s + tiff;
    const auto length = static_cast<unsigned>(content.size() + 2);
    return jpeg.substr(0, 2) + "\xFF\xE1" + static_cast<char>(length >> 8) +
           static_cast<char>(length & 0xFF) + content + jpeg.substr(2);
}

}  // namespace gallop
