#include "media/thumbnail.hpp"

#include <algorithm>
#include <cmath>

extern "C" {
#include <libavutil/imgutils.h>
}

#include "core/check.hpp"
#include "core/clip.hpp"
#include "core/view.hpp"
#include "media/ffmpeg.hpp"

namespace gallop {
namespace {

constexpr int most_width = 192;
constexpr int most_height = 112;
constexpr int gap = 2;
constexpr int wave_height = 32;
constexpr std::array<std::uint8_t, 3> ground = {24, 26, 30};
constexpr std::array<std::uint8_t, 3> ink = {122, 190, 255};
constexpr int jpeg_quality = 4;  ///< of FFmpeg's scale: 2 (best) … 31

/// The largest even extents with the picture's sides within the bounds; JPEG halves the chroma.
std::pair<int, int> thumbnail_size(int width, int height) {
    const double scale = std::min(
        {1.0, static_cast<double>(most_width) / width, static_cast<double>(most_height) / height});
    const auto even = [&](int side) {
        return std::max(2, 2 * static_cast<int>(std::lround(side * scale / 2)));
    };
    return {even(width), even(height)};
}

/// Scales a decoded picture onto `canvas` [Y, X, 3], its left upper corner at column `left`.
void paint(const AVFrame& frame, int width, int height, int left, Tensor& canvas,
           const std::string& name) {
    const ScalerHandle scaler(sws_getContext(
        frame.width, frame.height, static_cast<AVPixelFormat>(frame.format), width, height,
        AV_PIX_FMT_RGB24, SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT, nullptr,
        nullptr, nullptr));
    if (!scaler) throw_input_error("{}: its pixels cannot be converted to RGB", name);
    sws_setColorspaceDetails(scaler.get(), sws_getCoefficients(SWS_CS_ITU709),
                             frame.color_range == AVCOL_RANGE_JPEG ? 1 : 0,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    const FrameHandle rgb = make_rgb_frame(width, height, name);
    check_ffmpeg(sws_scale(scaler.get(), frame.data, frame.linesize, 0, frame.height,
                           rgb.get()->data, rgb.get()->linesize),
                 name, "cannot scale a picture");
    const int row = static_cast<int>(3 * canvas.size(1));
    av_image_copy_plane(canvas.data<std::uint8_t>() + Index{3} * left, row, rgb.get()->data[0],
                        rgb.get()->linesize[0], 3 * width, height);
}

/// Least and largest value in each column of the waveform.
class Waveform {
public:
    Waveform(std::int64_t samples, int columns)
        : samples_(std::max<std::int64_t>(samples, 1)),
          least_(static_cast<std::size_t>(columns), 0.0F),
          most_(static_cast<std::size_t>(columns), 0.0F) {}

    /// A decoded stretch of sound; planar floats, as FFmpeg's AAC decoder gives them.
    void add(const AVFrame& frame) {
        if (frame.format != AV_SAMPLE_FMT_FLTP) return;
        for (int i = 0; i < frame.nb_samples; ++i) {
            const auto column = std::min(static_cast<std::size_t>((at_ + i) * columns() / samples_),
                                         least_.size() - 1);
            for (int channel = 0; channel < std::min(frame.ch_layout.nb_channels, 2); ++channel) {
                const float value = reinterpret_cast<const float*>(frame.extended_data[channel])[i];
                least_[column] = std::min(least_[column], value);
                most_[column] = std::max(most_[column], value);
            }
        }
        at_ += frame.nb_samples;
    }
    /// Draws it on the last rows of `canvas`.
    void paint(Tensor& canvas) const {
        const auto pixels = as<std::uint8_t, 3>(canvas.view());
        const Index top = canvas.size(0) - wave_height;
        const auto row = [](float value) {  // +1 is the first row, −1 the last
            const float clamped = std::clamp(value, -1.0F, 1.0F);
            return std::lround((1.0F - clamped) / 2 * (wave_height - 1));
        };
        for (Index x = 0; x < columns(); ++x) {
            const auto column = static_cast<std::size_t>(x);
            for (Index y = row(most_[column]); y <= row(least_[column]); ++y)
                std::copy(ink.begin(), ink.end(), &pixels(top + y, x, 0));
        }
    }

private:
    Index columns() const { return static_cast<Index>(least_.size()); }

    std::int64_t samples_;
    std::int64_t at_ = 0;
    std::vector<float> least_, most_;
};

}  // namespace

Tensor contact_strip(const std::filesystem::path& clip) {
    MediaInput input(clip);
    input.probe_streams();
    const std::string name = clip.string();
    const AVStream* video = input.stream(AVMEDIA_TYPE_VIDEO);
    const AVStream* audio = input.stream(AVMEDIA_TYPE_AUDIO);
    if (video == nullptr) throw_input_error("{}: there are no pictures in it", name);
    const CodecHandle pictures = open_decoder(input, *video, {.threads = 1});
    CodecHandle sounds;
    if (audio != nullptr) sounds = open_decoder(input, *audio, {.threads = 1});

    const auto [width, height] = thumbnail_size(video->codecpar->width, video->codecpar->height);
    Tensor canvas({height + gap + wave_height, 3 * width + 2 * gap, 3}, DType::u8);
    for (Index i = 0; i < canvas.numel(); ++i)
        canvas.data<std::uint8_t>()[i] = ground[static_cast<std::size_t>(i % 3)];
    Waveform waveform(video->nb_frames * samples_per_frame, static_cast<int>(canvas.size(1)));

    std::int64_t decoded = 0;
    const FrameHandle last = make_frame();
    const DecodedSink keep = [&](AVFrame& frame) {
        if (decoded == 0) paint(frame, width, height, 0, canvas, name);
        if (decoded == video->nb_frames / 2) paint(frame, width, height, width + gap, canvas, name);
        ++decoded;
        av_frame_unref(last.get());
        av_frame_move_ref(last.get(), &frame);
        return true;
    };
    const DecodedSink listen = [&](AVFrame& frame) {
        waveform.add(frame);
        return true;
    };
    const PacketHandle packet = make_packet();
    const FrameHandle frame = make_frame();
    for (bool more = true; more;) {
        more = input.read(packet.get());
        const AVPacket* given = more ? packet.get() : nullptr;
        const int index = packet.get()->stream_index;
        int code = 0;
        if (!more || index == video->index)
            code = decode_packet(pictures.get(), given, frame.get(), keep);
        if (code >= 0 && audio != nullptr && (!more || index == audio->index))
            code = decode_packet(sounds.get(), given, frame.get(), listen);
        if (code < 0)
            throw_input_error("{}: damaged after {} pictures: {}", name, decoded,
                              ffmpeg_reason(code));
    }
    if (decoded == 0) throw_input_error("{}: there are no pictures in it", name);
    paint(*last.get(), width, height, 2 * (width + gap), canvas, name);
    waveform.paint(canvas);
    return canvas;
}

void write_jpeg(const std::filesystem::path& path, ConstTensorView image) {
    redirect_ffmpeg_log();
    const auto pixels = as<std::uint8_t, 3>(image);
    CHECK(pixels.shape[2] == 3 && image.numel() > 0 && pixels.shape[0] % 2 == 0 &&
              pixels.shape[1] % 2 == 0,
          "a picture of shape {} (must be [Y, X, 3], its sides even)", to_string(image.shape()));
    const std::string name = path.string();
    const int width = static_cast<int>(pixels.shape[1]);
    const int height = static_cast<int>(pixels.shape[0]);
    CodecHandle encoder(avcodec_alloc_context3(avcodec_find_encoder(AV_CODEC_ID_MJPEG)));
    if (!encoder) throw OutOfMemoryError("no memory for a JPEG encoder");
    const FrameHandle frame = make_frame();
    frame.get()->width = encoder.get()->width = width;
    frame.get()->height = encoder.get()->height = height;
    frame.get()->format = encoder.get()->pix_fmt = AV_PIX_FMT_YUVJ420P;
    frame.get()->color_range = encoder.get()->color_range = AVCOL_RANGE_JPEG;
    frame.get()->quality = encoder.get()->global_quality = jpeg_quality * FF_QP2LAMBDA;
    encoder.get()->time_base = {1, 1};
    encoder.get()->thread_count = 1;
    encoder.get()->flags |= AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_QSCALE;
    check_ffmpeg(avcodec_open2(encoder.get(), nullptr, nullptr), name,
                 "cannot open the JPEG encoder");
    check_ffmpeg(av_frame_get_buffer(frame.get(), 0), name, "no memory for the picture");
    const ScalerHandle scaler(
        sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_YUVJ420P,
                       SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT, nullptr, nullptr, nullptr));
    if (!scaler) throw Error(fmt::format("{}: cannot convert the picture to YUV", name));
    const FrameHandle rgb = make_rgb_frame(width, height, name);
    av_image_copy_plane(rgb.get()->data[0], rgb.get()->linesize[0], pixels.data, 3 * width,
                        3 * width, height);
    check_ffmpeg(sws_scale(scaler.get(), rgb.get()->data, rgb.get()->linesize, 0, height,
                           frame.get()->data, frame.get()->linesize),
                 name, "cannot convert the picture to YUV");
    const PacketHandle packet = make_packet();
    check_ffmpeg(avcodec_send_frame(encoder.get(), frame.get()), name, "cannot encode as JPEG");
    check_ffmpeg(avcodec_receive_packet(encoder.get(), packet.get()), name,
                 "cannot encode as JPEG");
    write_atomically(path, {reinterpret_cast<const char*>(packet.get()->data),
                            static_cast<std::size_t>(packet.get()->size)});
}

}  // namespace gallop
